"""The records on their way into an update: taken, checked, kept until there are enough, given back."""

from __future__ import annotations

from collections.abc import Sequence

from aa2c.config.config import Config
from aa2c.modes.mode import Consumer
from aa2c.ports import Record, Report, UpdaterPort
from aa2c.roles.guard import Guard


class Intake:
    """Takes records, and gives them out in the batches that the mode learns from.

    In lock-step a batch is a round: one record of each worker, or as many as an update needs.
    """

    def __init__(self, config: Config, consumer: Consumer, port: UpdaterPort, guard: Guard) -> None:
        self._config = config
        self._consumer = consumer
        self._port = port
        self._guard = guard
        self._pending: list[Record] = []
        wanted = consumer.records_per_update
        self._round = max(wanted, config.workers) if config.deterministic else 0  # in records
        self._taken = self._untold = 0
        self._undone = -1

    def take(self) -> bool:
        """Take what waits; False if nothing did."""
        taken = self._port.take(self._config.workers * self._config.ring_slots)
        self._taken += len(taken)
        self._untold += len(taken)
        for record in taken:
            self._admit(record)
        return bool(taken)

    def next_batch(self) -> Sequence[Record]:
        """What is to be learned from now, if there is enough; it is to be released afterwards."""
        self._drop_stale()
        count = len(self._pending)
        if not self._round and self._consumer.records_per_update:
            count = self._consumer.records_per_update
        if count > len(self._pending) or (self._round and self._taken % self._round):
            return ()
        batch, self._pending = self._pending[:count], self._pending[count:]
        return batch

    def drop_pending(self) -> None:
        """Give back all that waits, unlearned."""
        self._discard(self._pending)
        self._pending = []

    def undo(self, version: int) -> None:
        """Learn from no record of this policy version or an older one any more, wherever it is by now."""
        self._undone = version
        self.drop_pending()

    def _discard(self, records: Sequence[Record]) -> None:
        """Give back unlearned, and count."""
        self._port.counters.add("discarded", len(records))
        self._port.release(records)

    @property
    def is_between_rounds(self) -> bool:
        """Without lock-step always; else while all workers wait for their turn."""
        return not self._round or (bool(self._untold) and not self._taken % self._round)

    def pass_turn(self) -> None:
        """In lock-step: let the workers begin their next records, unless the budget is used up."""
        is_done = self._port.counters.count("env_steps") >= self._config.total_env_steps
        if self._untold and not is_done:
            self._port.pass_turn(self._untold)
            self._untold = 0

    def _admit(self, record: Record) -> None:
        """Keep what can be learned from; the rest is counted, set aside and given back."""
        if record.header.policy_version <= self._undone:
            self._discard([record])
            return
        if self._consumer.accepts(record):
            self._guard.succeeded("record")
            self._pending.append(record)
            return
        if not self._port.counters.count("rejected"):
            self._port.report(Report.REJECTED, worker=record.header.worker)
        self._port.counters.add("rejected", 1)
        if record.arrays:
            self._port.set_aside(record.arrays, record.header.values)
        self._port.release([record])
        self._guard.failed("record")

    def _drop_stale(self) -> None:
        """Count and give back what lags too far by now, though it may not have when it was taken."""
        if not self._config.max_policy_lag:
            return
        counters = self._port.counters
        oldest = counters.count("policy_version") - self._config.max_policy_lag
        stale = [record for record in self._pending if record.header.policy_version < oldest]
        self._pending = [
            record for record in self._pending if record.header.policy_version >= oldest
        ]
        counters.add("stale", len(stale))
        self._port.release(stale)
