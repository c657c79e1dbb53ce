from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from aa2c.config.config import Config
from aa2c.envs.observations import OneHot
from aa2c.envs.spec import Discrete, EnvSpec
from aa2c.envs.vector import make_envs
from aa2c.learn.rollout import Rollout, collect
from aa2c.policy.distributions import Categorical
from aa2c.policy.network import make_policy
from tests.envs.custom_env import FIRST_ACTION

STEPS_SO_FAR, LAST_ACTION, EPISODE = range(3)
CONFIG = Config(env="tests.envs.custom_env:Counter-v0", num_envs=3, num_steps=6)


@pytest.fixture
def world():
    envs = make_envs(CONFIG, 3, 0)
    torch.manual_seed(0)
    network = make_policy(CONFIG, envs.spec)
    yield envs, network, Rollout(envs, CONFIG), torch.Generator().manual_seed(0)
    envs.close()


def test_a_rollout_goes_on_from_the_last_row_of_the_one_before(world):
    envs, network, rollout, generator = world
    last = rollout.now.copy()
    assert last[:, STEPS_SO_FAR].tolist() == [0, 0, 0]
    for _ in range(5):
        collect(envs, network, rollout, generator)
        np.testing.assert_array_equal(rollout["obs"][0], last)
        last = rollout["obs"][-1].copy()


def test_row_t_of_obs_is_what_action_t_was_chosen_from_and_row_t_plus_1_what_it_led_to(world):
    envs, network, rollout, generator = world
    replayed = torch.Generator().manual_seed(0)
    for _ in range(5):
        collect(envs, network, rollout, generator)
        for t in range(rollout.num_steps):
            now, after, is_reset = rollout["obs"][t], rollout["obs"][t + 1], rollout["is_reset"][t]
            with torch.inference_mode():
                logits, _ = network(torch.from_numpy(now))
            actions = Categorical(logits).sample(replayed).numpy()
            np.testing.assert_array_equal(actions, rollout["actions"][t])
            raw = actions + FIRST_ACTION
            np.testing.assert_array_equal(
                after,
                np.stack(
                    [
                        np.where(is_reset, 0, now[:, STEPS_SO_FAR] + 1),
                        np.where(is_reset, -1, raw),
                        now[:, EPISODE] + is_reset,
                    ],
                    axis=1,
                ),
            )
            np.testing.assert_array_equal(rollout["rewards"][t], np.where(is_reset, 0, raw))


def test_each_episode_is_reported_once_with_its_own_return_and_length(world):
    envs, network, rollout, generator = world
    reported, expected = [], []
    returns, lengths = np.zeros(3), np.zeros(3, int)
    for _ in range(10):
        reported += collect(envs, network, rollout, generator)
        for t in range(rollout.num_steps):
            for b in np.flatnonzero(rollout["is_reset"][t]):
                expected.append((returns[b], lengths[b]))
                returns[b] = lengths[b] = 0
            returns += rollout["rewards"][t]
            lengths += ~rollout["is_reset"][t]
    assert [tuple(episode) for episode in reported] == expected
    assert {length for _, length in expected} == {5, 7}


def test_env_steps_are_steps_of_the_agent_and_no_rows_that_only_reset(world):
    envs, network, rollout, generator = world
    for _ in range(4):
        collect(envs, network, rollout, generator)
        assert rollout.env_steps == 18 - rollout["is_reset"].sum()
    assert rollout["is_reset"].any()


@pytest.mark.parametrize(
    ("shape", "dtype", "shown"),
    [
        ((4,), "float32", None),
        ((3, 40, 50), "uint8", (3, 40, 50, 3)),
        ((40, 50, 3), "uint8", (3, 40, 50, 3)),
        ((40, 50, 1), "uint8", (3, 40, 50)),
        ((1, 40, 50), "uint8", (3, 40, 50)),
        ((40, 50), "uint8", (3, 40, 50)),
        ((5, 6, 7), "uint8", None),
        ((1000, 1000), "uint8", None),
    ],
    ids=str,
)
def test_what_an_environment_shows_is_an_image_or_a_vector(shape, dtype, shown):
    spec = EnvSpec(shape, dtype, Discrete(2))
    first = np.zeros((2, *shape), dtype)
    envs = SimpleNamespace(num_envs=2, spec=spec, reset=lambda: first)
    rollout = Rollout(envs, Config(num_steps=2, num_envs=2))
    rng = np.random.default_rng(0)
    rollout["obs"][:] = rng.integers(0, 255, rollout["obs"].shape)
    frames = rollout.newest_frames()
    if shown is None:
        assert len(frames["values"]) == 3
        assert {len(row) for row in frames["values"]} == {min(64, math.prod(shape))}
        return
    assert frames["shape"] == shown
    pixels = np.frombuffer(frames["data"], np.uint8).reshape(shown)
    wanted = rollout["obs"][:, 0]
    if shape[0] in (1, 3):
        wanted = wanted.transpose(0, 2, 3, 1)
    assert np.array_equal(pixels, wanted.reshape(shown))


def test_of_stacked_frames_the_newest_is_shown():
    spec = EnvSpec((4, 84, 84), "uint8", Discrete(2), is_stacked=True)
    first = np.zeros((2, 4, 84, 84), np.uint8)
    envs = SimpleNamespace(num_envs=2, spec=spec, reset=lambda: first)
    rollout = Rollout(envs, Config(num_steps=20, num_envs=2))
    rollout["obs"][:] = np.random.default_rng(0).integers(0, 255, rollout["obs"].shape)
    frames = rollout.newest_frames()
    assert frames["shape"] == (16, 84, 84)
    pixels = np.frombuffer(frames["data"], np.uint8).reshape(16, 84, 84)
    assert np.array_equal(pixels, rollout["obs"][-16:, 0, -1])


def test_of_an_observation_that_is_no_box_the_newest_is_shown_as_the_environment_gave_it():
    spec = EnvSpec((4,), "float32", Discrete(2), obs=OneHot((4,), (10,)))
    first = np.eye(4, dtype=np.float32)[[3, 0]]
    envs = SimpleNamespace(num_envs=2, spec=spec, reset=lambda: first)
    rollout = Rollout(envs, Config(num_steps=2, num_envs=2))
    rollout["obs"][:] = first
    assert rollout.newest_frames() == {"seen": 13}
