"""What records tell: rewards scaled as the wrappers would scale them, and what counts in statistics."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import pytest
import torch

from aa2c.config.config import Config
from aa2c.envs.vector import make_envs
from aa2c.learn.rollout import Rollout, collect
from aa2c.learn.schema import OBS_STATISTICS, RETURN_STATISTICS, statistics_leaves
from aa2c.learn.statistics import ReceivedStatistics, SentStatistics
from aa2c.policy.network import make_policy
from aa2c.policy.normalization import REWARD_LIMIT

COUNTER = "tests.envs.custom_env:Counter-v0"


class World:
    """A worker's half and an updater's, whose policies are one and the same."""

    def __init__(self, **options):
        self.config = Config(**{"norm_obs": True, "norm_rewards": True, **options})
        self.envs = make_envs(self.config, self.config.num_envs, 3)
        self.policy = make_policy(self.config, self.envs.spec)
        self.rollout = Rollout(self.envs, self.config)
        self.generator = torch.Generator().manual_seed(0)
        self.sent = SentStatistics(self.config, self.policy, self.envs.num_envs, of_obs=True)
        self.leaves = statistics_leaves(self.envs.spec, self.config, of_obs=True)
        self.received = ReceivedStatistics(self.leaves, self.policy)

    def collect(self):
        collect(self.envs, self.policy, self.rollout, self.generator)
        self.sent.add(self.rollout)

    def scaled(self):
        """The rollout's rewards, as they are learned from."""
        return self.policy.scale_rewards(self.rollout["rewards"], self.sent.of_returns)

    def send(self):
        arrays = {leaf.name: np.empty(leaf.shape, leaf.dtype) for leaf in self.leaves}
        self.sent.write(arrays)
        assert self.received.accepts(arrays)
        self.received.merge([arrays])
        self.sent.begin()
        return arrays

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.envs.close()


def test_rewards_of_one_environment_are_scaled_as_gymnasiums_wrapper_does():
    """Until its episode's end: there the wrapper forgets too early, or not at all if truncated."""
    options = {"env": "Pendulum-v1", "num_envs": 1, "num_steps": 1, "gamma": 0.9}
    with World(**options) as world:
        wrapped = gymnasium.wrappers.NormalizeReward(gymnasium.make("Pendulum-v1"), gamma=0.9)
        wrapped.reset(seed=3)
        for t in range(199):
            world.collect()
            _, expected, *_ = wrapped.step(world.rollout["actions"][0, 0].clip(-2, 2))
            if t > 10:  # Gymnasium begins with 0.0001 rows of variance 1
                assert world.scaled().item() == pytest.approx(expected, rel=1e-3)
            world.send()
        wrapped.close()


def vec_normalized(steps, gamma):
    """SB3's VecNormalize on (rewards [B], dones [B]), written down again."""
    returns, seen, scaled = 0.0, [], []
    for rewards, dones in steps:
        returns = returns * gamma + rewards
        seen += list(returns)
        std = math.sqrt(np.var(seen) + 1e-8)
        scaled.append(np.clip(rewards / std, -10, 10))
        returns = np.where(dones, 0, returns)
    return scaled


def test_rewards_are_scaled_as_sb3s_vecnormalize_does_through_episodes_ends():
    with World(env=COUNTER, num_envs=1, num_steps=1) as world:
        steps, ours = [], []
        for _ in range(60):
            world.collect()
            if not world.rollout["is_reset"].any():
                ours.append(world.scaled()[0])
                dones = world.rollout["terminated"][0] | world.rollout["truncated"][0]
                steps.append((world.rollout["rewards"][0].copy(), dones))
            world.send()
        assert sum(dones.any() for _, dones in steps) > 5
        expected = vec_normalized(steps, world.config.gamma)
        np.testing.assert_allclose(ours, expected, rtol=1e-4)
        assert max(np.abs(ours).ravel()) == REWARD_LIMIT, "the first return has no std yet"


