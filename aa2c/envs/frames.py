"""Frame stacks, each frame once: what of stacked observations must cross the process border.

A rollout's stacks [T+1, B, 4, H, W] are its first stacks and the newest frame of every later one; a
quarter of the bytes. After a reset the older frames of a stack are zeros.

Arrays of stacks have the shape [..., 4, H, W] that Gymnasium gives and, in memory, the order
[..., H, W, 4], in which convolutions are faster and need no copy of their own. The four frames of a
pixel are then one word of 32 bits, the newest in the highest byte: a step later it is shifted by 8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[Any]

STACK_SIZE = 4
_WORD = np.dtype("<u4")


def empty_stacks(shape: tuple[int, ...]) -> Bytes:
    """Memory for stacks [..., 4, H, W] of bytes, the frames of each pixel side by side."""
    *outer, size, height, width = shape
    return frames_first(np.empty((*outer, height, width, size), np.uint8))


def frames_first(pixels: Bytes) -> Bytes:
    """Pixels [..., H, W, 4] seen as stacks [..., 4, H, W], without a copy."""
    return np.moveaxis(pixels, -1, -3)


def copy_stacks(stacks: Bytes, out: Bytes) -> None:
    """Copy stacks [B, 4, H, W] of any order in memory; plane by plane is many times faster."""
    for k in range(STACK_SIZE):
        out[:, k] = stacks[:, k]


def push_frames(stacks: Bytes, newest: Bytes, is_reset: NDArray[np.bool_], out: Bytes) -> None:
    """Write what stacks [B, 4, H, W] are a step later, with the newest frames [B, H, W].

    `stacks` and `out`, which may be the same, are as `empty_stacks` makes them.
    """
    pixels = np.right_shift(_words(stacks), 8, out=_words(out))
    if is_reset.any():
        pixels[is_reset] = 0
    shifted = newest.astype(_WORD)
    shifted <<= 24
    pixels |= shifted


def join_stacks(first: Bytes, planes: Bytes, is_reset: NDArray[np.bool_], out: Bytes) -> None:
    """Rebuild the stacks [T+1, B, 4, H, W] into `out`, from the first ones and the later planes.

    `planes` are [T, B, H, W], `is_reset` [T, B] as in a rollout.
    """
    out[0] = first
    for t, newest in enumerate(planes):
        push_frames(out[t], newest, is_reset[t], out[t + 1])


def _words(stacks: Bytes) -> NDArray[np.uint32]:
    """The memory of stacks [B, 4, H, W] as words [B, H, W]."""
    return stacks.transpose(0, 2, 3, 1).view(_WORD)[..., 0]  # not moveaxis: that is slow
