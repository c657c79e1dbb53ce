"""Each frame once: the stacks are rebuilt exactly, through resets."""

import numpy as np
import pytest
import torch

from aa2c.config import Config
from aa2c.modes.traj import take_rows
from aa2c.rl.batch import TRANSITION_ARRAYS, join_records
from aa2c.rl.envs import make_envs
from aa2c.rl.frames import empty_stacks, join_stacks, split_stacks
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
        assert has_channels_last(rollout.obs)
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


def has_channels_last(stacks):
    """The order in which convolutions are fast, and a network makes no copy."""
    return np.moveaxis(stacks, -3, -1).flags.c_contiguous


def test_a_batch_has_channels_last_and_so_have_the_rows_taken_from_it():
    rng = np.random.default_rng(0)
    records = [
        {name: np.zeros((5, 2), np.bool_ if name == "is_reset" else np.float32)
         for name in TRANSITION_ARRAYS}
        | {"first_stack": rng.integers(0, 255, (2, 4, 6, 5), np.uint8),
           "planes": rng.integers(0, 255, (5, 2, 6, 5), np.uint8)}
        for _ in range(3)
    ]  # fmt: skip
    obs = join_records(records).obs
    assert obs.shape == (6, 6, 4, 6, 5)
    assert has_channels_last(obs)
    flat = torch.from_numpy(obs).flatten(0, 1)
    assert flat.data_ptr() == obs.ctypes.data
    rows = torch.randperm(36)[:11]
    taken = take_rows(flat, rows)
    assert torch.equal(taken, flat[rows])
    assert taken.is_contiguous(memory_format=torch.channels_last)


def test_rows_of_other_observations_are_those_asked_for():
    rows = torch.tensor([3, 0, 3])
    for obs in (torch.rand(5, 4), torch.rand(5, 3, 7, 8)):
        assert torch.equal(take_rows(obs, rows), obs[rows])


def test_empty_stacks_have_the_shape_asked_for_and_channels_last():
    stacks = empty_stacks((3, 2, 4, 8, 7))
    assert stacks.shape == (3, 2, 4, 8, 7)
    assert stacks.dtype == np.uint8
    assert has_channels_last(stacks)
