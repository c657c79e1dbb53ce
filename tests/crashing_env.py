"""An environment that crashes after some steps."""

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


gym.register("Crashing-v0", CrashingEnv)
