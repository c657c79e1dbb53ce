"""Environments for hosts."""

from __future__ import annotations

import os

import gymnasium as gym
import numpy as np

SIZE = 50_000


class LargeEnv(gym.Env):
    """Its observations are large and cannot be compressed."""

    observation_space = gym.spaces.Box(-1, 1, (SIZE,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._noise = self.np_random.random(SIZE, np.float32)
        return self._noise, {}

    def step(self, action):
        return self._noise, 1.0, False, False, {}


def large_env():
    return LargeEnv()


def env_without_ray():
    """Which is not made where Ray's token can be read."""
    assert not [name for name in os.environ if name.startswith("RAY_")]
    return gym.make("CartPole-v1")
