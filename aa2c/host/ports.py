"""The ports over shared memory on one host: rings, a board or a shared model, counters, wake-ups."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from aa2c.config.config import Config
from aa2c.failpoint import failpoint
from aa2c.host.commands import Commands
from aa2c.host.journal import Journal
from aa2c.host.lock_step import LockStep
from aa2c.host.resting import Resting
from aa2c.host.set_aside import SetAside
from aa2c.host.settings import Settings
from aa2c.ports import Record, Report, WaitsFor
from aa2c.shared_model import Vector
from aa2c.shm.board import ParameterBoard
from aa2c.shm.counters import (
    Counters,
    count_lag,
    evaluator_row,
    ring_row,
    run_row,
    updater_row,
    worker_row,
)
from aa2c.shm.ring import DROP_REASONS, RingConsumer, RingProducer
from aa2c.shm.ring import Record as RingRecord
from aa2c.shm.segment import Segment
from aa2c.shm.shared_model import SharedModel
from aa2c.shm.slot import Arrays
from aa2c.shm.wakeup import RECHECK_S, Wakeup

Board = ParameterBoard | SharedModel


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
        run_dir: Path | None = None,
        title: str = "",
    ) -> None:
        self.counters = counters
        self.counters.set("waits_for", WaitsFor.NOTHING)
        self.run = run
        self.report = report
        self.config_now = Settings(config, run).now
        self.set_aside = SetAside(run_dir, title).keep
        self._board = board
        self._hear = hear

    def tick(self) -> None:
        self.counters.add("beats", 1)

    def beat(self) -> bool:
        self.tick()
        return self._hear()

    def wait(self) -> None:
        time.sleep(RECHECK_S)

    @contextlib.contextmanager
    def _waiting_for(self, what: WaitsFor) -> Iterator[None]:
        """Tell, while it waits, what for."""
        self.counters.set("waits_for", what)
        yield
        self.counters.set("waits_for", WaitsFor.NOTHING)

    def pull(self, out: Vector) -> int:
        version = self._board.pull(out)
        if version:
            return version
        with self._waiting_for(WaitsFor.PARAMETERS):
            while (version := self._board.pull(out)) == 0:
                if not self.beat():
                    return 0
                self.wait()
        return version

    def shared_model(self) -> SharedModel:
        assert isinstance(self._board, SharedModel)
        return self._board


class _PausingPort(_ShmPort):
    """A port of those who make env steps, and must rest at times (see `Resting`)."""

    resting: Resting

    def beat(self) -> bool:
        while super().beat():
            if not self.resting.is_due:
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
        resting: Resting,
        updater: Counters,
        space: Wakeup,
        records: Wakeup,
        hear: Callable[[], bool],
        report: Callable[..., None],
        run_dir: Path | None = None,
    ) -> None:
        worker, generation = ring.worker, ring.generation
        title = f"worker-{worker}-{generation}"
        super().__init__(
            config, board, counters, run, hear=hear, report=report, run_dir=run_dir, title=title
        )
        self.resting = resting
        self._journal = Journal(run_dir, f"produced-{worker}-{generation}")
        self._lock_step = LockStep(config, run_dir)
        self._updater = updater
        self._ring = ring
        self._space = space
        self._records = records

    def wait_for_turn(self, make_state: Callable[[], bytes]) -> bool:
        while self.resting.is_budget_used_up:
            if not self.beat():
                return False
            self._space.wait()
        if not self._lock_step.is_on:
            return True
        with self._waiting_for(WaitsFor.TURN):
            while not self._lock_step.has_turn(self._ring.worker, self.counters, self._updater):
                self._lock_step.keep_if_wanted(
                    self._ring.worker, self.counters, self._updater, make_state
                )
                if not self.beat():
                    return False
                self._space.wait()
        return True

    def reserve(self) -> Arrays | None:
        arrays = self._ring.reserve()
        if arrays is None:
            with self._waiting_for(WaitsFor.FREE_SLOT):
                arrays = self._wait_for_slot()
        failpoint("ring.before_payload")
        return arrays

    def _wait_for_slot(self) -> Arrays | None:
        arrays = None
        while arrays is None and self.beat():
            started = time.monotonic()
            self._space.wait()
            self.counters.add("wait_s", time.monotonic() - started)
            arrays = self._ring.reserve()
        return arrays

    def commit(self, policy_version: int, values: Mapping[str, float]) -> None:
        self._journal.add(self._ring.worker, self._ring.generation, self._ring.committed)
        if self._ring.commit(policy_version, values):
            self._records.post()
        self.counters.add("records", 1)

    def wait(self) -> None:
        self._space.wait()

    def lock_model(self) -> bool:
        started = time.monotonic()
        with self._waiting_for(WaitsFor.MODEL_LOCK):
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
        commands: Commands,
        report: Callable[..., None],
    ) -> None:
        row, run = evaluator_row(counters_segment), run_row(counters_segment)
        super().__init__(config, board, row, run, hear=commands.hear, report=report)
        self.resting = Resting(counters_segment)
        self.updater = updater_row(counters_segment)
        self._commands = commands

    @property
    def last_checkpoint(self) -> Path | None:
        return self._commands.last_checkpoint


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
        run_dir: Path | None = None,
        generation: int = 0,
    ) -> None:
        row, run = updater_row(counters_segment), run_row(counters_segment)
        title = f"updater-{generation}"
        super().__init__(
            config, board, row, run, hear=hear, report=report, run_dir=run_dir, title=title
        )
        self._journal = Journal(run_dir, f"taken-{generation}")
        self._lock_step = LockStep(config, run_dir)
        self._worker_rows = [worker_row(counters_segment, i) for i in range(config.workers)]
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
        self._ring_counters[ring.worker].add("lost", ring.dropped["lost"])

    def let_go(self, worker: int) -> None:
        """A worker has ended and comes back with a new ring or not at all."""
        self._leaving.add(worker)

    def take(self, most: int) -> Sequence[Record]:
        taken = self._take_waiting(most)
        if not taken:
            started = time.monotonic()
            with self._waiting_for(WaitsFor.RECORDS):
                self._records.wait()
            self.counters.add("wait_s", time.monotonic() - started)
            taken = self._take_waiting(most)
        return taken

    def _take_waiting(self, most: int) -> list[Record]:
        """One record of each ring in turn, continuing where the last call left off."""
        taken: list[Record] = []
        workers = sorted(self._rings)
        idle = 0
        while workers and idle < len(workers) and len(taken) < most:
            worker = workers[self._next_worker % len(workers)]
            record = self._take_from(worker)
            if record is None and self._lock_step.is_on:
                break
            self._next_worker += 1
            idle = 0 if record else idle + 1
            if record:
                self._journal.add(worker, record.header.generation, record.header.sequence)
                taken.append(record)
        return taken

    def _take_from(self, worker: int) -> Record | None:
        rings = self._rings.get(worker, deque())
        while len(rings) > (worker not in self._leaving) and rings[0].drained:
            retired = rings.popleft()
            retired.close()
            self.report(Report.RETIRED, worker=worker, generation=retired.generation)
        if not rings:
            self._rings.pop(worker, None)
            self._leaving.discard(worker)
            return None
        # An old ring of which all is taken may wait long for its release: until a batch is full.
        ring = next((ring for ring in rings if ring.has_more), rings[-1])
        before = ring.dropped.copy()
        record = ring.take()
        counters = self._ring_counters[worker]
        for reason in DROP_REASONS:
            if ring.dropped[reason] != before[reason]:
                counters.add(reason, ring.dropped[reason] - before[reason])
        return record

    def pass_turn(self, records: int) -> None:
        self._lock_step.pass_turn(records, self.counters)
        for space in self._spaces[: len(self._worker_rows)]:
            space.post()

    def worker_states(self) -> dict[int, bytes] | None:
        wanted = self.counters.count("states_wanted") + 1
        self.counters.set("states_wanted", wanted)
        for space in self._spaces[: len(self._worker_rows)]:
            space.post()
        with self._waiting_for(WaitsFor.WORKER_STATES):
            while any(row.count("states_kept") < wanted for row in self._worker_rows):
                if not self.beat():
                    return None
                self._records.wait()
        return self._lock_step.collect()

    def release(self, records: Sequence[Record]) -> None:
        for record in records:
            assert isinstance(record, RingRecord)
            if record.release():
                self._spaces[record.header.worker].post()

    def count_lag(self, worker: int, lag: int) -> None:
        count_lag(self.counters, lag)
        self._ring_counters[worker].add("lag_sum", lag)
        self._ring_counters[worker].add("learned", 1)

    def publish(self, vector: Vector, *, after: int = 0) -> int:
        version = self._board.publish(vector, after=after)
        self.counters.set("policy_version", version)
        return version
