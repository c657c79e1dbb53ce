"""Actions at the border: what the policy takes, and what an environment's action space wants.

A policy's actions are rows of one dtype (see `ActionSpec`); an environment's are members of its space.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from aa2c.envs.spec import ActionSpec, Continuous, Discrete, Joint, MultiBinary
from aa2c.errors import StartError

Actions = NDArray[Any]
ToSpace = Callable[[Actions], Any]  # of one row: a member of the space


def random_actions(spec: ActionSpec, rows: int, rng: np.random.Generator) -> NDArray[Any]:
    """Actions [rows, …] of a policy that knows nothing."""
    match spec:
        case Discrete(n):
            return rng.integers(0, n, rows)
        case MultiBinary(n):
            return rng.integers(0, 2, (rows, n))
        case Continuous(n):
            return rng.standard_normal((rows, n), np.float32)
        case Joint(parts):
            columns = [random_actions(part, rows, rng).reshape(rows, -1) for part in parts]
            return np.concatenate(columns, 1).astype(spec.leaf.dtype)


def action_spec(space: gym.Space[Any]) -> ActionSpec:
    """What a policy must know of an action space. Raises `StartError` for one that it cannot act in."""
    match space:
        case spaces.Discrete():
            return Discrete(int(space.n))
        case spaces.MultiBinary():
            return MultiBinary(math.prod(space.shape))
        case spaces.MultiDiscrete():
            return Joint(tuple(Discrete(int(n)) for n in space.nvec.flat))
        case spaces.Box() if np.issubdtype(space.dtype, np.floating):
            return Continuous(math.prod(space.shape))
        case spaces.Tuple() | spaces.Dict() if len(space.spaces):
            return Joint(tuple(map(action_spec, _parts(space))))
    raise StartError(
        f"--env has actions {space}, and aa2c acts in Discrete, MultiDiscrete, MultiBinary, Box of "
        "floats, and Tuple or Dict of these: wrap it with gymnasium.wrappers.TransformAction."
    )


def _parts(space: gym.Space[Any]) -> list[gym.Space[Any]]:
    if isinstance(space, spaces.Dict):
        return list(space.spaces.values())
    assert isinstance(space, spaces.Tuple)
    return list(space.spaces)


def to_space(space: gym.Space[Any], *, is_squashed: bool = False) -> ToSpace:
    """What makes an action of `space` of a policy's: one row of the leaf of `action_spec`.

    Gaussians' are clipped to the bounds, or, if they are squashed, tanh spans them.
    """
    match space:
        case spaces.Discrete():
            first = int(space.start)
            return lambda row: first + int(row)
        case spaces.MultiBinary():
            return lambda row: row.astype(space.dtype).reshape(space.shape)
        case spaces.MultiDiscrete():
            start = np.asarray(space.start)
            return lambda row: (row.reshape(space.shape) + start).astype(space.dtype)
        case spaces.Box():
            return _within(space, is_squashed=is_squashed)
    assert isinstance(space, spaces.Tuple | spaces.Dict)
    parts = _parts(space)
    makers = [to_space(part, is_squashed=is_squashed) for part in parts]
    shapes = [action_spec(part).leaf.shape for part in parts]
    borders = np.cumsum([math.prod(shape) for shape in shapes])[:-1]

    def make(row: Actions) -> Any:
        columns = np.split(row, borders)
        made = [
            maker(column.reshape(shape))
            for maker, column, shape in zip(makers, columns, shapes, strict=True)
        ]
        return dict(zip(space.spaces, made, strict=True)) if _is_dict(space) else tuple(made)

    return make


def _is_dict(space: gym.Space[Any]) -> bool:
    return isinstance(space, spaces.Dict)


def _within(space: spaces.Box, *, is_squashed: bool) -> ToSpace:
    low, high = space.low, space.high
    if is_squashed and not space.is_bounded():
        raise StartError(f"--action-bounds tanh needs bounds, and --env has actions {space}.")

    def clipped(row: Actions) -> Any:
        return np.clip(row.reshape(space.shape), low, high).astype(space.dtype)

    def squashed(row: Actions) -> Any:
        share = (np.tanh(row.reshape(space.shape).astype(np.float64)) + 1) / 2
        return np.clip(low + share * (high - low), low, high).astype(space.dtype)

    return squashed if is_squashed else clipped


def check_actions(spec: ActionSpec, actions: Actions) -> None:
    """Raise `ValueError` for actions [rows, …] that a policy of `spec` does not take."""
    leaf = spec.leaf
    if actions.shape[1:] != leaf.shape:
        raise ValueError(f"actions must be rows of {leaf.shape}, got {actions.shape}")
    match spec:
        case Discrete(n):
            if actions.astype(np.uint64).max() >= n:  # those below 0 are very large then
                raise ValueError(f"actions must be in 0 … {n - 1}, got {actions}")
        case MultiBinary():
            if not np.isin(actions, (0, 1)).all():
                raise ValueError(f"actions must be 0 or 1, got {actions}")
        case Continuous():
            if not np.isfinite(actions).all():
                raise ValueError(f"actions must be finite, got {actions}")
        case Joint(parts):
            columns = np.split(actions, np.cumsum(spec.widths)[:-1], axis=1)
            for part, column in zip(parts, columns, strict=True):
                check_actions(part, column.reshape(len(actions), *part.leaf.shape))
