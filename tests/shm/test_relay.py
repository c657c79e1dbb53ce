"""A ring over two machines: whatever is lost or repeated on the way, nothing is taken twice or early."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aa2c.shm.relay import OutOfOrder, RingMirror, RingSource
from aa2c.shm.ring import ring_bytes
from aa2c.shm.segment import Segment
from tests.shm.rings import CAPACITY, SLOT, open_ring, push, token_of

STEPS = st.lists(st.sampled_from(["push", "carry", "take", "release", "acknowledge"]), max_size=80)


@pytest.fixture
def rings(make_segment):
    """Producer and source at the worker's end, mirror and consumer at the updater's."""
    here, there = (make_segment(ring_bytes(CAPACITY, SLOT)) for _ in range(2))
    producer, unused = open_ring(here)
    mirror_producer, consumer = open_ring(there)
    source = RingSource(Segment.attach(here.name), CAPACITY, SLOT)
    mirror = RingMirror(Segment.attach(there.name), CAPACITY, SLOT)
    yield producer, source, mirror, consumer
    for ring in (producer, unused, mirror_producer, consumer, source, mirror):
        ring.close()


def empty(rings):
    for ring in rings:
        ring.words[:] = memoryview(bytes(ring.words.nbytes)).cast("Q")
    rings[3]._taken = 0
    rings[3]._released.clear()


class Walk:
    """A ring over two machines, and what has happened to its records."""

    def __init__(self, rings):
        empty(rings)
        self.producer, self.source, self.mirror, self.consumer = rings
        self.pushed, self.taken, self.held, self.on_the_way = 0, [], [], []

    def push(self):
        was_full = self.pushed - self.source.released >= CAPACITY
        assert push(self.producer, self.pushed) != was_full
        self.pushed += not was_full

    def carry(self):
        if (found := self.source.next_slot()) is not None:
            self.on_the_way.append((found[0], bytes(found[1])))
        if self.on_the_way:
            sequence, data = self.on_the_way.pop(0)
            self.mirror.put(sequence, memoryview(data))

    def take(self):
        if (record := self.consumer.take()) is not None:
            self.taken.append(token_of(record))
            self.held.append(record)

    def release(self):
        if self.held:
            self.held.pop().release()  # in any order

    def acknowledge(self):
        self.source.release_to(self.mirror.released)


def test_what_is_pushed_here_is_taken_there_in_order_and_never_outruns_its_credit(rings):
    @settings(max_examples=150)
    @given(steps=STEPS)
    def holds(steps):
        walk = Walk(rings)
        for step in steps:
            getattr(walk, step)()
            assert walk.pushed - walk.source.released <= CAPACITY
            assert walk.taken == list(range(len(walk.taken)))
            assert walk.source.released <= walk.mirror.released <= len(walk.taken) <= walk.pushed
        assert walk.consumer.dropped == dict.fromkeys(walk.consumer.dropped, 0)

    holds()


def test_a_gap_a_repeat_and_another_size_are_refused_and_change_nothing(rings):
    producer, source, mirror, consumer = rings
    push(producer, 0)
    push(producer, 1)
    first, second = source.next_slot(), source.next_slot()
    with pytest.raises(OutOfOrder, match="record 1 came after 0"):
        mirror.put(*second)
    with pytest.raises(OutOfOrder, match="bytes for a slot"):
        mirror.put(0, first[1][:-1])
    assert mirror.put(*first)
    with pytest.raises(OutOfOrder, match="record 0 came after 1"):
        mirror.put(*first)
    assert token_of(consumer.take()) == 0
    assert consumer.take() is None


def test_more_than_a_mirror_has_room_for_is_refused(rings):
    _, _, mirror, consumer = rings
    for sequence in range(CAPACITY):
        mirror.put(sequence, memoryview(bytes(SLOT)))
    with pytest.raises(OutOfOrder, match="of which 0 are released"):
        mirror.put(CAPACITY, memoryview(bytes(SLOT)))
    assert consumer.take() is None
    assert sum(consumer.dropped.values()) == CAPACITY, "empty slots are no records"


@pytest.mark.parametrize("tail", [2, 3, 2**63])
def test_a_release_of_what_was_not_handed_out_is_refused(rings, tail):
    producer, source, _, _ = rings
    push(producer, 0)
    push(producer, 1)
    source.next_slot()
    with pytest.raises(OutOfOrder, match="release to"):
        source.release_to(tail)
    assert not source.release_to(1)
    with pytest.raises(OutOfOrder, match="release to 0"):
        source.release_to(0)


def test_a_worker_is_woken_only_if_it_may_wait(rings):
    producer, source, _, _ = rings
    for token in range(CAPACITY):
        push(producer, token)
        source.next_slot()
    assert source.release_to(1)
    assert not source.release_to(2)
