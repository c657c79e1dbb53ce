"""What is known of an environment before it runs: named leaves of arrays, and what networks must know."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple


class Leaf(NamedTuple):
    """A named array: its dtype as NumPy writes it with the byte order, and its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * int(self.dtype[-1])

    def outer(self, *outer: int) -> Leaf:
        """So many of it, side by side along leading dimensions."""
        return self._replace(shape=(*outer, *self.shape))


@dataclass(frozen=True)
class Discrete:
    """One of `n` actions, 0 … n-1."""

    n: int

    @property
    def leaf(self) -> Leaf:
        """Of one environment's action, as the policy takes it."""
        return Leaf(ACTIONS, "<i8")


@dataclass(frozen=True)
class MultiBinary:
    """`n` switches, 0 or 1 each."""

    n: int

    @property
    def leaf(self) -> Leaf:
        return Leaf(ACTIONS, "<i8", (self.n,))


@dataclass(frozen=True)
class Continuous:
    """`n` real numbers. The policy's are unbounded: the environment's bounds are applied to them."""

    n: int

    @property
    def leaf(self) -> Leaf:
        return Leaf(ACTIONS, "<f4", (self.n,))


@dataclass(frozen=True)
class Joint:
    """Several at once, side by side in one row: MultiDiscrete, Tuple and Dict spaces."""

    parts: tuple[ActionSpec, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Columns of each part's actions."""
        return tuple(math.prod(part.leaf.shape) for part in self.parts)

    @property
    def leaf(self) -> Leaf:
        dtypes = {part.leaf.dtype for part in self.parts}
        return Leaf(ACTIONS, dtypes.pop() if len(dtypes) == 1 else "<f4", (sum(self.widths),))


ActionSpec = Discrete | MultiBinary | Continuous | Joint

OBS, ACTIONS = "obs", "actions"


STEP_LEAVES = (
    Leaf("rewards", "<f4"),
    Leaf("terminated", "|b1"),
    Leaf("truncated", "|b1"),
    Leaf("is_reset", "|b1"),
)
"""What a step of one environment tells beside its observation."""


@dataclass(frozen=True)
class EnvSpec:
    """What a network must know of an environment: one observation's shape and dtype, actions.

    `is_stacked`: frames along the first axis, oldest first, zeros before a game's first.
    """

    obs_shape: tuple[int, ...]
    obs_dtype: str
    actions: ActionSpec
    is_stacked: bool = False

    @property
    def is_image(self) -> bool:
        return len(self.obs_shape) == 3 and self.obs_dtype == "uint8"


def plain_actions(spec: ActionSpec) -> Any:
    """For JSON."""
    if isinstance(spec, Joint):
        return [plain_actions(part) for part in spec.parts]
    return {type(spec).__name__: spec.n}


def read_actions(plain: Any) -> ActionSpec:
    """What `plain_actions` gave. Raises `ValueError` or `TypeError` for anything else."""
    if isinstance(plain, list) and plain:
        return Joint(tuple(map(read_actions, plain)))
    ((kind, n),) = plain.items() if isinstance(plain, dict) else [("", 0)]
    kinds: dict[str, type[Discrete | MultiBinary | Continuous]] = {
        kind.__name__: kind for kind in (Discrete, MultiBinary, Continuous)
    }
    if kind not in kinds or type(n) is not int or n < 1:
        raise ValueError(f"its actions are no actions: {plain!r}")
    return kinds[kind](n)
