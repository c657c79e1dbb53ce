"""Actions at the border: what the policy takes, and what an environment's action space wants.

A policy's actions are rows of one dtype (see `ActionSpec`); an environment's are members of its space.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from aa2c.envs.spec import ActionSpec, Continuous, Discrete, Joint, MultiBinary
from aa2c.errors import StartError

Actions = NDArray[Any]
FLOATS = ("float16", "float32", "float64")  # safely cast to those of any byte order, or longer
MOST_INTEGERS = 1024  # that a number of a Box may be one of
INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))


def action_spec(space: gym.Space[Any], *, is_squashed: bool = False) -> ActionSpec:
    """What a policy must know of an action space. Raises `StartError` for one it cannot act in."""
    match space:
        case spaces.Discrete():
            return Discrete(int(space.n), int(space.start), space.dtype.name)
        case spaces.MultiBinary():
            return MultiBinary(space.shape)
        case spaces.MultiDiscrete():
            sizes = zip(space.nvec.flat, np.asarray(space.start).flat, strict=True)
            dtype = space.dtype.name
            choices = [Discrete(int(n), int(start), dtype) for n, start in sizes]
            return Joint(tuple(choices), space.shape)
        case spaces.Box() if np.issubdtype(space.dtype, np.floating) and 0 not in space.shape:
            low, high = (tuple(map(float, bound.flat)) for bound in (space.low, space.high))
            if is_squashed and not space.is_bounded():
                raise StartError(
                    f"--action-bounds tanh needs bounds, and the environment has {space}: "
                    "use --action-bounds clip."
                )
            dtype = space.dtype.name if space.dtype.name in FLOATS else "float64"
            return Continuous(space.shape, low, high, dtype, is_squashed)
        case spaces.Box() if _is_of_few_integers(space):
            bounds = zip(space.low.flat, space.high.flat, strict=True)
            dtype = space.dtype.name
            of_each = [Discrete(int(b) - int(a) + 1, int(a), dtype) for a, b in bounds]
            return Joint(tuple(of_each), space.shape)
        case spaces.Dict() if len(space.spaces):
            parts = [action_spec(part, is_squashed=is_squashed) for part in space.spaces.values()]
            return Joint(tuple(parts), names=tuple(space.spaces))
        case spaces.Tuple() if len(space.spaces):
            parts = [action_spec(part, is_squashed=is_squashed) for part in space.spaces]
            return Joint(tuple(parts))
    raise StartError(
        f"the environment has actions {space}, and aa2c acts in Discrete, MultiDiscrete, MultiBinary, Box of "
        f"floats or of at most {MOST_INTEGERS} integers, and Tuple or Dict of these: wrap it in "
        "gymnasium.wrappers.TransformAction (--wrapper)."
    )


def _is_of_few_integers(space: spaces.Box) -> bool:
    """Whether each number of a Box is one of so few integers that each may be a choice."""
    if not np.issubdtype(space.dtype, np.integer) or not space.shape or 0 in space.shape:
        return False
    counts = space.high.astype(object) - space.low.astype(object)  # of any width, without overflow
    return bool((counts < MOST_INTEGERS).all())


def most_entropy(spec: ActionSpec) -> float:
    """The entropy of random play in nats; NaN where actions are continuous, which have no highest."""
    match spec:
        case Discrete():
            return math.log(spec.n)
        case MultiBinary():
            return spec.n * math.log(2)
        case Continuous():
            return math.nan
    return sum(map(most_entropy, spec.parts))


def to_space(spec: ActionSpec, row: Actions) -> Any:
    """A policy's action, one row of `spec.leaf`, as a member of the environment's space."""
    match spec:
        case Discrete():
            return np.dtype(spec.dtype).type(row + spec.start)
        case MultiBinary():
            return row.astype(np.int8).reshape(spec.shape)
        case Continuous():
            return _within(spec, row)
    columns = np.split(row, np.cumsum(spec.widths)[:-1])
    parts = zip(spec.parts, columns, strict=True)
    made = [to_space(part, column.reshape(part.leaf.shape)) for part, column in parts]
    if spec.names:
        return dict(zip(spec.names, made, strict=True))
    return np.array(made).reshape(spec.shape) if spec.shape else tuple(made)


@functools.cache
def _bounds(spec: Continuous) -> tuple[Actions, Actions, Actions, Actions]:
    """Low and high in float64, and in the space's dtype, in which a bound may lie elsewhere."""
    low, high = np.array(spec.low), np.array(spec.high)
    return low, high, low.astype(spec.dtype), high.astype(spec.dtype)


def _within(spec: Continuous, row: Actions) -> Actions:
    low, high, *limits = _bounds(spec)
    numbers = row.astype(np.float64)
    if spec.is_squashed:
        numbers = low + (np.tanh(numbers) + 1) / 2 * (high - low)
    taken: Actions = np.clip(numbers.astype(spec.dtype), *limits).reshape(spec.shape)
    return taken


def random_actions(
    spec: ActionSpec, rows: int, rng: np.random.Generator, mask: NDArray[np.bool_] | None = None
) -> Actions:
    """Actions [rows, …] of a policy that knows nothing but, by `mask` [rows, A], what is legal."""
    match spec:
        case Discrete() if mask is not None:
            drawn: Actions = np.where(mask, rng.random(mask.shape), -1.0).argmax(-1)
            return drawn
        case Discrete():
            return rng.integers(0, spec.n, rows)
        case MultiBinary():
            return rng.integers(0, 2, (rows, spec.n))
        case Continuous():
            return rng.standard_normal((rows, spec.n), np.float32)
        case Joint():
            masks = [None] * len(spec.parts) if mask is None else split_mask(spec, mask)
            columns = [
                random_actions(part, rows, rng, own).reshape(rows, -1)
                for part, own in zip(spec.parts, masks, strict=True)
            ]
            return np.concatenate(columns, 1).astype(spec.leaf.dtype)


def split_mask(spec: Joint, mask: NDArray[np.bool_]) -> Sequence[NDArray[np.bool_]]:
    """The parts' own columns of a mask [..., A]."""
    return np.split(mask, np.cumsum([part.num_mask for part in spec.parts])[:-1], -1)


def check_actions(spec: ActionSpec, actions: Actions) -> None:
    """Raise `ValueError` for actions [rows, …] that a policy of `spec` does not take."""
    leaf = spec.leaf
    if actions.shape[1:] != leaf.shape:
        raise ValueError(f"actions must be rows of {leaf.shape}, got {actions.shape}")
    match spec:
        case Discrete():
            if actions.astype(np.uint64).max() >= spec.n:  # those below 0 are very large then
                raise ValueError(f"actions must be in 0 … {spec.n - 1}, got {actions}")
        case MultiBinary():
            if not np.isin(actions, (0, 1)).all():
                raise ValueError(f"actions must be 0 or 1, got {actions}")
        case Continuous():
            if not np.isfinite(actions).all():
                raise ValueError(f"actions must be finite, got {actions}")
        case Joint():
            columns = np.split(actions, np.cumsum(spec.widths)[:-1], axis=1)
            for part, column in zip(spec.parts, columns, strict=True):
                check_actions(part, column.reshape(len(actions), *part.leaf.shape))
