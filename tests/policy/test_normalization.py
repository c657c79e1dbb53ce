"""Running mean and std against numpy on everything at once, and values that PopArt leaves as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aa2c.config.config import Config
from aa2c.envs.spec import Discrete, EnvSpec
from aa2c.learn.optimizer import make_optimizer
from aa2c.policy.flat import FlatParameters
from aa2c.policy.network import make_policy
from aa2c.policy.normalization import (
    LARGEST,
    MOST_COUNTED,
    OBS_LIMIT,
    RunningMeanStd,
    Statistics,
    flat_length,
    is_sound,
    normalize,
    read_flat,
    statistics_of,
    write_flat,
)

SPEC = EnvSpec((4,), "float32", Discrete(2))


def normalized_by(rms, rows, scale=1.0):
    return normalize(rows, rms.units(rows, scale))


@pytest.mark.parametrize("shape", [(1,), (4,), (2, 3, 5)])
def test_moments_of_parts_are_those_of_the_whole(shape):
    rng = np.random.default_rng(0)
    parts = [rng.normal(7, 3, (n, *shape)).astype(np.float32) for n in (1, 50, 3, 400)]
    rms = RunningMeanStd(shape)
    for part in parts:
        rms.update(torch.from_numpy(part))
    whole = np.concatenate(parts)
    assert rms.count == len(whole)
    np.testing.assert_allclose(rms.mean, whole.mean(0), rtol=1e-4)
    np.testing.assert_allclose(rms.variance, whole.var(0), rtol=1e-3)


@st.composite
def parts(draw):
    """Rows [n, *shape] in some parts, each about a mean of its own; some parts are empty."""
    shape = draw(st.sampled_from([(1,), (3,), (2, 3, 4)]))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    counts = draw(st.lists(st.integers(0, 40), min_size=1, max_size=6))
    scale = draw(st.sampled_from([1e-3, 1.0, 1e4]))
    return [
        rng.normal(rng.normal(0, 5 * scale), scale, (n, *shape)).astype(np.float32) for n in counts
    ]


@given(parts())
def test_merged_statistics_of_parts_that_travelled_are_those_of_all_rows_at_once(parts):
    shape, whole = parts[0].shape[1:], np.concatenate(parts)
    rms = RunningMeanStd(shape)
    for part in parts:
        array = np.full(flat_length(shape), np.nan, np.float32)
        write_flat(statistics_of(torch.from_numpy(part)), array)
        assert is_sound(array)
        array.flags.writeable = False
        rms.merge(read_flat(array, shape))
    assert rms.count == len(whole)
    if not len(whole):
        assert rms.mean.eq(0).all()
        assert rms.variance.eq(1).all()
        return
    exact = whole.astype(np.float64)
    size = np.abs(exact).max()
    np.testing.assert_allclose(rms.mean, exact.mean(0), rtol=1e-4, atol=1e-5 * size)
    np.testing.assert_allclose(rms.variance, exact.var(0), rtol=1e-3, atol=1e-6 * size**2)


@given(parts())
def test_it_does_not_matter_who_merges_first(parts):
    shape = parts[0].shape[1:]
    one_by_one, by_twos = RunningMeanStd(shape), RunningMeanStd(shape)
    for part in parts:
        one_by_one.update(torch.from_numpy(part))
    for i in range(0, len(parts), 2):
        merged = Statistics.of_none(shape)
        for part in parts[i : i + 2]:
            merged = merged.merged(statistics_of(torch.from_numpy(part)))
        by_twos.merge(merged)
    size = max(float(np.abs(part).max(initial=0)) for part in parts) + 1e-9
    for name, unit in (("count", 1), ("mean", size), ("variance", size**2)):
        one, two = getattr(one_by_one, name), getattr(by_twos, name)
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5 * unit)


@pytest.mark.parametrize(
    ("place", "number", "good"),
    [
        (0, 0.0, True),
        (0, 1e9, True),
        (0, -1.0, False),
        (0, np.inf, False),
        (0, np.nan, False),
        (2, -LARGEST, True),
        (2, 1e20, False),
        (2, np.nan, False),
        (4, 0.0, True),
        (4, LARGEST**2, True),
        (4, -1e-6, False),
        (4, np.inf, False),
        (4, np.nan, False),
    ],
)
def test_only_statistics_that_spoil_nothing_are_sound(place, number, good):
    array = np.array([5, 0, 1, 2, 1, 1, 1], np.float32)
    array[place] = number
    assert is_sound(array) is good
    if good:
        rms = RunningMeanStd((3,))
        for _ in range(3):
            rms.merge(read_flat(array, (3,)))
        assert all(buffer.isfinite().all() for buffer in rms.buffers())


def test_old_rows_fade_once_there_are_many():
    rms = RunningMeanStd((1,))
    rms.count.fill_(MOST_COUNTED)
    for _ in range(30):
        rms.update(torch.full((200_000, 1), 5.0))
    assert rms.count == MOST_COUNTED
    assert rms.mean.item() == pytest.approx(5, abs=0.05)


def test_normalized_rows_have_mean_0_std_1_and_a_limit():
    rows = torch.randn(5000, 3) * torch.tensor([1.0, 10.0, 0.0]) + torch.tensor([0.0, 5.0, 2.0])
    rms = RunningMeanStd((3,))
    rms.update(rows)
    normalized = normalized_by(rms, rows)
    torch.testing.assert_close(normalized.mean(0), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(normalized[:, :2].std(0), torch.ones(2), atol=1e-2, rtol=0)
    assert normalized_by(rms, torch.tensor([[1e9, -1e9, 2.5]])).abs().max() == OBS_LIMIT


def test_no_rows_change_nothing():
    rms = RunningMeanStd((3,))
    rms.update(torch.ones(4, 3))
    before = [buffer.clone() for buffer in rms.buffers()]
    rms.update(torch.ones(0, 3))
    assert all(torch.equal(now, then) for now, then in zip(rms.buffers(), before, strict=True))


@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan, 3e38, -1e30])
@pytest.mark.parametrize("seen", [0, 7])
def test_a_row_that_overflows_is_left_out_and_the_others_count(number, seen):
    rms, clean = RunningMeanStd((3,)), RunningMeanStd((3,))
    rows = torch.randn(seen, 3)
    for each in (rms, clean):
        each.update(rows)
    rms.update(torch.tensor([[1.0, 2.0, 3.0], [1.0, number, 3.0], [4.0, 5.0, 6.0]]))
    clean.update(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    rms.update(torch.tensor([[number, number, number]]))
    assert all(torch.equal(a, b) for a, b in zip(rms.buffers(), clean.buffers(), strict=True))
    assert rms.count == seen + 2


def test_bytes_are_scaled_and_normalized_in_one_go():
    rows = torch.randint(0, 256, (50, 4, 6, 5), dtype=torch.uint8)
    rms = RunningMeanStd((4, 6, 5))
    rms.update(rows.float() / 255)
    expected = normalized_by(rms, rows.float() / 255)
    untouched = rows.clone()
    torch.testing.assert_close(normalized_by(rms, rows, 255.0), expected)
    floats = rows.float()
    torch.testing.assert_close(normalized_by(rms, floats, 255.0), expected)
    assert torch.equal(rows, untouched)
    assert torch.equal(floats, untouched.float())


def test_normalized_images_do_not_depend_on_the_order_in_memory():
    rows = torch.randn(50, 4, 6, 5)
    rms = RunningMeanStd((4, 6, 5))
    rms.update(rows)
    channels_last = rows.contiguous(memory_format=torch.channels_last)
    untouched = channels_last.clone()
    normalized = normalized_by(rms, channels_last)
    torch.testing.assert_close(normalized, normalized_by(rms, rows))
    assert normalized.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(channels_last, untouched)


def test_statistics_of_images_do_not_depend_on_the_order_in_memory():
    rows = torch.randn(50, 4, 6, 5)
    channels_last = rows.contiguous(memory_format=torch.channels_last)
    for one, other in zip(statistics_of(rows), statistics_of(channels_last), strict=True):
        torch.testing.assert_close(one, other)
    array = np.empty(flat_length((4, 6, 5)), np.float32)
    write_flat(statistics_of(channels_last), array)
    torch.testing.assert_close(read_flat(array, (4, 6, 5)).mean, rows.mean(0))


def test_values_stay_what_they_were_when_the_moments_of_returns_change():
    network = make_policy(Config(mode="traj", norm_returns=True), SPEC)
    obs = torch.randn(100, 4)
    before = network(obs)[1]
    for scale, shift in ((7, 30), (0.01, -5), (1000, 0)):
        network.observe_returns(torch.randn(1000) * scale + shift)
        torch.testing.assert_close(network(obs)[1], before, rtol=1e-3, atol=1e-3)
    assert network.value_unit.item() > 100


def test_observations_are_scaled_before_the_layers_and_only_those():
    config = Config(mode="traj", norm_obs=True)
    network, plain = make_policy(config, SPEC), make_policy(Config(), SPEC)
    plain.load_state_dict(network.state_dict(), strict=False)
    rows = torch.randn(500, 4) * 20 + 3
    network.observe(rows)
    logits, values = network(rows)
    scaled = (rows - rows.mean(0)) / rows.std(0, correction=0)
    expected_logits, expected_values = plain(scaled.clamp(-OBS_LIMIT, OBS_LIMIT))
    torch.testing.assert_close(logits, expected_logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(values, expected_values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_moments_are_in_the_flat_vector_and_no_optimizer_moves_them(optimizer):
    config = Config(mode="traj", norm_obs=True, norm_returns=True, optimizer=optimizer)
    network = make_policy(config, SPEC)
    params = FlatParameters(network)
    replica = make_policy(config, SPEC)
    FlatParameters(replica, vector=params.vector)
    network.observe(torch.randn(100, 4) + 2)
    assert torch.equal(replica.obs_rms.mean, network.obs_rms.mean)
    rms = network.obs_rms.mean.clone()
    step = make_optimizer(config, params.vector)
    for _ in range(3):
        params.grad.zero_()
        sum(network(torch.randn(10, 4))[1]).backward()
        step.param_groups[0]["params"][0].grad = params.grad
        step.step()
    assert torch.equal(network.obs_rms.mean, rms)


def test_statistics_can_be_of_ones_own_beside_parameters_that_are_shared():
    config = Config(norm_obs=True, norm_rewards=True)
    network = make_policy(config, SPEC)
    network.observe(torch.randn(100, 4) + 2)
    params = FlatParameters(network)
    replica = make_policy(config, SPEC)
    own = FlatParameters(replica, vector=params.vector, own_statistics=True)
    assert own.num_statistics == params.num_statistics >= 9 + 3
    assert not torch.equal(replica.obs_rms.mean, network.obs_rms.mean)
    own.statistics.copy_(params.statistics)
    state = replica.state_dict()
    assert all(torch.equal(state[name], t) for name, t in network.state_dict().items())
    network.observe(torch.full((100, 4), 9.0))
    params.vector[: -params.num_statistics] += 1
    assert not torch.equal(replica.obs_rms.mean, network.obs_rms.mean)
    for one, other in zip(replica.parameters(), network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not FlatParameters(make_policy(Config(), SPEC)).num_statistics
