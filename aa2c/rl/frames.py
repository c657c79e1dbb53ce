"""Frame stacks, each frame once: what of stacked observations must cross the process border.

A rollout's stacks [T+1, B, S, H, W] are its first stack and the newest plane of every later one;
a quarter of the bytes for S = 4. After a reset the older frames of a stack are zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[Any]


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
