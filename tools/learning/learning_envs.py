"""Environments of the tasks of bench_learning.py."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class WithoutVelocity(gym.ObservationWrapper[Any, Any, Any]):
    """CartPole that shows position and angle only: both velocities have to be remembered."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        low, high = env.observation_space.low[::2], env.observation_space.high[::2]
        self.observation_space = gym.spaces.Box(low, high, dtype=np.float32)

    def observation(self, observation: Any) -> Any:
        return observation[::2]
