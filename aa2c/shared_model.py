"""The shared model of mode model, as workers and updater see it through their ports.

A protocol only: its memory is `aa2c.shm.shared_model`, of the local engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

PARAMS, STATISTICS = "params", "statistics"  # names among its vectors


class SharedModel(Protocol):
    """One network and one optimizer state in shared memory, stepped by all workers.

    `vectors` are float32 vectors by name, `learning_rate` is set by the updater, and the version
    counts publications and steps. Running means and stds are not stepped: the updater publishes them,
    and they are pulled whole, or not at all (False). Whoever makes a `step` holds the lock.
    """

    learning_rate: float
    is_locked: bool

    @property
    def vectors(self) -> Mapping[str, Vector]: ...

    @property
    def version(self) -> int: ...

    @property
    def torn_steps(self) -> int: ...

    def publish_statistics(self, statistics: Vector) -> None: ...

    def pull_statistics(self, out: Vector) -> bool: ...

    def step(self) -> AbstractContextManager[None]: ...

    def count_step(self, worker: int) -> None:
        """Count a step that a worker made without the lock."""

    def unlock(self) -> None: ...

    def reading(self) -> AbstractContextManager[bool]:
        """Hold off steps while reading, if there is a lock; False if it could not be acquired."""
