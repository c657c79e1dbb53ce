"""Environments with keyword arguments, wrappers and vectors of them, for --env asked_env:…"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

LENGTHS = (3, 2, 4)  # of the first, second, third episode, and so on; the first is truncated


class Scripted(gym.Env[Any, Any]):
    """Observation: steps in this episode, the episode's number. Reward: the number of the step.

    The first, fourth, … episode is truncated, the others are terminated.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - Gymnasium's own way
    action_space = gym.spaces.Discrete(2)

    def __init__(
        self, kind: str = "box", lengths: Any = LENGTHS, scale: float = 1.0,
        render_mode: str | None = None,
    ) -> None:  # fmt: skip
        numbers = gym.spaces.Box(0, 1e6, (2,), np.float32)
        self.observation_space: gym.Space[Any] = {
            "box": numbers,
            "dict": gym.spaces.Dict({"numbers": numbers, "odd": gym.spaces.Discrete(2)}),
            "tuple": gym.spaces.Tuple((numbers, gym.spaces.Discrete(2))),
        }[kind]
        self._kind, self._lengths, self._scale = kind, lengths, scale
        self.render_mode = render_mode
        self._episode = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._episode += 1
        self._steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        is_over = self._steps == self._lengths[(self._episode - 1) % len(self._lengths)]
        is_cut = is_over and self._episode % len(self._lengths) == 1
        reward = self._scale * self._steps
        return self._observe(), reward, is_over and not is_cut, is_cut, {}

    def _observe(self) -> Any:
        numbers = np.array([self._steps, self._episode], np.float32)
        odd = self._steps % 2
        return {"box": numbers, "dict": {"numbers": numbers, "odd": odd}, "tuple": (numbers, odd)}[
            self._kind
        ]


class Failing(Scripted):
    """It ends itself, its process, or neither in its third step."""

    def __init__(self, how: str = "raise") -> None:
        super().__init__()
        self._how = how

    def step(self, action: Any) -> Any:
        if self._steps == 2 and self._how == "exit":
            os._exit(3)
        if self._steps == 2:
            raise ValueError("a third step")
        return super().step(action)


class Plus(gym.RewardWrapper[Any, Any]):
    """Rewards are 1 more."""

    def reward(self, reward: Any) -> float:
        return float(reward) + 1


def twice(env: Any) -> Any:
    """Rewards are twice as large."""
    return gym.wrappers.TransformReward(env, lambda reward: 2 * float(reward))


def nothing(env: Any) -> None:
    """Forget to return what was wrapped."""


def make_vector(num_envs: int, mode: str = "SAME_STEP", **options: Any) -> VectorEnv[Any, Any, Any]:
    """So many of the first environment above."""
    make = [functools.partial(Scripted, **options)] * num_envs
    return SyncVectorEnv(make, autoreset_mode=AutoresetMode[mode])


def make_seeded(num_envs: int, seed: int) -> VectorEnv[Any, Any, Any]:
    """So many whose episodes are as long as the seed says."""
    return make_vector(num_envs, lengths=[seed])


class Odd(VectorEnv[Any, Any, Any]):
    """A vector environment that leaves something out, or tells its last observations in an old way."""

    single_observation_space = gym.spaces.Box(0, 1, (2,), np.float32)
    single_action_space = gym.spaces.Discrete(2)

    def __init__(self, num_envs: int, fault: str = "") -> None:
        self.num_envs = num_envs + (fault == "more")
        self.metadata = {} if fault == "untold" else {"autoreset_mode": "SameStep"}
        self._fault = fault
        if fault == "bytes":
            self.single_observation_space = gym.spaces.Box(0, 255, (2,), np.uint8)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        if self._fault == "bytes":
            return np.full((self.num_envs, 2), 0.5), {}
        return np.zeros((self.num_envs, 3 if self._fault == "shape" else 2), np.float32), {}

    def step(self, actions: Any) -> Any:
        if self._fault == "raises":
            raise ValueError("not today")
        infos = {"final_observation": [np.full(2, 0.5)] * self.num_envs}
        none = np.zeros(self.num_envs, bool)
        rewards = np.ones(self.num_envs + (self._fault == "rewards"))
        return self.reset()[0], rewards, none, ~none, {} if self._fault == "unseen" else infos


def make_number(num_envs: int) -> int:
    """Make no vector at all."""
    return num_envs


gym.register("Scripted-v0", f"{__name__}:Scripted")
gym.register("Failing-v0", f"{__name__}:Failing")


if __name__ == "__main__":  # be a worker that is killed: its environments' processes, one a line
    from aa2c.config.config import Config
    from aa2c.envs.find import no_tick
    from aa2c.envs.processes import AsyncVector

    vector = AsyncVector(Config(env="tests.envs.asked_env:Scripted-v0"), 2, no_tick)
    print(*(process._process.pid for process in vector._processes), flush=True)
    sys.stdin.read()
