"""What is known of an environment before it runs: named leaves of arrays, and what networks must know."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    from aa2c.envs.observations import ObsSpec


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
    """One of `n` actions, 0 … n-1; the environment's own begin with `start` and have this dtype."""

    n: int
    start: int = 0
    dtype: str = "int64"

    @property
    def num_mask(self) -> int:
        """Columns of an action mask, 0 where these actions take none."""
        return self.n

    @property
    def leaf(self) -> Leaf:
        """Of one environment's action, as the policy takes it."""
        return Leaf(ACTIONS, "<i8")


@dataclass(frozen=True)
class MultiBinary:
    """Switches of this shape, 0 or 1 each, in one row of `n`."""

    shape: tuple[int, ...]
    num_mask: ClassVar = 0

    @property
    def n(self) -> int:
        return math.prod(self.shape)

    @property
    def leaf(self) -> Leaf:
        return Leaf(ACTIONS, "<i8", (self.n,))


@dataclass(frozen=True)
class Continuous:
    """Real numbers of this shape within bounds, in one row of `n`.

    The policy's are unbounded: they are clipped for the environment, or, if `is_squashed`, their
    tanh spans the bounds.
    """

    shape: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    dtype: str = "float32"
    is_squashed: bool = False
    num_mask: ClassVar = 0

    @property
    def n(self) -> int:
        return math.prod(self.shape)

    @property
    def leaf(self) -> Leaf:
        return Leaf(ACTIONS, "<f4", (self.n,))


@dataclass(frozen=True)
class Joint:
    """Several at once, side by side in one row: a MultiDiscrete of this shape, a Tuple, or a Dict."""

    parts: tuple[ActionSpec, ...]
    shape: tuple[int, ...] = ()
    names: tuple[str | int, ...] = ()

    @property
    def widths(self) -> tuple[int, ...]:
        """Columns of each part's actions."""
        return tuple(math.prod(part.leaf.shape) for part in self.parts)

    @property
    def num_mask(self) -> int:
        """A mask covers all parts, side by side, or there is none."""
        columns = [part.num_mask for part in self.parts]
        return sum(columns) if all(columns) else 0

    @property
    def leaf(self) -> Leaf:
        dtypes = {part.leaf.dtype for part in self.parts}
        return Leaf(ACTIONS, dtypes.pop() if len(dtypes) == 1 else "<f4", (sum(self.widths),))


ActionSpec = Discrete | MultiBinary | Continuous | Joint

OBS, ACTIONS, ACTION_MASK = "obs", "actions", "action_mask"


STEP_LEAVES = (
    Leaf("rewards", "<f4"),
    Leaf("terminated", "|b1"),
    Leaf("truncated", "|b1"),
    Leaf("is_reset", "|b1"),
)
"""What a step of one environment tells beside its observation."""


SMALLEST_SIDE = 3  # pixels of an image
SMALLEST_GREY_SIDE = 20  # of one without channels, which may as well be a table


def is_image(shape: tuple[int, ...], dtype: str) -> bool:
    """Whether a Box is for convolutions: three dimensions, or two of bytes."""
    if len(shape) == 2:
        return dtype == "uint8" and min(shape) >= SMALLEST_GREY_SIDE
    return len(shape) == 3 and smallest_side(shape) >= SMALLEST_SIDE


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """Of an image: the last of three, unless the first is smaller."""
    if len(shape) == 2:
        return None
    return 0 if shape[0] < shape[2] else 2


def smallest_side(shape: tuple[int, ...]) -> int:
    """Pixels of an image's shorter side."""
    axis = channel_axis(shape)
    return min(side for i, side in enumerate(shape) if i != axis)


@dataclass(frozen=True)
class EnvSpec:
    """What a network must know of an environment: one observation's shape and dtype, actions.

    `is_stacked`: frames along the first axis, oldest first, zeros before a game's first.
    `obs_scale` brings integers within the space's bounds to -1 … 1; 0 stands for 255 of bytes and 1.
    `obs` says how an observation becomes one row, where its space is no Box. With `has_mask` the
    environment tells which actions are legal. `resets_at_once`: the step that ends an episode shows the
    next one's first observation already.
    """

    obs_shape: tuple[int, ...]
    obs_dtype: str
    actions: ActionSpec
    is_stacked: bool = False
    obs_scale: float = 0.0
    obs: ObsSpec | None = None
    has_mask: bool = False
    resets_at_once: bool = False

    def __post_init__(self) -> None:
        if not self.obs_scale:
            scale = 255.0 if self.obs_dtype == "uint8" else 1.0
            object.__setattr__(self, "obs_scale", scale)

    @property
    def mask_leaf(self) -> Leaf:
        """Of one environment's action mask."""
        return Leaf(ACTION_MASK, "|b1", (self.actions.num_mask,))

    @property
    def is_image(self) -> bool:
        return is_image(self.obs_shape, self.obs_dtype)
