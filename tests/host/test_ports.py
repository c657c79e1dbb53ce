"""The updater's port on real rings: what a dead worker had sent, and when its ring is retired."""

from __future__ import annotations

import pytest

from aa2c.config.config import Config
from aa2c.host.ports import ShmUpdaterPort
from aa2c.shm.counters import ring_row, table_bytes
from aa2c.shm.ring import RingConsumer, RingProducer, ring_bytes
from aa2c.shm.segment import Segment
from aa2c.shm.slot import ArraySpec, slot_bytes
from aa2c.shm.wakeup import Wakeup

SPECS = (ArraySpec("reward", "<f4", (3,)),)
SLOT = slot_bytes(SPECS)
CAPACITY = 4
WORKERS = 2


class Rings:
    """An updater's port, and workers whose every incarnation has a ring of its own."""

    def __init__(self, make_segment):
        self._make_segment = make_segment
        self._producers = {}
        self._consumers = []
        self.reports = []
        self._wakeups = [Wakeup() for _ in range(WORKERS + 1)]
        self.counters = make_segment(table_bytes(WORKERS))
        self.port = ShmUpdaterPort(
            Config(mode="traj", workers=WORKERS, ring_slots=CAPACITY),
            None,
            self.counters,
            spaces=self._wakeups[1:],
            records=self._wakeups[0],
            hear=lambda: True,
            report=lambda kind, **fields: self.reports.append((kind, fields)),
        )

    def start(self, worker, generation):
        segment = self._make_segment(ring_bytes(CAPACITY, SLOT))
        whose = {"worker": worker, "generation": generation}
        self._producers[worker, generation] = RingProducer(
            Segment.attach(segment.name), CAPACITY, SLOT, SPECS, **whose
        )
        self._consumers.append(RingConsumer(Segment.attach(segment.name), CAPACITY, SLOT, **whose))
        self.port.attach_ring(self._consumers[-1])

    def send(self, worker, generation, *tokens):
        producer = self._producers[worker, generation]
        for token in tokens:
            producer.reserve()["reward"][:] = token
            producer.commit(token, {})

    def die(self, worker, generation):
        self._producers.pop((worker, generation)).close()

    def retired(self):
        return [(m["worker"], m["generation"]) for kind, m in self.reports if kind == "retired"]

    def close(self):
        for producer in self._producers.values():
            producer.close()
        for consumer in self._consumers:
            if (consumer.worker, consumer.generation) not in self.retired():
                consumer.close()
        for wakeup in self._wakeups:
            wakeup.close()


@pytest.fixture
def rings(make_segment):
    rings = Rings(make_segment)
    yield rings
    rings.close()


def tokens(records):
    """What each says, after a look at all of its array."""
    for record in records:
        assert (record.arrays["reward"] == record.header.policy_version).all()
    return [record.header.policy_version for record in records]


def test_what_a_dead_worker_had_committed_is_taken_before_its_successors_and_its_ring_is_retired_then(
    rings,
):
    rings.start(0, 0)
    rings.send(0, 0, 10, 11, 12)
    rings.die(0, 0)
    rings.start(0, 1)
    rings.send(0, 1, 20, 21)
    taken = rings.port.take(100)
    assert rings.retired() == [], "its records are still being learned from"
    assert tokens(taken) == [10, 11, 12, 20, 21]
    rings.port.release(taken[:2])
    assert rings.port.take(100) == []
    assert rings.retired() == []
    assert tokens(taken[2:]) == [12, 20, 21]
    rings.port.release(taken[2:])
    rings.port.take(100)
    assert rings.retired() == [(0, 0)]
    assert ring_row(rings.counters, 0).count("lost") == 0


def test_a_record_of_a_dead_worker_that_waits_for_its_batch_does_not_keep_the_next_from_being_heard(
    rings,
):
    """The batch is not whole until the new ring is read, and the old is not empty until it is."""
    rings.start(0, 0)
    rings.send(0, 0, 10)
    waiting = rings.port.take(100)
    rings.die(0, 0)
    rings.start(0, 1)
    rings.send(0, 1, 20)
    assert tokens(rings.port.take(100)) == [20]
    assert tokens(waiting) == [10]


def test_a_worker_that_was_let_go_is_emptied_and_its_last_ring_retired_once(rings):
    rings.start(1, 3)
    rings.send(1, 3, 30, 31)
    rings.die(1, 3)
    rings.port.let_go(1)
    taken = rings.port.take(100)
    assert rings.retired() == []
    assert tokens(taken) == [30, 31]
    rings.port.release(taken)
    rings.port.take(100)
    rings.port.take(100)
    assert rings.retired() == [(1, 3)]


def test_workers_take_turns_whoever_has_sent_most(rings):
    rings.start(0, 0)
    rings.start(1, 0)
    rings.send(0, 0, 1, 2, 3, 4)
    rings.send(1, 0, 50, 51)
    assert tokens(rings.port.take(4)) == [1, 50, 2, 51]
    assert tokens(rings.port.take(4)) == [3, 4]
