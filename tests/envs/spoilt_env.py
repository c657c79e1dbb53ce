"""An environment whose rewards rise with the episodes, and vanish once a file is there."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium import spaces

LENGTH, RISING, HIGHEST = 5, 60, 50.0  # steps and episodes; the return of the later ones


class Spoilt(gym.Env):
    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, file):
        self._file = Path(file)
        self._episodes = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        self._episodes += 1
        share = min(1.0, self._episodes / RISING)
        self._reward = 0.0 if self._file.exists() else share * HIGHEST / LENGTH
        return self.observation_space.sample(), {}

    def step(self, action):
        self._steps += 1
        is_over = self._steps == LENGTH
        return self.observation_space.sample(), self._reward, is_over, False, {}


gym.register("Spoilt-v0", entry_point=Spoilt)
