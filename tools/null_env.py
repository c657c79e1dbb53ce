"""An environment that does nothing, to measure the overhead of everything else."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

EPISODE_STEPS = 1000


class NullEnv(gym.Env[Any, Any]):
    """Observations are four zeros, actions have no effect, and there is no reward."""

    observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self._obs = np.zeros(4, np.float32)
        self._left = EPISODE_STEPS

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        self._left = EPISODE_STEPS
        return self._obs, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Count down to the end of the episode."""
        self._left -= 1
        return self._obs, 0.0, False, self._left == 0, {}


gym.register("Null-v0", NullEnv)
