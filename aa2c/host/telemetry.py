"""Telemetry: a run's counters, read from shared memory, with rates over the last seconds.

Runs in the orchestrator. The children's counters are read, never requested.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from aa2c.checkpoints.files import KEPT_COUNTS
from aa2c.engine import LagHistogram
from aa2c.host.rate import Rate
from aa2c.ports import Counters
from aa2c.shm.counters import (
    LAG_BUCKETS,
    engine_row,
    evaluator_row,
    ring_row,
    run_row,
    updater_row,
    worker_row,
)
from aa2c.shm.ring import DROP_REASONS
from aa2c.shm.segment import Segment

LAG_WINDOW_S = 60.0


class RunCounters:
    """All rows of a run's counters, with rates over the last seconds."""

    def __init__(
        self, segment: Segment, workers: int, before: Mapping[str, int] | None = None
    ) -> None:
        """Room for so many workers. `before`: what a resumed run has counted already."""
        self.env_steps_before = before["env_steps"] if before else 0
        of_all = tuple(row(segment) for row in (updater_row, evaluator_row, run_row, engine_row))
        of_workers = [worker_row(segment, i) for i in range(workers)]
        self._rings = [ring_row(segment, i) for i in range(workers)]
        self._rows = (*of_all, *of_workers, *self._rings)
        self.updater: Counters
        self.evaluator: Counters
        self.updater, self.evaluator, self.run, self.engine = of_all
        self.workers: Sequence[Counters] = of_workers
        self._updates = Rate()
        self._updater_wait = Rate()
        self._env_steps = [Rate() for _ in range(workers)]
        self._waits = [Rate() for _ in range(workers)]
        self._lags = [(Rate(), Rate()) for _ in range(workers)]  # sum, and of how many records
        self._lag_counts: deque[tuple[float, list[int]]] = deque()
        if before:
            for name in KEPT_COUNTS:  # an updater continues from these, its first or its next
                self.updater.set(name, before[name])

    def sample(self) -> None:
        """Take a sample for the rates; to be called at a steady pace."""
        now = time.monotonic()
        self._updates.sample(now, self.updater.count("updates"))
        self._updater_wait.sample(now, self.updater.value("wait_s"))
        for row, steps, wait in zip(self.workers, self._env_steps, self._waits, strict=True):
            steps.sample(now, row.count("env_steps"))
            wait.sample(now, row.value("wait_s"))
        for ring, (lag_sum, learned) in zip(self._rings, self._lags, strict=True):
            lag_sum.sample(now, ring.value("lag_sum"))
            learned.sample(now, ring.count("learned"))
        self._lag_counts.append((now, self._count_lags()))
        while now - self._lag_counts[0][0] > LAG_WINDOW_S:
            self._lag_counts.popleft()

    def _count_lags(self) -> list[int]:
        return [self.updater.count(f"lag_bucket_{i}") for i in range(len(LAG_BUCKETS) + 1)]

    @property
    def env_steps(self) -> int:
        return self.env_steps_before + sum(row.count("env_steps") for row in self.workers)

    @property
    def updates_made(self) -> int:
        return self.updater.count("updates")

    @property
    def env_steps_per_s(self) -> float:
        return sum(rate.per_second for rate in self._env_steps)

    @property
    def updates_per_s(self) -> float:
        return self._updates.per_second

    @property
    def updater_wait_per_s(self) -> float:
        return self._updater_wait.per_second

    def worker_env_steps_per_s(self, worker: int) -> float:
        return self._env_steps[worker].per_second

    def worker_wait_per_s(self, worker: int) -> float:
        return self._waits[worker].per_second

    def worker_policy_lag(self, worker: int) -> float | None:
        """Mean lag of the worker's records of the last seconds; None if there were none."""
        lag_sum, learned = (rate.per_second for rate in self._lags[worker])
        return lag_sum / learned if learned else None

    def policy_lag(self) -> dict[str, Any]:
        """The range of the newest records' lags, and their distribution over the last minute."""
        row = self.updater
        before = self._lag_counts[0][1] if self._lag_counts else self._count_lags()
        counts = [now - then for now, then in zip(self._count_lags(), before, strict=True)]
        return {
            "min": row.count("lag_min"),
            "mean": row.value("lag_mean"),
            "max": row.count("lag_max"),
            "recent": [
                {"le": bound, "count": count}
                for bound, count in zip((*LAG_BUCKETS, None), counts, strict=True)
            ],
        }

    def lag_histogram(self) -> LagHistogram:
        """Cumulative buckets (upper bound, count) and the sum, as Prometheus has them."""
        buckets = []
        total = 0
        for i, bound in enumerate((*LAG_BUCKETS, math.inf)):
            total += self.updater.count(f"lag_bucket_{i}")
            buckets.append(("+Inf" if math.isinf(bound) else f"{bound:.1f}", float(total)))
        return buckets, self.updater.value("lag_sum")

    def dropped(self, worker: int) -> dict[str, int]:
        return {name: self._rings[worker].count(name) for name in DROP_REASONS}

    def close(self) -> None:
        for row in self._rows:
            row.close()
