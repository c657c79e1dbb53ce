"""An environment that leaves the cores to the browser: software draws a page there as slowly as a run lets it."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym

STEP_S = 0.002


class Calm(gym.Wrapper[Any, Any, Any, Any]):
    """Sleeps before each step."""

    def step(self, action: Any) -> Any:
        time.sleep(STEP_S)
        return super().step(action)
