"""The ports: all that worker and updater know of the world outside their process.

`WorkerPort` and `UpdaterPort` are the seam at which another engine can take the place of shared
memory on one host: a record is a header and named contiguous arrays, parameters are one flat
vector, and nothing that passes is a torch object. The `Shm…` classes are today's engine.
Mode model, whose workers share one network in memory, is of one host by its nature: it asks its
port for the shared model, which only this engine has.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aa2c.config import Config
from aa2c.ipc.counters import Counters, evaluator_row, ring_row, run_row, updater_row
from aa2c.ipc.params import ParameterBoard
from aa2c.ipc.ring import DROP_REASONS, Record, RingConsumer, RingProducer
from aa2c.ipc.settings import Settings
from aa2c.ipc.shared_model import SharedModel
from aa2c.ipc.shm import Segment
from aa2c.ipc.slot import Arrays
from aa2c.ipc.wakeup import RECHECK_S, Wakeup

Vector = NDArray[np.float32]
Board = ParameterBoard | SharedModel


class WorkerPort(Protocol):
    """A worker's port. `run` is what the orchestrator tells of the run."""

    counters: Counters
    run: Counters

    def config_now(self) -> Config:
        """The configuration as it is now: some options may be changed while the run goes on."""

    def beat(self) -> bool:
        """Show a sign of life and hear commands; False once the worker is to stop.

        Returns only when the run is not paused.
        """

    def reserve(self) -> Arrays | None:
        """Arrays to fill; waits while the ring is full. None once the worker is to stop."""

    def commit(self, policy_version: int, values: Mapping[str, float]) -> None:
        """Send the reserved arrays, with the policy version that acted and the mode's values."""

    def pull(self, out: Vector) -> int:
        """Newest parameters into `out`; waits for some. Their version, 0 once it is to stop."""

    def shared_model(self) -> SharedModel:
        """The shared model of mode model."""

    def lock_model(self) -> bool:
        """Wait for the right to step the shared model; False once the worker is to stop."""

    def report(self, kind: str, **fields: Any) -> None:
        """Send a small message to the orchestrator."""


class UpdaterPort(Protocol):
    """The updater's port. `run` is what the orchestrator tells of the run."""

    counters: Counters
    run: Counters

    def config_now(self) -> Config:
        """The configuration as it is now: some options may be changed while the run goes on."""

    def beat(self) -> bool:
        """Show a sign of life and hear commands; False once the updater is to stop."""

    def take(self, most: int) -> Sequence[Record]:
        """Up to `most` records in the order of arrival; waits a moment for the first."""

    def release(self, records: Sequence[Record]) -> None:
        """Give the records' memory back; their arrays must not be used any more."""

    def publish(self, vector: Vector, *, after: int = 0) -> int:
        """Make parameters the newest; returns their policy version, which is above `after`."""

    def shared_model(self) -> SharedModel:
        """The shared model of mode model."""

    def report(self, kind: str, **fields: Any) -> None:
        """Send a small message to the orchestrator."""


class EvaluatorPort(Protocol):
    """The evaluator's port. `updater` are the updater's counters, to be read."""

    counters: Counters
    updater: Counters

    def config_now(self) -> Config:
        """The configuration as it is now: some options may be changed while the run goes on."""

    def beat(self) -> bool:
        """Show a sign of life and hear commands; False once the evaluator is to stop.

        Returns only when the run is not paused.
        """

    def wait(self) -> None:
        """Let a moment pass."""

    def pull(self, out: Vector) -> int:
        """Newest parameters into `out`; waits for some. Their version, 0 once it is to stop."""

    def report(self, kind: str, **fields: Any) -> None:
        """Send a small message to the orchestrator."""


class _ShmPort:
    """What the ports over shared memory have in common: signs of life, words, and the board.

    `counters` is its process's row, and `run` the orchestrator's.
    """

    def __init__(
        self,
        config: Config,
        board: Board,
        counters: Counters,
        run: Counters,
        *,
        hear: Callable[[], bool],
        report: Callable[..., None],
    ) -> None:
        self.counters = counters
        self.run = run
        self.report = report
        self.config_now = Settings(config, run).now
        self._board = board
        self._hear = hear

    def beat(self) -> bool:
        self.counters.add("beats", 1)
        return self._hear()

    def wait(self) -> None:
        time.sleep(RECHECK_S)

    def pull(self, out: Vector) -> int:
        while (version := self._board.pull(out)) == 0:
            if not self.beat():
                return 0
            self.wait()
        return version

    def shared_model(self) -> SharedModel:
        assert isinstance(self._board, SharedModel)
        return self._board


class _PausingPort(_ShmPort):
    """A port of those who rest while the run is paused."""

    def beat(self) -> bool:
        while super().beat():
            if not self.run.count("is_paused"):
                return True
            self.wait()
        return False


