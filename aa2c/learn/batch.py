"""Batches: rollouts of several workers side by side, with the stacks of their frames rebuilt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aa2c.envs.frames import empty_stacks, frames_first, join_stacks
from aa2c.envs.spec import OBS
from aa2c.envs.vector import Arrays
from aa2c.learn.schema import FIRST_STACK, PLANES

_OBS_LEAVES = (OBS, FIRST_STACK, PLANES)


def join_records(records: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
    """Records of T steps (see `record_leaves`), side by side: [T, B, …] with all their environments."""
    names = [name for name in records[0] if name not in _OBS_LEAVES]
    batch = {name: np.concatenate([r[name] for r in records], axis=1) for name in names}
    return {OBS: _join_obs(records), **batch}


def _join_obs(records: Sequence[Arrays]) -> NDArray[Any]:
    if PLANES not in records[0]:
        return np.concatenate([record[OBS] for record in records], axis=1)
    firsts = [frames_first(record[FIRST_STACK]) for record in records]
    rows, envs = len(records[0][PLANES]) + 1, len(firsts[0])
    obs = empty_stacks((rows, envs * len(records), *firsts[0].shape[1:]))
    for i, (first, record) in enumerate(zip(firsts, records, strict=True)):
        part = obs[:, i * envs : (i + 1) * envs]
        join_stacks(first, record[PLANES], record["is_reset"], part)
    return obs