def test_raw_rewards_stay_raw_and_returns_are_of_clipped_ones():
    options = {"env": COUNTER, "num_envs": 2, "num_steps": 20, "gamma": 0.5}
    with World(**options, reward_clip=3.5) as world:
        world.collect()
        rewards = world.rollout["rewards"].copy()
        world.scaled()
        np.testing.assert_array_equal(world.rollout["rewards"], rewards)
        assert rewards.max() > 3.5
        mean = world.send()[RETURN_STATISTICS][1]
        assert 3 < mean <= 7, "a return of rewards that are at most 3.5, discounted by half"


def test_a_record_covers_each_observation_once_and_each_step_that_was_made():
    with World(env=COUNTER, num_envs=3, num_steps=8) as world:
        obs, made = [], 0
        for _ in range(5):
            for _ in range(3):
                world.collect()
                obs.append(world.rollout["obs"][:-1].reshape(-1, 3).copy())
                made += world.rollout.env_steps
            world.send()
        seen = np.concatenate(obs)
        assert world.policy.obs_rms.count == len(seen) == 5 * 3 * 8 * 3
        assert world.policy.reward_rms.count == made < len(seen)
        np.testing.assert_allclose(world.policy.obs_rms.mean, seen.mean(0), rtol=1e-4)
        np.testing.assert_allclose(world.policy.obs_rms.variance, seen.var(0), rtol=1e-3)


def test_of_images_some_time_steps_count_with_all_environments():
    with World(env="ALE/Pong-v5", num_envs=4, num_steps=20, network="a3c") as world:
        world.collect()
        world.send()
        rows = np.asarray(world.rollout["obs"][:-1][::3]).reshape(-1, 4, 84, 84) / 255
        assert world.policy.obs_rms.count == len(rows) == 7 * 4
        np.testing.assert_allclose(world.policy.obs_rms.mean, rows.mean(0), atol=1e-5)
        np.testing.assert_allclose(world.policy.obs_rms.variance, rows.var(0), atol=1e-5)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 3e38])
def test_a_reward_that_overflows_spoils_no_statistics_and_is_forgotten(number):
    with World(env=COUNTER, num_envs=2, num_steps=4) as world:
        world.collect()
        world.rollout["rewards"][1, 0] = number
        world.sent.begin()
        world.sent.returns[:] = 0
        world.sent.add(world.rollout)
        arrays = world.send()
        assert np.isfinite(arrays[RETURN_STATISTICS]).all()
        assert arrays[RETURN_STATISTICS][0] < 8
        assert np.abs(world.sent.returns).max() < 100


def test_running_statistics_are_changed_by_no_worker():
    with World(env=COUNTER, num_envs=2, num_steps=4) as world:
        before = [buffer.clone() for buffer in world.policy.buffers()]
        for _ in range(3):
            world.collect()
            world.scaled()
        pairs = zip(world.policy.buffers(), before, strict=True)
        assert all(torch.equal(now, then) for now, then in pairs)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda array: array[:-1],
        lambda array: array.astype(np.float64),
        lambda array: np.full_like(array, np.nan),
        lambda array: -np.abs(array) - 1,
    ],
)
@pytest.mark.parametrize("name", [OBS_STATISTICS, RETURN_STATISTICS])
def test_a_record_whose_statistics_are_none_is_refused(name, wrong):
    with World(env=COUNTER, num_envs=2, num_steps=4) as world:
        world.collect()
        arrays = world.send()
        assert world.received.accepts(arrays)
        assert not world.received.accepts(arrays | {name: wrong(arrays[name])})
        assert not world.received.accepts({k: v for k, v in arrays.items() if k != name})


@pytest.mark.parametrize("options", [{}, {"norm_obs": True}, {"norm_rewards": True}])
def test_a_record_has_leaves_for_what_is_normalized_and_else_none(options):
    config = Config(env=COUNTER, num_envs=1, **options)
    envs = make_envs(config, 1, 0)
    names = {leaf.name for leaf in statistics_leaves(envs.spec, config, of_obs=True)}
    envs.close()
    pairs = {"norm_obs": OBS_STATISTICS, "norm_rewards": RETURN_STATISTICS}
    assert names == {pairs[name] for name in options}
