"""Frame stacks, each frame once: what of stacked observations must cross the process border.

A rollout's stacks [T+1, B, S, H, W] are its first stack and the newest plane of every later one;
a quarter of the bytes for S = 4. After a reset the older frames of a stack are zeros.

Arrays of stacks have the shape [..., S, H, W] that Gymnasium gives and, in memory, the order
[..., H, W, S], in which convolutions are faster and need no copy of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[Any]


def empty_stacks(shape: tuple[int, ...]) -> Bytes:
    """Memory for stacks [..., S, H, W] of bytes, the frames of each pixel side by side."""
    *outer, size, height, width = shape
    return np.moveaxis(np.empty((*outer, height, width, size), np.uint8), -1, -3)


def copy_stacks(stacks: Bytes, out: Bytes) -> None:
    """Copy stacks [B, S, H, W] of any order in memory; plane by plane is many times faster."""
    for k in range(stacks.shape[1]):
        out[:, k] = stacks[:, k]


def split_stacks(obs: Bytes, first: Bytes, planes: Bytes) -> None:
    """Write the first stack [B, S, H, W] and the newest planes [T, B, H, W] of `obs`."""
    first[:] = obs[0]
    planes[:] = obs[1:, :, -1]


def join_stacks(first: Bytes, planes: Bytes, is_reset: NDArray[np.bool_], out: Bytes) -> None:
    """Rebuild the stacks [T+1, B, S, H, W] into `out`; `is_reset` [T, B] as in a rollout."""
    num_steps, size = len(planes), first.shape[1]
    frames = np.concatenate([first.swapaxes(0, 1), planes])  # [S+T, B, H, W]
    for k in range(size):
        out[:, :, k] = frames[k : k + num_steps + 1]
    for t, env in zip(*np.nonzero(is_reset), strict=True):
        for age in range(min(size - 1, num_steps - t)):
            out[t + 1 + age, env, : size - 1 - age] = 0
