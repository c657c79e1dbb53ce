"""Counters that cost nothing to write: one row of shared memory for each writer.

Each row has one writer at a time and the orchestrator reads them all. A row outlives the process
that writes it: a restarted child continues from the values it finds, so counters never go back.
Every value is one aligned 8-byte word, whole at any instant, even when its writer is killed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aa2c.config.modes import WATCHED
from aa2c.config.options import LIVE_OPTIONS
from aa2c.shm.segment import Segment

LAG_BUCKETS = (0, 1, 2, 4, 8, 16, 32, 64, 128)  # upper bounds; one more counts what is above

_WORDS_PER_ROW = 64
_ROW_BYTES = _WORDS_PER_ROW * 8


@dataclass(frozen=True)
class RowLayout:
    """The names of a row: `ints` are counts, `floats` are seconds or the latest of a quantity."""

    ints: tuple[str, ...]
    floats: tuple[str, ...] = ()

    def index(self, name: str) -> int:
        return (self.ints + self.floats).index(name)


UPDATER = RowLayout(
    ints=(
        "beats",
        "waits_for",
        "updates",
        "policy_version",
        "records",
        "env_steps",
        "rejected",
        "stale",
        "discarded",
        "torn_steps",
        "nonfinite",
        "rollbacks",
        "checkpoints_made",
        "turn",
        "states_wanted",
        *(f"{name}_told" for name in WATCHED),
        "lag_min",
        "lag_max",
        *(f"lag_bucket_{i}" for i in range(len(LAG_BUCKETS) + 1)),
    ),
    floats=(
        "wait_s",
        "update_s",
        "lag_sum",
        "lag_mean",
        "policy",
        "value",
        "entropy",
        "grad_norm",
        "approx_kl",
        "explained_variance",
        "grad_share",
        "ratio",
        "clip_fraction",
        "value_unit",
        "most_entropy",
        *(f"{name}_sum" for name in WATCHED),
        "learning_rate",
        "halved_rate",
        "halvings",
        "checkpoint_time",
    ),
)
WORKER = RowLayout(
    ints=("beats", "waits_for", "env_steps", "episodes", "records", "states_kept"),
    floats=("wait_s",),
)
RING = RowLayout(ints=("checksum", "fenced", "invalid", "lost", "learned"), floats=("lag_sum",))
EVALUATOR = RowLayout(ints=("beats", "waits_for", "records", "videos_taken", "recorder_pid"))
ENGINE = RowLayout(ints=("beats", "waits_for", "records"))
RUN = RowLayout(
    ints=(
        "beats",
        "episodes",
        "episodes_in_mean",
        "is_paused",
        "checkpoints_wanted",
        "frames_wanted",
        "videos_wanted",
        "settings_changed",
        "env_steps_elsewhere",
    ),
    floats=("train_return_mean", *LIVE_OPTIONS),
)

_ROWS_BEFORE_WORKERS = 4


def table_bytes(workers: int) -> int:
    """Bytes of the segment: updater, evaluator, run, engine; for each worker its own and its ring's."""
    return (_ROWS_BEFORE_WORKERS + 2 * workers) * _ROW_BYTES


def workers_in(segment: Segment) -> int:
    """How many workers a table has room for."""
    return (len(segment.buf) // _ROW_BYTES - _ROWS_BEFORE_WORKERS) // 2


class Counters:
    """One row, by name. Reading is for everyone, writing for the row's one writer."""

    def __init__(self, segment: Segment, row: int, layout: RowLayout) -> None:
        self.start = row * _ROW_BYTES
        memory = segment.buf[self.start : self.start + _ROW_BYTES]
        self._ints = memory.cast("Q")
        self._floats = memory.cast("d")
        self._int_index = {name: layout.index(name) for name in layout.ints}
        self._float_index = {name: layout.index(name) for name in layout.floats}

    def add(self, name: str, amount: float) -> None:
        """Increase a count or a sum of seconds."""
        if name in self._int_index:
            self._ints[self._int_index[name]] += int(amount)
        else:
            self._floats[self._float_index[name]] += amount

    def set(self, name: str, value: float) -> None:
        """Set the latest value of a quantity."""
        if name in self._int_index:
            self._ints[self._int_index[name]] = int(value)
        else:
            self._floats[self._float_index[name]] = value

    def count(self, name: str) -> int:
        return self._ints[self._int_index[name]]

    def value(self, name: str) -> float:
        return self._floats[self._float_index[name]]

    def close(self) -> None:
        self._ints.release()
        self._floats.release()


def count_lag(counters: Counters, lag: int) -> None:
    """Count one policy lag in the cumulative histogram's bucket."""
    bucket = next((i for i, bound in enumerate(LAG_BUCKETS) if lag <= bound), len(LAG_BUCKETS))
    counters.add(f"lag_bucket_{bucket}", 1)
    counters.add("lag_sum", lag)


def updater_row(segment: Segment) -> Counters:
    """The updater's own row."""
    return Counters(segment, 0, UPDATER)


def evaluator_row(segment: Segment) -> Counters:
    """The evaluator's row; its records are evaluations."""
    return Counters(segment, 1, EVALUATOR)


def run_row(segment: Segment) -> Counters:
    """What the orchestrator tells the others: control flags, and how good the policy is."""
    return Counters(segment, 2, RUN)


def engine_row(segment: Segment) -> Counters:
    """The row of the process that talks to hosts, if there are any; its records came from them."""
    return Counters(segment, 3, ENGINE)


def row_bytes(segment: Segment, row: Counters) -> memoryview:
    """A row as it is, to be copied to or from another table."""
    return segment.buf[row.start : row.start + _ROW_BYTES]


def worker_row(segment: Segment, worker: int) -> Counters:
    """The row of one worker, over all its generations."""
    return Counters(segment, _ROWS_BEFORE_WORKERS + 2 * worker, WORKER)


def env_steps_of_workers(segment: Segment) -> NDArray[np.uint64]:
    """A view of one column of the table: what each worker has counted, for who sums many."""
    table = np.frombuffer(segment.buf, np.uint64).reshape(-1, _WORDS_PER_ROW)
    return table[_ROWS_BEFORE_WORKERS::2, WORKER.index("env_steps")]


def child_row(segment: Segment, role: str, index: int) -> Counters:
    """The row of a child, by its role and, of a worker, its index."""
    if role == "worker":
        return worker_row(segment, index)
    rows = {"updater": updater_row, "evaluator": evaluator_row, "engine": engine_row}
    return rows[role](segment)


def ring_row(segment: Segment, worker: int) -> Counters:
    """The updater's counts of what it took from a worker's rings, over all generations."""
    return Counters(segment, _ROWS_BEFORE_WORKERS + 1 + 2 * worker, RING)
