"""Environments of Gymnasium's interface around what is none of its own, as PettingZoo's wrappers are."""

from __future__ import annotations

from typing import Any

import gymnasium as gym


class Foreign(gym.Env[Any, Any]):
    """Innermost for Gymnasium, whose `make` wants to know the id of what is there."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.observation_space = env.observation_space
        self.action_space = env.action_space
        self.metadata = env.metadata
        self.render_mode = env.render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        return self.env.step(action)

    def render(self) -> Any:
        return self.env.render()

    def close(self) -> None:
        self.env.close()


def as_gymnasium_s(env: Any) -> Any:
    """The same, so that `gymnasium.make` takes it; it says itself what is wrong with anything else."""
    if isinstance(env, gym.Env) and not isinstance(env.unwrapped, gym.Env):
        return Foreign(env)
    return env
