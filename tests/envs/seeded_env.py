"""An environment whose episodes follow from the seed they start with; importing registers it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

SHORT, LONG = 2, 40
NUM_ACTIONS = 4


def length_of(seed: int) -> float:
    """Every fifth episode never ends; the others are by turns short and long."""
    if seed % 5 == 4:
        return float("inf")
    return LONG if seed % 2 else SHORT


class Seeded(gym.Env[Any, Any]):
    """Reward: 1000 x the seed at the first step, then the action. No pictures."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-1, 1, (2,), np.float64)
        self.action_space = gym.spaces.Discrete(NUM_ACTIONS)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self._seed = seed
        self._steps = 0
        return np.zeros(2), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        reward = 1000.0 * self._seed if self._steps == 1 else float(action)
        return np.zeros(2), reward, self._steps >= length_of(self._seed), False, {}


class Drawn(Seeded):
    """Draws itself, but not as a picture in colour."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}  # noqa: RUF012 - Gymnasium's own way

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> Any:
        return np.zeros((32, 32), np.uint8)


gym.register("Seeded-v0", f"{__name__}:Seeded")
gym.register("Drawn-v0", f"{__name__}:Drawn")
