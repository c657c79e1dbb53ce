"""Lock-step, for --deterministic: who may begin the next record, and the workers' states.

A round is one record of each worker. Records are taken in the order of the workers, and `turn` counts
those that have been dealt with. All workers of a round act on the parameters that the round before led
to, at the same time; where each of them steps the network itself, one after the other. Between two rounds nothing moves: that is when checkpoints are made, with all states.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aa2c.config.config import Config
from aa2c.shm.counters import Counters


class LockStep:
    """The rules, for worker and updater. Rows are the worker's and the updater's counters."""

    def __init__(self, config: Config, run_dir: Path | None) -> None:
        self.is_on = config.deterministic
        self._workers = config.workers
        self._one_by_one = config.mode_facts.workers_step
        self._directory = run_dir and run_dir / ".states"
        self._dealt_with = 0

    def has_turn(self, worker: int, own: Counters, updater: Counters) -> bool:
        """Whether this worker may begin its next record."""
        needed = own.count("records") * self._workers + (worker if self._one_by_one else 0)
        return updater.count("turn") >= needed

    def pass_turn(self, records: int, updater: Counters) -> None:
        """Count records that the updater has dealt with."""
        self._dealt_with += records
        if self._one_by_one or self.is_between_rounds:
            updater.set("turn", self._dealt_with)

    @property
    def is_between_rounds(self) -> bool:
        return self._dealt_with % self._workers == 0

    def keep_if_wanted(
        self, worker: int, own: Counters, updater: Counters, make_state: Callable[[], bytes]
    ) -> None:
        """Leave a worker's state where the updater finds it."""
        wanted = updater.count("states_wanted")
        if wanted > own.count("states_kept") and self._directory:
            self._directory.mkdir(exist_ok=True)
            (self._directory / str(worker)).write_bytes(make_state())
            own.set("states_kept", wanted)

    def collect(self) -> dict[int, bytes]:
        """All workers' states."""
        assert self._directory is not None
        return {i: (self._directory / str(i)).read_bytes() for i in range(self._workers)}
