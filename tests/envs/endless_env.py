"""Environments whose episodes never end, and whose rewards are not finite at last."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class Endless(gym.Env[Any, Any]):
    """An episode goes on as long as it is stepped; every reward is 1."""

    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self._steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        return np.zeros(3, np.float32), self.reward(), False, False, {}

    def reward(self) -> float:
        return 1.0


class NotFinite(Endless):
    """From the third step on rewards are not numbers."""

    def reward(self) -> float:
        return 1.0 if self._steps < 3 else float("nan")