class ShmWorkerPort(_PausingPort):
    """A worker's port over shared memory."""

    def __init__(
        self,
        config: Config,
        ring: RingProducer,
        board: Board,
        counters: Counters,
        run: Counters,
        *,
        space: Wakeup,
        records: Wakeup,
        hear: Callable[[], bool],
        report: Callable[..., None],
    ) -> None:
        super().__init__(config, board, counters, run, hear=hear, report=report)
        self._ring = ring
        self._space = space
        self._records = records

    def reserve(self) -> Arrays | None:
        arrays = self._ring.reserve()
        while arrays is None:
            if not self.beat():
                return None
            started = time.monotonic()
            self._space.wait()
            self.counters.add("wait_s", time.monotonic() - started)
            arrays = self._ring.reserve()
        return arrays

    def commit(self, policy_version: int, values: Mapping[str, float]) -> None:
        if self._ring.commit(policy_version, values):
            self._records.post()
        self.counters.add("records", 1)

    def wait(self) -> None:
        self._space.wait()

    def lock_model(self) -> bool:
        started = time.monotonic()
        for is_mine in self.shared_model().lock_attempts():
            if not is_mine and not self.beat():
                return False
        self.counters.add("wait_s", time.monotonic() - started)
        return True


class ShmEvaluatorPort(_PausingPort):
    """The evaluator's port over shared memory."""

    def __init__(
        self,
        config: Config,
        board: Board,
        counters_segment: Segment,
        *,
        hear: Callable[[], bool],
        report: Callable[..., None],
    ) -> None:
        row, run = evaluator_row(counters_segment), run_row(counters_segment)
        super().__init__(config, board, row, run, hear=hear, report=report)
        self.updater = updater_row(counters_segment)


class ShmUpdaterPort(_ShmPort):
    """The updater's port over shared memory: one ring for each living worker incarnation.

    A restarted worker brings a new ring. The old one is emptied first, so that what its dead
    producer had committed still counts, and is then reported as retired.
    """

    def __init__(
        self,
        config: Config,
        board: Board,
        counters_segment: Segment,
        *,
        spaces: Sequence[Wakeup],
        records: Wakeup,
        hear: Callable[[], bool],
        report: Callable[..., None],
    ) -> None:
        row, run = updater_row(counters_segment), run_row(counters_segment)
        super().__init__(config, board, row, run, hear=hear, report=report)
        self._counters_segment = counters_segment
        self._rings: dict[int, deque[RingConsumer]] = {}
        self._ring_counters: dict[int, Counters] = {}
        self._leaving: set[int] = set()
        self._spaces = spaces
        self._records = records
        self._next_worker = 0

    def attach_ring(self, ring: RingConsumer) -> None:
        """Take from this ring too, after what its worker's earlier rings still hold."""
        self._leaving.discard(ring.worker)
        self._rings.setdefault(ring.worker, deque()).append(ring)
        if ring.worker not in self._ring_counters:
            self._ring_counters[ring.worker] = ring_row(self._counters_segment, ring.worker)

    def let_go(self, worker: int) -> None:
        """A worker has ended and comes back with a new ring or not at all."""
        self._leaving.add(worker)

    def take(self, most: int) -> Sequence[Record]:
        taken = self._take_waiting(most)
        if not taken:
            started = time.monotonic()
            self._records.wait()
            self.counters.add("wait_s", time.monotonic() - started)
            taken = self._take_waiting(most)
        return taken

    def _take_waiting(self, most: int) -> list[Record]:
        """One record of each ring in turn, going on where the last call left off."""
        taken: list[Record] = []
        workers = sorted(self._rings)
        idle = 0
        while workers and idle < len(workers) and len(taken) < most:
            worker = workers[self._next_worker % len(workers)]
            self._next_worker += 1
            record = self._take_from(worker)
            idle = 0 if record else idle + 1
            if record:
                taken.append(record)
        return taken

    def _take_from(self, worker: int) -> Record | None:
        rings = self._rings.get(worker, deque())
        while len(rings) > (worker not in self._leaving) and rings[0].drained:
            retired = rings.popleft()
            retired.close()
            self.report("retired", worker=worker, generation=retired.generation)
        if not rings:
            self._rings.pop(worker, None)
            self._leaving.discard(worker)
            return None
        ring = rings[0]
        before = ring.dropped.copy()
        record = ring.take()
        counters = self._ring_counters[worker]
        for reason in DROP_REASONS:
            if ring.dropped[reason] != before[reason]:
                counters.add(reason, ring.dropped[reason] - before[reason])
        return record

    def release(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.release():
                self._spaces[record.header.worker].post()

    def publish(self, vector: Vector, *, after: int = 0) -> int:
        version = self._board.publish(vector, after=after)
        self.counters.set("policy_version", version)
        return version
