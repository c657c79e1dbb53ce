"""Batches: rollouts of several workers side by side, with the stacks of their frames rebuilt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aa2c.envs.frames import empty_stacks, frames_first, join_stacks

Floats = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]

TRANSITION_ARRAYS = (
    "actions",
    "rewards",
    "terminated",
    "truncated",
    "is_reset",
    "log_probs",
    "values",
)


class Batch(NamedTuple):
    """Some rollouts side by side: [T, B, …] with all their environments, obs and values [T+1, B, …]."""

    obs: NDArray[Any]
    actions: NDArray[np.int64]
    rewards: Floats
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    is_reset: NDArray[np.bool_]
    log_probs: Floats
    values: Floats


def join_records(records: Sequence[Arrays]) -> Batch:
    """Rollouts of T steps, side by side.

    Each has `TRANSITION_ARRAYS` and either `obs` [T+1, B, …], or `first_stack` [B, H, W, 4] and
    `planes` [T, B, H, W].
    """
    arrays = {
        name: np.concatenate([r[name] for r in records], axis=1) for name in TRANSITION_ARRAYS
    }
    return Batch(obs=_join_obs(records), **arrays)


def _join_obs(records: Sequence[Arrays]) -> NDArray[Any]:
    if "planes" not in records[0]:
        return np.concatenate([record["obs"] for record in records], axis=1)
    firsts = [frames_first(record["first_stack"]) for record in records]
    rows, envs = len(records[0]["planes"]) + 1, len(firsts[0])
    obs = empty_stacks((rows, envs * len(records), *firsts[0].shape[1:]))
    for i, (first, record) in enumerate(zip(firsts, records, strict=True)):
        part = obs[:, i * envs : (i + 1) * envs]
        join_stacks(first, record["planes"], record["is_reset"], part)
    return obs
