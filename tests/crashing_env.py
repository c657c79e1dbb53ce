"""Environments that misbehave."""

import time

import gymnasium as gym
import numpy as np


class CrashingEnv(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self):
        self._left = 100

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self._left -= 1
        if self._left == 0:
            raise RuntimeError("as planned")
        return np.zeros(2, np.float32), 1.0, False, False, {}


class BrokenEnv(CrashingEnv):
    def __init__(self):
        self._left = 1


class SlowEnv(CrashingEnv):
    def __init__(self):
        time.sleep(300)


class InfiniteRewardEnv(CrashingEnv):
    def step(self, action):
        ended = bool(self.np_random.random() < 0.1)
        return np.zeros(2, np.float32), float("inf"), ended, False, {}


class NaNObservationEnv(CrashingEnv):
    def step(self, action):
        return np.full(2, np.nan, np.float32), 1.0, False, False, {}


gym.register("Crashing-v0", CrashingEnv)
gym.register("Broken-v0", BrokenEnv)
gym.register("Slow-v0", SlowEnv)
gym.register("InfiniteReward-v0", InfiniteRewardEnv)
gym.register("NaNObservation-v0", NaNObservationEnv)


class SpoiltRewardEnv(CrashingEnv):
    """After three seconds, 500 steps of the process have infinite rewards."""

    first_step_at = None
    spoilt_steps_left = 500

    def step(self, action):
        cls, now = SpoiltRewardEnv, time.monotonic()
        cls.first_step_at = cls.first_step_at or now
        is_spoilt = now - cls.first_step_at > 3.0 and cls.spoilt_steps_left > 0
        cls.spoilt_steps_left -= is_spoilt
        ended = bool(self.np_random.random() < 0.1)
        return np.zeros(2, np.float32), float("inf") if is_spoilt else 1.0, ended, False, {}


gym.register("SpoiltReward-v0", SpoiltRewardEnv)
