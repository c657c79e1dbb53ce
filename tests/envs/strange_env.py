"""Environments as other people write them, each with one oddity; importing this registers them."""

from __future__ import annotations

import itertools
import random
import sys
import time
from typing import Any

import gymnasium as gym
import numpy as np

made = itertools.count()


class Plain(gym.Env[Any, Any]):
    """Four numbers, two actions, six steps; reward: the action."""

    observation_space: Any = gym.spaces.Box(-1, 1, (4,), np.float32)
    action_space: Any = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.number = next(made)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self.t = 0
        return self.look(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self.look(), self.reward(action), self.t == 6, False, self.info()

    def look(self) -> Any:
        return np.full(4, self.t / 10, np.float32)

    def reward(self, action: Any) -> Any:
        return float(action)

    def info(self) -> Any:
        return {}


class Infos(Plain):
    """Infos that no vector can merge."""

    def info(self) -> Any:
        return [{"path": np.zeros(self.t)}, {"path": "none"}, {1: None}, None, 7, {}][self.t - 1]


class Rewards(Plain):
    """Rewards of every kind of number."""

    def reward(self, action: Any) -> Any:
        kinds = (int, np.float32, np.int64, np.array, lambda x: np.array([x]), lambda x: [[x]])
        return kinds[self.t - 1](action)


class NoReward(Plain):
    """A branch without a reward."""

    def reward(self, action: Any) -> Any:
        return None


class Dtypes(Plain):
    """Observations of the dtype that a test asks for, in one buffer, not contiguous."""

    def __init__(self, dtype: str = "float32", high: float = 1) -> None:
        super().__init__()
        self.observation_space = gym.spaces.Box(0, high, (4,), np.dtype(dtype).newbyteorder("="))
        self.buffer = np.zeros((4, 2), dtype)[:, 0]

    def look(self) -> Any:
        self.buffer[:] = self.t % 2
        return self.buffer


class Lists(Plain):
    """Observations as plain lists with a dimension too many."""

    def look(self) -> Any:
        return [[self.t / 10] * 4]


class WrongShape(Plain):
    """One number for a space of four, which NumPy would spread."""

    def look(self) -> Any:
        return np.ones(1, np.float32)


class Fractions(Plain):
    """A space of bytes, and floats below 1 for observations."""

    observation_space = gym.spaces.Box(0, 255, (4,), np.uint8)

    def look(self) -> Any:
        return np.full(4, 0.5, np.float32)


class FourValues(Plain):
    """As Gym was before 0.26."""

    def step(self, action: Any) -> Any:
        return self.look(), 0.0, False, {}


class OldReset(Plain):
    """As Gym was before 0.26."""

    def reset(self, **_: Any) -> Any:
        self.t = 0
        return self.look()


class Raises(Plain):
    """It fails at its third step, deep in the standard library."""

    def step(self, action: Any) -> Any:
        if self.t == 2:
            random.choice([])
        return super().step(action)


class Exits(Plain):
    """Its only explanation is in its exit."""

    def step(self, action: Any) -> Any:
        sys.exit("the licence has\nexpired")


class ExitsAtOnce(Plain):
    """It ends the program where others raise."""

    def __init__(self) -> None:
        sys.exit("no display")


class BadClose(Plain):
    """One close() raises, one exits, one never returns, the others count."""

    closed: list[int] = []  # noqa: RUF012 - the tests look

    def __init__(self) -> None:
        self.place = len(self.closed)
        self.closed.append(-1)

    def close(self) -> None:
        if self.place == 0:
            raise AttributeError("viewer")
        if self.place == 1:
            sys.exit(1)
        if self.place == 2:
            time.sleep(3600)
        self.closed[self.place] = self.place


class NoSpeed(Plain):
    """It can be drawn, at no speed that it would tell."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": None}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> Any:
        return np.zeros((32, 32, 3), np.uint8)


class GlobalChance(Plain):
    """It draws from the generators of everybody."""

    def look(self) -> Any:
        return np.array([random.random(), np.random.rand(), 0, 0], np.float32)


class Text(Plain):
    """It tells in words."""

    observation_space = gym.spaces.Text(3)


_made_by_turns = itertools.count(3)


class Different(Plain):
    """No two have the same number of actions."""

    def __init__(self) -> None:
        self.action_space = gym.spaces.Discrete(next(_made_by_turns))


for _kind in [Plain, *Plain.__subclasses__()]:
    gym.register(f"{_kind.__name__}-v0", f"{__name__}:{_kind.__name__}")
for _dtype in ("<f8", ">f4", ">f8", "f2", "i8", ">i4", "i2", "u2", "u4", "bool", "u1", "i1"):
    _name = np.dtype(_dtype).name + ("Swapped" if _dtype[0] == ">" else "")
    gym.register(f"Dtype{_name}-v0", f"{__name__}:Dtypes", kwargs={"dtype": _dtype, "high": 1})
