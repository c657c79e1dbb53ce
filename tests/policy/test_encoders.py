"""Observations of several parts: rows, encoders and what a task of both image and vector teaches."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.spaces.utils import flatten
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from aa2c.config.config import Config
from aa2c.envs.observations import Image, layout_of, obs_spec, to_row
from aa2c.envs.plain import spec_of
from aa2c.envs.written import plain_obs, read_obs
from aa2c.errors import StartError
from aa2c.modes.mode import MODES
from aa2c.policy.encoders import Encoders, Flattened, Named, numbers_of
from aa2c.policy.flat import FlatParameters
from aa2c.policy.network import make_policy
from tests.modes.fake_port import SmallMode, forever

ACTIONS = spaces.Discrete(3)
IMAGES = [
    spaces.Box(0, 255, (36, 40, 3), np.uint8),
    spaces.Box(0, 255, (4, 21, 20), np.uint8),
    spaces.Box(0, 10, (7, 7, 3), np.uint8),
    spaces.Box(0, 255, (20, 21), np.uint8),
    spaces.Box(0, 1, (10, 10, 4), np.bool_),
    spaces.Box(0, 1, (3, 8, 9), np.float32),
]
VECTORS = [
    spaces.Discrete(4),
    spaces.Discrete(5, start=-2),
    spaces.MultiDiscrete([3, 2]),
    spaces.MultiBinary((2, 3)),
    spaces.Box(-1, 1, (), np.float32),
    spaces.Box(-1, 1, (2, 3), np.float64),
    spaces.Box(0, 9, (3,), np.int64),
    spaces.Box(0, 255, (5,), np.uint8),
]


def joined(parts):
    return st.lists(parts, min_size=1, max_size=3).flatmap(
        lambda some: st.sampled_from(
            [spaces.Tuple(some), spaces.Dict({f"part {i}": s for i, s in enumerate(some)})]
        )
    )


LEAVES = st.sampled_from(IMAGES + VECTORS)
ANY_SPACE = joined(st.recursive(LEAVES, joined, max_leaves=3))
A_DICT = spaces.Dict(
    deep=spaces.Tuple((spaces.Discrete(3, start=1), IMAGES[1], IMAGES[5])),
    image=IMAGES[0],
    place=spaces.Box(-1, 1, (2,), np.float64),
)


def samples(space, count):
    space.seed(0)
    return [space.sample() for _ in range(count)]


def rows_of(spec, seen):
    return torch.from_numpy(np.stack([to_row(spec.obs, each) for each in seen]))


def policy_for(space, **options):
    torch.manual_seed(0)
    spec = spec_of(space, ACTIONS)
    return make_policy(Config(**options), spec), spec


def leaves_of(space, seen):
    """A space's leaves with what was seen of each, depth first."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        steps = space.spaces if isinstance(space, spaces.Dict) else range(len(space.spaces))
        return [leaf for step in steps for leaf in leaves_of(space[step], seen[step])]
    return [(space, seen)]


@settings(max_examples=40)
@given(space=ANY_SPACE)
def test_what_is_unpacked_is_what_was_seen(space):
    spec = spec_of(space, ACTIONS)
    layout = layout_of(spec.obs)
    assert (spec.obs_shape, spec.obs_dtype) == (layout.shape, layout.dtype)
    assert read_obs(json.loads(json.dumps(plain_obs(spec.obs), allow_nan=False))) == spec.obs
    seen = samples(space, 3)
    rows = rows_of(spec, seen)
    assert rows.stride(0) * rows.element_size() % 4 == 0
    floats = Flattened(layout, 0.0)(rows)
    for row, each in zip(floats, seen, strict=True):
        expected = [
            flatten(leaf, part).astype(np.float32) / place.leaf.scale
            if isinstance(leaf, spaces.Box)
            else flatten(leaf, part)
            for (leaf, part), place in zip(leaves_of(space, each), layout.places, strict=True)
        ]
        np.testing.assert_allclose(row, np.concatenate(expected), rtol=1e-6)


@settings(max_examples=25)
@given(space=ANY_SPACE, norm_obs=st.booleans(), memory=st.sampled_from(["none", "gru"]))
def test_every_part_is_seen_and_what_acts_computes_what_learns(space, norm_obs, memory):
    policy, spec = policy_for(
        space,
        norm_obs=norm_obs,
        memory=memory,
        memory_size=4,
        hidden_sizes=(8,),
        precision="float32",
    )
    FlatParameters(policy)
    rows = rows_of(spec, samples(space, 6))
    policy.observe(rows)
    with torch.no_grad():
        acted = policy.acting()(rows, policy.initial_state(6), torch.ones(6, dtype=torch.bool))
    outputs, values = policy(rows)
    assert (outputs.shape, values.shape) == ((6, 3), (6,))
    for one, other in zip(acted, (outputs, values), strict=False):
        torch.testing.assert_close(one, other.detach(), rtol=1e-4, atol=1e-5)
    (outputs.square().sum() + values.square().sum()).backward()
    encoders = [policy.trunk] if not isinstance(policy.trunk, Encoders) else [
        *policy.trunk.images, *[m for m in [policy.trunk.vector] if m is not None]
    ]  # fmt: skip
    images = [place for place in layout_of(spec.obs).places if place.leaf.is_image]
    if images:
        assert len(policy.trunk.images) == len(images)
    for encoder in encoders:
        for parameter in encoder.parameters():
            assert parameter.grad.isfinite().all()
            assert parameter.grad.any()


