"""A journal of every record, for audits: which were produced, which were taken to learn from.

Off unless the environment variable AA2C_JOURNAL is set. `produced-WORKER-GENERATION` has a number for
each record that was about to become visible, `taken-N` of the N-th incarnation of the updater a line
for each record that it was about to learn from. See `check`.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np

VARIABLE = "AA2C_JOURNAL"
_ENTRY_WORDS = 3  # worker, generation, sequence


class Journal:
    """One process's file of entries; each is one write, so that a kill leaves whole ones."""

    def __init__(self, run_dir: Path | None, name: str) -> None:
        self._file = -1
        if run_dir is not None and os.environ.get(VARIABLE):
            directory = run_dir / "journal"
            directory.mkdir(exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._file = os.open(directory / name, flags, 0o644)

    def add(self, worker: int, generation: int, sequence: int) -> None:
        """Note a record. Raises `OSError` if the disk is full, before anybody may rely on the entry."""
        if self._file >= 0:
            entry = np.array([worker, generation, sequence], np.uint64).tobytes()
            if os.write(self._file, entry) < len(entry):
                raise OSError(errno.ENOSPC, "the journal's disk is full")


def read(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    """The entries of one file [n, 3]."""
    data, size = path.read_bytes(), 8 * _ENTRY_WORDS
    whole = data[: len(data) // size * size]  # a full disk may have cut off the last one
    return np.frombuffer(whole, np.uint64).reshape(-1, _ENTRY_WORDS)


def check(directory: Path) -> dict[str, int]:
    """Read a run's journal/ and count; raises `ValueError` for what must not be.

    Each record is taken at most once and none that was not produced; a worker's are taken in order, with
    gaps only where a worker or the updater was started again. `lost` are those produced and never taken.
    """
    produced = {
        tuple(int(word) for word in entry)
        for path in directory.glob("produced-*")
        for entry in read(path)
    }
    taken: set[tuple[int, ...]] = set()
    newest: dict[int, tuple[int, ...]] = {}
    paths = sorted(directory.glob("taken-*"), key=lambda path: int(path.name.partition("-")[2]))
    for path in paths:
        last: dict[int, tuple[int, ...]] = {}
        for entry in read(path):
            worker, *order = (int(word) for word in entry)
            record = (worker, *order)
            if record in taken:
                raise ValueError(f"{path.name}: {record} was taken twice")
            if record not in produced:
                raise ValueError(f"{path.name}: {record} was never produced")
            if tuple(order) < newest.get(worker, (0, 0)):
                raise ValueError(f"{path.name}: {record} came after {newest[worker]}")
            before = last.get(worker)
            if before is not None and before[0] == order[0] and order[1] != before[1] + 1:
                raise ValueError(f"{path.name}: {record} came next after {before}")
            taken.add(record)
            newest[worker] = last[worker] = tuple(order)
    return {
        "produced": len(produced),
        "taken": len(taken),
        "lost": len(produced - taken),
        "updaters": len(paths),
    }
