"""What is known of an environment before it runs: named leaves of arrays, and what networks must know."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


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


OBS = "obs"

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
    num_actions: int
    is_stacked: bool = False

    @property
    def is_image(self) -> bool:
        return len(self.obs_shape) == 3 and self.obs_dtype == "uint8"
