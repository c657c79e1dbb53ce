"""Tiny deterministic environments, for `--env custom_env:…`; importing this registers them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

FIRST_ACTION = 3
TERMINATES_AFTER = 5  # the second, fourth, … episode
TRUNCATED_AFTER = 7  # the first, third, …


class Counter(gym.Env[Any, Any]):
    """Observation: steps in this episode, the last action, the episode's number. Reward: action."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-1, 1e6, (3,), np.float32)
        self.action_space = gym.spaces.Discrete(4, start=FIRST_ACTION)
        self._episode = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._episode += 1
        self._steps = 0
        return self._observe(-1), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self._steps += 1
        terminated = self._episode % 2 == 0 and self._steps == TERMINATES_AFTER
        return self._observe(action), float(action), terminated, False, {}

    def _observe(self, action: int) -> Any:
        return np.array([self._steps, action, self._episode], np.float32)


class SameStepOnly(VectorEnv):
    """A vector entry point whose autoreset aa2c cannot use: it must not be stepped."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012 - Gymnasium's own way

    def __init__(self, num_envs: int, **_: Any) -> None:
        self.num_envs = num_envs

    def reset(self, **_: Any) -> Any:
        raise AssertionError("SAME_STEP environments must not be used")


class Broken(gym.Env[Any, Any]):
    """Its constructor fails, like that of an environment without its ROM or licence."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - Gymnasium's own way

    def __init__(self, render_mode: str | None = None) -> None:
        raise RuntimeError("no licence\nfound")


_HERE = __name__
gym.register("Counter-v0", f"{_HERE}:Counter", max_episode_steps=TRUNCATED_AFTER)
gym.register(
    "SameStep-v0",
    f"{_HERE}:Counter",
    max_episode_steps=TRUNCATED_AFTER,
    vector_entry_point=f"{_HERE}:SameStepOnly",
)
gym.register("Broken-v0", f"{_HERE}:Broken")
