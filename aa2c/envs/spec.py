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

    `is_stacked`: frames along the first axis, oldest first, zeros before a game's first. Policies
    choose among 0 … num_actions-1; the environment's own numbers begin with `first_action`.
    `obs_scale` brings integers within the space's bounds to -1 … 1; 0 stands for 255 of bytes and 1.
    """

    obs_shape: tuple[int, ...]
    obs_dtype: str
    num_actions: int
    is_stacked: bool = False
    first_action: int = 0
    obs_scale: float = 0.0

    def __post_init__(self) -> None:
        if not self.obs_scale:
            scale = 255.0 if self.obs_dtype == "uint8" else 1.0
            object.__setattr__(self, "obs_scale", scale)

    @property
    def is_image(self) -> bool:
        return len(self.obs_shape) == 3 and self.obs_dtype == "uint8"
