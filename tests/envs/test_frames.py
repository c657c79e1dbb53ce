"""Each frame once: the stacks are rebuilt exactly, through resets."""

import numpy as np
import pytest
import torch

from aa2c.config.config import Config
from aa2c.envs.frames import copy_stacks, empty_stacks, join_stacks
from aa2c.envs.spec import STEP_LEAVES
from aa2c.envs.vector import make_envs
from aa2c.learn.batch import join_records, take_rows
from aa2c.learn.rollout import Rollout, collect
from aa2c.learn.schema import POLICY_LEAVES, record_leaves
from aa2c.policy.network import make_policy


def rebuilt(obs, is_reset):
    """What first stacks and newest frames are joined to."""
    stacks = empty_stacks(obs.shape)
    stacks[:] = 99
    join_stacks(obs[0], obs[1:, :, -1], is_reset, stacks)
    return stacks


class Watched:
    """Environments, and the stacks that they gave, as they were given."""

    def __init__(self, envs):
        self.envs, self.num_envs, self.spec = envs, envs.num_envs, envs.spec
        self.seen = []

    def reset(self):
        return self._keep(self.envs.reset())

    def step(self, actions):
        step = self.envs.step(actions)
        self._keep(step.arrays["obs"])
        return step

    def _keep(self, obs):
        self.seen.append(obs.copy())
        return obs


@pytest.mark.long
@pytest.mark.parametrize("game", ["Breakout", "Pong"])
def test_real_stacks_are_rebuilt_exactly_through_real_resets(game):
    """In a rollout and from a trajectory's frames they are those that the environments gave."""
    config = Config(
        mode="traj", env=f"ALE/{game}-v5", num_envs=4, num_steps=33, frame_skip=20, noop_max=1
    )
    envs = make_envs(config, config.num_envs, 0)
    network = make_policy(config, envs.spec)
    generator = torch.Generator().manual_seed(0)
    resets = 0
    for in_records in (False, True):
        watched = Watched(envs)
        rollout = Rollout(watched, config, in_records=in_records)
        for _ in range(8):
            if in_records:
                leaves = record_leaves(envs.spec, config)
                arrays = {leaf.name: np.full(leaf.shape, 77, leaf.dtype) for leaf in leaves}
                rollout.write_into(arrays)
            collect(watched, network, rollout, generator)
            obs = join_records([arrays])["obs"] if in_records else rollout["obs"]
            assert np.array_equal(obs, np.stack(watched.seen))
            assert np.array_equal(rebuilt(obs, rollout["is_reset"]), obs)
            assert has_channels_last(obs)
            del watched.seen[:-1]
            resets += rollout["is_reset"].sum()
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
    assert np.array_equal(rebuilt(obs, is_reset), obs)


def test_a_copy_of_stacks_in_another_order_in_memory_is_the_same():
    plain = np.random.default_rng(0).integers(0, 255, (3, 4, 6, 5), np.uint8)
    stacks = empty_stacks(plain.shape)
    copy_stacks(plain, stacks)
    assert np.array_equal(stacks, plain)


def has_channels_last(stacks):
    """The order in which convolutions are fast, and a network makes no copy."""
    return np.moveaxis(stacks, -3, -1).flags.c_contiguous


def test_a_batch_has_channels_last_and_so_have_the_rows_taken_from_it():
    rng = np.random.default_rng(0)
    records = [
        {name: np.zeros((5, 2), np.bool_ if name == "is_reset" else np.float32)
         for name in (leaf.name for leaf in (*STEP_LEAVES, *POLICY_LEAVES))}
        | {"first_stack": rng.integers(0, 255, (2, 6, 5, 4), np.uint8),
           "planes": rng.integers(0, 255, (5, 2, 6, 5), np.uint8)}
        for _ in range(3)
    ]  # fmt: skip
    obs = join_records(records)["obs"]
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