@pytest.mark.parametrize("network", ["auto", "a3c", "impala", "minatar", "mlp"])
@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-4), ("bfloat16", 0.05)])
@pytest.mark.parametrize("norm_obs", [True, False])
def test_what_acts_computes_what_learns_in_either_precision(network, precision, error, norm_obs):
    space = spaces.Dict(a=IMAGES[0], b=IMAGES[1], c=spaces.Box(-9, 9, (4,)))
    policy, spec = policy_for(space, network=network, precision=precision, norm_obs=norm_obs)
    rows = rows_of(spec, samples(space, 5))
    policy.observe(rows)
    for some in (rows, rows[:1]):
        with torch.no_grad():
            [*policy.policy.modules()][-1].weight.mul_(30)
            acted, learned = policy.acting()(some)[:2], policy(some)
        for one, other in zip(acted, learned, strict=True):
            assert one.dtype == torch.float32
            assert (one - other).norm() <= error * other.norm()


def test_the_vector_is_exact_and_alone_normalized():
    policy, spec = policy_for(A_DICT, norm_obs=True, precision="bfloat16")
    layout = layout_of(spec.obs)
    rows = rows_of(spec, samples(A_DICT, 50))
    policy.observe(rows)
    assert policy.obs_rms.mean.shape == (layout.numbers,)
    numbers = numbers_of(layout, rows)
    torch.testing.assert_close(policy.obs_rms.mean, numbers.mean(0))
    prepared = policy.prepare(rows, policy.units(rows))
    expected = (numbers - numbers.mean(0)) / numbers.std(0, correction=0).clamp(min=1e-4)
    torch.testing.assert_close(numbers_of(layout, prepared), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(prepared[:, 4 * layout.numbers :], rows[:, 4 * layout.numbers :])
    half = policy.trunk(rows)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(policy.trunk(rows)[:, :64], half[:, :64])


def test_images_of_bytes_stay_bytes():
    spec = spec_of(A_DICT, ACTIONS)
    layout = layout_of(spec.obs)
    pixels = 36 * 40 * 3 + 4 * 21 * 20
    assert (layout.vector, layout.numbers, layout.pixels) == (5, 5 + 3 * 8 * 9, pixels)
    assert spec.obs_shape == (4 * layout.numbers + pixels,)
    assert spec.obs_dtype == "uint8"
    assert [type(p.leaf) is Image for p in layout.images] == [True, False, True]


def test_rows_of_odd_images_are_as_long_as_whole_numbers():
    spec = spec_of(spaces.Dict(image=IMAGES[2], kind=spaces.Discrete(2)), ACTIONS)
    assert 7 * 7 * 3 == 147
    assert spec.obs_shape == (4 * 2 + 148,)


def test_auto_takes_for_each_image_the_convolutions_that_fit():
    space = spaces.Dict(a=IMAGES[0], b=IMAGES[1], c=IMAGES[2], d=spaces.Discrete(2))
    policy, _ = policy_for(space)
    units = [encoder[-2].out_features for encoder in policy.trunk.images]
    assert units == [512, 256, 128]


def test_mlp_flattens_images_too():
    policy, spec = policy_for(A_DICT, network="mlp")
    layout = layout_of(spec.obs)
    assert not any(isinstance(module, nn.Conv2d) for module in policy.modules())
    assert policy.policy[0].in_features == layout.numbers + layout.pixels


def test_an_image_that_a_network_cannot_see_is_refused_with_its_shape():
    with pytest.raises(StartError, match=r"--network nature .*36 pixels.*\(7, 7, 3\).*auto"):
        policy_for(spaces.Dict(a=IMAGES[0], b=IMAGES[2]), network="nature")


def test_images_alone_need_no_numbers():
    policy, spec = policy_for(spaces.Tuple((IMAGES[2], IMAGES[3])), norm_obs=True)
    assert policy.obs_rms.shape == (0,)
    rows = rows_of(spec, samples(spaces.Tuple((IMAGES[2], IMAGES[3])), 2))
    policy.observe(rows)
    assert policy(rows)[0].shape == (2, 3)


def test_parts_have_the_names_and_shapes_of_the_space():
    spec = spec_of(A_DICT, ACTIONS)
    seen = samples(A_DICT, 2)
    floats = Flattened(layout_of(spec.obs), 0.0)(rows_of(spec, seen))
    parts = Named(spec.obs)(floats)
    assert list(parts) == ["deep", "image", "place"]
    kind, small, _ = parts["deep"]
    assert kind.argmax(1).tolist() == [each["deep"][0] - 1 for each in seen]
    for part, images in (
        (parts["image"], [each["image"] for each in seen]),
        (small, [each["deep"][1] for each in seen]),
    ):
        np.testing.assert_allclose(part, np.stack(images) / np.float32(255), rtol=1e-6)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_learns_what_image_and_vector_say_only_together(mode):
    torch.manual_seed(0)
    config = Config(
        env="tests.envs.signal_env:Signal-v0", mode=mode, workers=1, learning_rate=3e-3, norm_obs=True
    )  # fmt: skip
    returns, best = [], 8
    with SmallMode(config) as small:
        while np.mean(returns[-100:] or [0]) < 0.93 * best:
            assert small.port.count("env_steps") < 60_000
            for _ in range(small.consumer.records_per_update or 1):
                small.producer.produce(small.port)
            small.consumer.consume(small.port.records, config.learning_rate, forever)
            for _, told in small.port.reports:
                returns += [episode.episode_return for episode in told.get("episodes", ())]
            small.port.records.clear()
            small.port.reports.clear()


def test_a_part_that_no_network_sees_is_refused_with_its_place_and_a_wrapper():
    with pytest.raises(StartError, match=r"\['mission'\].*FilterObservation"):
        obs_spec(spaces.Dict(image=IMAGES[2], mission=spaces.Text(3)))
    with pytest.raises(StartError, match=r"\[0\]\['a'\].*TransformObservation"):
        obs_spec(spaces.Tuple((spaces.Dict(a=spaces.Graph(spaces.Discrete(2), None)),)))
