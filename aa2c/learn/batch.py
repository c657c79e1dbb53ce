"""Batches: rollouts of several workers side by side, as whole frames and as sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aa2c.envs.frames import empty_stacks, frames_first, join_stacks
from aa2c.envs.spec import OBS
from aa2c.envs.vector import Arrays
from aa2c.learn.schema import FIRST_STACK, PLANES, RETURN_STATISTICS, STATES, begins_episode

_OTHER_LEAVES = (OBS, FIRST_STACK, PLANES, RETURN_STATISTICS)


def join_records(records: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
    """Records of T steps (see `record_leaves`), side by side: [T, B, …] with all their environments."""
    names = [name for name in records[0] if name not in _OTHER_LEAVES]
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


def states_of(batch: Arrays) -> list[NDArray[Any]]:
    """What was remembered at the start of each sequence, [S, B, H] each; none without memory."""
    return [batch[name] for name in STATES if name in batch]


class Sequences:
    """A batch of T steps of B environments as M = T / L * B sequences of L steps.

    `rows` [L, M] are the places of their steps among the T * B flat rows.
    """

    def __init__(self, batch: Arrays, length: int) -> None:
        steps, envs = batch["rewards"].shape
        places = torch.arange(steps * envs).view(steps // length, length, envs)
        self.rows = places.transpose(0, 1).reshape(length, -1)
        self._states = [torch.from_numpy(state).flatten(0, 1) for state in states_of(batch)]
        first = torch.from_numpy(begins_episode(batch)[:-1]).flatten()[self.rows]
        first[0] = False  # the kept states know
        self._is_first = first

    def __len__(self) -> int:
        return self.rows.shape[1]

    def start(self, chosen: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """States [m, H] at the start of these sequences [m], and where steps [L, m] begin an episode."""
        return tuple(state[chosen] for state in self._states), self._is_first[:, chosen]


def take_rows(obs: Tensor, rows: Tensor) -> Tensor:
    """obs[rows], in the same order of memory."""
    if obs.dim() == 4 and obs.is_contiguous(memory_format=torch.channels_last):
        # index_select copies rows whole only where the memory's order is the dimensions'.
        return obs.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)
    return obs.index_select(0, rows)
