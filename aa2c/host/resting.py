"""When those who make env steps rest: the run is paused, its budget is used up, or nobody runs it.

An orchestrator that is stopped (Ctrl-Z, a debugger) can neither end its run nor restart a child. Its
heartbeat is a word of the run's row, and whoever misses it for a while rests until it is back.
"""

from __future__ import annotations

import time

from aa2c.ports import Counters
from aa2c.shm.counters import run_row, updater_row, worker_row, workers_in
from aa2c.shm.segment import Segment

HEARTBEAT_S = 0.5
MISSED_AFTER_S = 5.0
LOOK_EVERY_S = 0.05


class Resting:
    """For one process. `budget` are the env steps that all workers may make together."""

    def __init__(self, counters_segment: Segment, *, budget: int | None = None) -> None:
        self._run = run_row(counters_segment)
        self._updater = updater_row(counters_segment)
        workers = range(workers_in(counters_segment)) if budget is not None else ()
        self._workers = [worker_row(counters_segment, i) for i in workers]
        self._budget = budget
        self._heartbeat = -1
        self._heard_at = self._looked_at = -float("inf")
        self._is_due = False

    @property
    def is_due(self) -> bool:
        """Paused, or without an orchestrator. Cheap, because it is asked all the time."""
        now = time.monotonic()
        if now - self._looked_at > LOOK_EVERY_S:
            self._looked_at = now
            self._is_due = self._is_alone(now)
        return self._is_due or bool(self._run.count("is_paused"))

    @property
    def is_budget_used_up(self) -> bool:
        """Asked before a record is begun: what was begun is to be learned from."""
        if self._budget is None or not has_learned(self._updater):
            return False
        here = sum(row.count("env_steps") for row in self._workers)
        return here + self._run.count("env_steps_elsewhere") >= self._budget

    def _is_alone(self, now: float) -> bool:
        """Whether the heartbeat is missed; where nobody ever began one, as in `bench`, it is not."""
        heartbeat = self._run.count("beats")
        if heartbeat != self._heartbeat:
            self._heartbeat, self._heard_at = heartbeat, now
        return heartbeat > 0 and now - self._heard_at > MISSED_AFTER_S


def has_learned(updater: Counters) -> bool:
    """Whether there was an update, or nothing to make one of: no budget is used up before."""
    return updater.count("updates") + updater.count("rejected") > 0
