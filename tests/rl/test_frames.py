"""Each frame once: the stacks are rebuilt exactly, through resets."""

import numpy as np
import pytest
import torch

from aa2c.config import Config
from aa2c.rl.envs import make_envs
from aa2c.rl.frames import join_stacks, split_stacks
from aa2c.rl.network import make_network
from aa2c.rl.rollout import Rollout, collect


def round_trip(obs, is_reset):
    first = np.empty_like(obs[0])
    planes = np.empty((len(obs) - 1, *obs.shape[1:2], *obs.shape[3:]), obs.dtype)
    split_stacks(obs, first, planes)
    rebuilt = np.full_like(obs, 99)
    join_stacks(first, planes, is_reset, rebuilt)
    return rebuilt


@pytest.mark.parametrize("game", ["Breakout", "Pong"])
def test_real_stacks_are_rebuilt_exactly_through_real_resets(game):
    config = Config(env=f"ALE/{game}-v5", num_envs=4, frame_skip=20, noop_max=1)
    envs = make_envs(config, config.num_envs, 0)
    network = make_network(config, envs.spec)
    generator = torch.Generator().manual_seed(0)
    rollout = Rollout(envs, 33)
    resets = 0
    for _ in range(8):
        collect(envs, network, rollout, generator)
        assert np.array_equal(round_trip(rollout.obs, rollout.is_reset), rollout.obs)
        resets += rollout.is_reset.sum()
    envs.close()
    assert envs.spec.is_stacked
    assert resets > 0


@pytest.mark.parametrize("seed", range(20))
def test_resets_at_every_distance_from_each_other_and_from_the_ends(seed):
    rng = np.random.default_rng(seed)
    steps, size = 12, 4
    is_reset = rng.random((steps, 3)) < 0.3
    frames = rng.integers(1, 255, (steps + 1, 3, 2, 2), np.uint8)
    obs = np.zeros((steps + 1, 3, size, 2, 2), np.uint8)
    obs[0] = rng.integers(1, 255, obs[0].shape)
    for t in range(steps):
        for b in range(3):
            if not is_reset[t, b]:
                obs[t + 1, b, :-1] = obs[t, b, 1:]
            obs[t + 1, b, -1] = frames[t + 1, b]
    assert np.array_equal(round_trip(obs, is_reset), obs)
