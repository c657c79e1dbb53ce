"""Rings against a model of them, in micro-steps of both sides."""

import itertools
from collections import deque
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aa2c.shm.ring import RingProducer, ring_bytes
from aa2c.shm.segment import Segment, name_prefix
from aa2c.shm.slot import PAYLOAD_OFFSET, Header, write_header
from tests.shm.rings import (
    CAPACITY,
    SLOT,
    SPECS,
    drops,
    fill,
    open_consumer,
    open_ring,
    push,
    token_of,
)


@dataclass
class ModelRing:
    """What the machine below expects of one ring."""

    segment: Segment
    generation: int
    pending: deque = field(default_factory=deque)  # committed, not taken: token, None if fenced
    window: deque = field(default_factory=deque)  # taken: [token, released?], up to `tail`
    fenced: int = 0
    lost: int = 0  # taken by the consumer before this one, and not released

    @property
    def used(self):
        return len(self.pending) + len(self.window)

    def note_release(self, entry):
        entry[1] = True
        while self.window and self.window[0][1]:
            self.window.popleft()


class RingMachine(RuleBasedStateMachine):
    """Both sides in micro-steps. A dead producer is succeeded by one with a ring of its own, as
    in a run, and the consumer first empties the old one.
    """

    numbers = itertools.count()

    def __init__(self):
        super().__init__()
        self.tokens = itertools.count(1)
        self.generation = 0
        self.rings = []  # [model, consumer], oldest first
        self.held = []  # [model, entry, record]
        self.start_producer()

    def start_producer(self):
        self.generation += 1
        name = f"{name_prefix('testmachine')}{next(self.numbers)}"
        segment = Segment.create(name, ring_bytes(CAPACITY, SLOT))
        checked = self.generation % 2 == 0
        self.producer, consumer = open_ring(
            segment, generation=self.generation, payload_checksum=checked
        )
        self.ring = ModelRing(segment, self.generation)
        self.rings.append([self.ring, consumer])
        self.arrays = None

    @rule()
    def reserve(self):
        self.arrays = self.producer.reserve()
        assert (self.arrays is None) == (self.ring.used == CAPACITY)

    @precondition(lambda self: self.arrays is not None)
    @rule(name=st.sampled_from(["reward", "frame"]), count=st.integers(0, 6))
    def write_part_of_an_array(self, name, count):
        self.arrays[name].reshape(-1)[:count] = 77

    @precondition(lambda self: self.arrays is not None)
    @rule(stop=st.integers(0, PAYLOAD_OFFSET), payload_checksum=st.booleans())
    def write_header_up_to_a_byte(self, stop, payload_checksum):
        slot = self.producer.slots[self.producer.committed % CAPACITY]
        whole = memoryview(bytearray(slot))
        header = Header(1, self.generation, self.producer.committed, 77, {"token": 77})
        write_header(whole, header, SPECS, payload_checksum=payload_checksum)
        slot[:stop] = whole[:stop]

    @precondition(lambda self: self.arrays is not None)
    @rule()
    def write_header_without_moving_head(self):
        self.write_header_up_to_a_byte(PAYLOAD_OFFSET, True)

    @precondition(lambda self: self.arrays is not None)
    @rule()
    def commit(self):
        token = next(self.tokens)
        fill(self.arrays, token)
        self.producer.commit(token, {"token": token})
        self.ring.pending.append(token)
        self.arrays = None

    @precondition(lambda self: self.arrays is None and self.ring.used < CAPACITY)
    @rule(worker=st.sampled_from([1, 2]))
    def commit_as_a_zombie(self, worker):
        attached = Segment.attach(self.ring.segment.name)
        zombie = RingProducer(
            attached, CAPACITY, SLOT, SPECS, worker=worker, generation=self.generation - 1
        )
        assert push(zombie, 99)
        zombie.close()
        self.ring.pending.append(None)

    @precondition(lambda self: len(self.rings) < 4)
    @rule()
    def kill_producer(self):
        self.producer.close()
        self.start_producer()

    @rule()
    def take(self):
        model, consumer = self.rings[0]
        while len(self.rings) > 1 and consumer.drained:
            assert model.used == 0
            self.retire(model, consumer)
            del self.rings[0]
            model, consumer = self.rings[0]
        record = consumer.take()
        while model.pending and model.pending[0] is None:
            entry = [model.pending.popleft(), False]
            model.window.append(entry)
            model.note_release(entry)
            model.fenced += 1
        if not model.pending:
            assert record is None
            return
        entry = [model.pending.popleft(), False]
        model.window.append(entry)
        assert token_of(record) == entry[0]
        assert record.header.generation == model.generation
        self.held.append((model, entry, record))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data):
        model, entry, record = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        assert token_of(record) == entry[0]  # nobody wrote to it while it was held
        record.release()
        model.note_release(entry)

    @rule()
    def kill_consumer(self):
        self.held.clear()
        for pair in self.rings:
            model, consumer = pair
            consumer.close()
            pair[1] = open_consumer(model.segment, generation=model.generation)
            model.lost = len(model.window)
            model.window.clear()
            model.fenced = 0

    @invariant()
    def usage_is_that_of_the_model(self):
        assert self.producer.used == self.ring.used <= CAPACITY

    @invariant()
    def only_the_fenced_and_the_lost_are_dropped(self):
        for model, consumer in self.rings:
            assert consumer.used == model.used
            assert consumer.drained == (model.used == 0)
            assert consumer.dropped == drops(fenced=model.fenced, lost=model.lost)

    def retire(self, model, consumer):
        consumer.close()
        model.segment.close()
        model.segment.unlink()

    def teardown(self):
        self.held.clear()
        self.producer.close()
        for model, consumer in self.rings:
            self.retire(model, consumer)


TestRingMachine = RingMachine.TestCase

TestRingMachine.settings = settings(max_examples=80, stateful_step_count=50)
