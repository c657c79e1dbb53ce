"""The ring: order, back-pressure, fencing, and a producer that dies at any instruction."""

import itertools
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aa2c.shm.ring import DROP_REASONS, RingConsumer, RingProducer, RingView, ring_bytes
from aa2c.shm.segment import Segment, name_prefix
from aa2c.shm.slot import (
    PAYLOAD_OFFSET,
    PREFIX_BYTES,
    ArraySpec,
    Header,
    slot_bytes,
    write_header,
)
from tests.shm.killing import kill_at

SPECS = (ArraySpec("reward", "<f4", (3, 2)), ArraySpec("frame", "|u1", (5,)))
SLOT = slot_bytes(SPECS)
CONTROL = ring_bytes(1, SLOT) - SLOT
CAPACITY = 4
HEAD, TAIL = 0, 16


def open_ring(segment, *, worker=1, generation=1, payload_checksum=False):
    producer = RingProducer(
        Segment.attach(segment.name),
        CAPACITY,
        SLOT,
        SPECS,
        worker=worker,
        generation=generation,
        payload_checksum=payload_checksum,
    )
    return producer, open_consumer(segment, worker=worker, generation=generation)


def open_consumer(segment, *, worker=1, generation=1):
    attached = Segment.attach(segment.name)
    return RingConsumer(attached, CAPACITY, SLOT, worker=worker, generation=generation)


def fill(arrays, token):
    arrays["reward"][:] = token
    arrays["frame"][:] = token % 251


def push(producer, token):
    """Send a record that says `token` in each of its parts; False while the ring is full."""
    arrays = producer.reserve()
    if arrays is None:
        return False
    fill(arrays, token)
    producer.commit(token, {"token": token})
    return True


def token_of(record):
    """The token, after checking that each part of the record says the same."""
    token = record.header.policy_version
    assert dict(record.header.values) == {"token": token}
    assert list(record.arrays) == ["reward", "frame"]
    assert record.arrays["reward"].shape == (3, 2)
    assert record.arrays["reward"].dtype == np.float32
    assert (record.arrays["reward"] == token).all()
    assert (record.arrays["frame"] == token % 251).all()
    return token


def take_all(consumer, tokens=None):
    """Tokens of all that waits, released at once; into `tokens` as they come."""
    tokens = [] if tokens is None else tokens
    while (record := consumer.take()) is not None:
        tokens.append(token_of(record))
        record.release()
    return tokens


@pytest.fixture
def segment(make_segment):
    return make_segment(ring_bytes(CAPACITY, SLOT))


@pytest.fixture
def ring(segment):
    """Producer and consumer, each with a mapping of its own as in two processes."""
    producer, consumer = open_ring(segment)
    yield producer, consumer
    producer.close()
    consumer.close()


def drops(**counts):
    return {**dict.fromkeys(DROP_REASONS, 0), **counts}


def test_records_come_out_in_the_order_they_were_committed(ring):
    producer, consumer = ring
    tokens = []
    for token in range(3 * CAPACITY + 1):
        assert push(producer, token)
        if token % CAPACITY == 2:
            tokens += take_all(consumer)
    assert tokens + take_all(consumer) == list(range(3 * CAPACITY + 1))
    assert consumer.dropped == drops()


def test_header_says_who_sent_the_record_and_when(ring):
    producer, consumer = ring
    push(producer, 7)
    header = consumer.take().header
    assert header == Header(1, 1, 0, 7, {"token": 7})


def test_reserve_is_refused_exactly_while_the_ring_is_full(ring, segment):
    producer, consumer = ring
    view = RingView(Segment.attach(segment.name), CAPACITY, SLOT)
    for token in range(CAPACITY):
        assert view.used == token
        assert push(producer, token)
    assert not push(producer, 99)
    record = consumer.take()
    assert not push(producer, 99)  # taken is not released: the arrays are still read
    record.release()
    assert push(producer, CAPACITY)
    assert (view.used, view.committed) == (CAPACITY, CAPACITY + 1)
    view.close()


def test_a_slot_is_reused_only_when_all_before_it_are_released(ring):
    producer, consumer = ring
    for token in range(CAPACITY):
        push(producer, token)
    records = [consumer.take() for _ in range(CAPACITY)]
    for record in records[:0:-1]:
        record.release()
        assert producer.reserve() is None
    assert token_of(records[0]) == 0
    records[0].release()
    assert producer.used == 0
    assert consumer.drained


def test_a_record_released_twice_frees_one_slot(ring):
    producer, consumer = ring
    push(producer, 0)
    record = consumer.take()
    record.release()
    record.release()
    assert producer.used == 0
    for token in range(CAPACITY):
        assert push(producer, token)
    assert not push(producer, 99)
    assert take_all(consumer) == list(range(CAPACITY))


def test_reserve_without_commit_gives_the_same_slot_again(ring):
    producer, consumer = ring
    fill(producer.reserve(), 5)
    assert push(producer, 6)
    assert take_all(consumer) == [6]


def test_consumers_arrays_are_read_only(ring):
    producer, consumer = ring
    push(producer, 1)
    for array in consumer.take().arrays.values():
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_arrays_are_aligned_for_vector_instructions(ring):
    producer, consumer = ring
    push(producer, 1)
    for arrays in (producer.reserve(), consumer.take().arrays):
        assert all(array.ctypes.data % 64 == 0 for array in arrays.values())


@pytest.mark.parametrize("who", [{"generation": 2}, {"generation": 0}, {"worker": 2}])
def test_a_record_of_another_generation_or_worker_is_fenced(segment, ring, who):
    producer, consumer = ring
    zombie, its_consumer = open_ring(segment, **who)
    assert push(zombie, 1)
    assert push(producer, 2)
    assert take_all(consumer) == [2]
    assert consumer.dropped == drops(fenced=1)
    assert producer.used == 0
    zombie.close()
    its_consumer.close()


def test_a_flipped_header_byte_is_a_checksum_drop(segment, ring):
    producer, consumer = ring
    push(producer, 0)
    header_bytes = segment.buf[CONTROL : CONTROL + PREFIX_BYTES].cast("Q")[1]
    for position in range(header_bytes):
        push(producer, 1)
        index = producer.committed - 1
        segment.buf[CONTROL + index % CAPACITY * SLOT + PREFIX_BYTES + position] ^= 0x10
        push(producer, 2)
        assert take_all(consumer) == ([0, 2] if position == 0 else [2])
        assert consumer.dropped == drops(checksum=position + 1)
    assert producer.used == 0


def test_a_flipped_payload_byte_is_a_checksum_drop_where_payloads_are_checked(segment):
    producer, consumer = open_ring(segment, payload_checksum=True)
    payload_bytes = SLOT - PAYLOAD_OFFSET
    for position in range(payload_bytes):
        push(producer, 1)
        index = producer.committed - 1
        segment.buf[CONTROL + index % CAPACITY * SLOT + PAYLOAD_OFFSET + position] ^= 1
        push(producer, 2)
        assert take_all(consumer) == [2]
        assert consumer.dropped == drops(checksum=position + 1)
    producer.close()
    consumer.close()


@pytest.mark.parametrize("head", [CAPACITY + 3, 2**40, 2**64 - 1, 0])
def test_an_impossible_head_is_counted_and_the_ring_goes_on(segment, ring, head):
    producer, consumer = ring
    for token in range(2):
        push(producer, token)
    assert take_all(consumer) == [0, 1]
    words = segment.buf[:CONTROL].cast("Q")
    words[HEAD] = head
    assert consumer.take() is None
    assert consumer.dropped == drops(invalid=1)
    assert consumer.take() is None
    assert consumer.dropped == drops(invalid=1)
    assert consumer.drained
    if head < 2**63:  # beyond, no sequence number is left to give
        assert push(producer, 2)
        assert take_all(consumer) == [2]
    words.release()


@pytest.mark.parametrize("start", [2**32 - 2, 2**53 - 1, 2**62])
def test_counters_pass_every_width_without_a_wrap(segment, start):
    words = segment.buf[:CONTROL].cast("Q")
    words[HEAD] = words[TAIL] = start
    words.release()
    producer, consumer = open_ring(segment)
    for token in range(3 * CAPACITY):
        assert push(producer, token)
        if token % 2:
            assert take_all(consumer) == [token - 1, token]
    assert producer.committed == start + 3 * CAPACITY
    assert consumer.dropped == drops()
    producer.close()
    consumer.close()


def test_a_segment_too_small_for_the_ring_is_refused(make_segment):
    segment = make_segment(ring_bytes(2, SLOT))
    with pytest.raises(ValueError, match="too small"):
        RingView(segment, 3 + CONTROL // SLOT, SLOT)
    with pytest.raises(ValueError, match="too small"):
        RingView(segment, 0, SLOT)


@pytest.mark.parametrize("payload_checksum", [False, True])
def test_a_producer_killed_at_any_instruction_leaves_a_whole_record_or_none(
    segment, payload_checksum
):
    outcomes = []
    for instruction in itertools.count():
        segment.buf[:] = bytes(len(segment.buf))
        producer, consumer = open_ring(segment, payload_checksum=payload_checksum)
        push(producer, 1)
        killed = kill_at(instruction, lambda producer=producer: push(producer, 2))
        tokens = take_all(consumer)
        assert consumer.dropped == drops()
        assert consumer.drained
        producer.close()
        consumer.close()
        outcomes.append(tokens)
        if not killed:
            break
    assert len(outcomes) > 100
    assert outcomes == sorted(outcomes)  # invisible up to one instruction, visible from it on
    assert outcomes[0] == [1]
    assert outcomes[-1] == [1, 2]


def test_what_a_consumer_killed_at_any_instruction_had_taken_is_lost_and_never_taken_twice(segment):
    most_lost = 0
    for instruction in itertools.count():
        segment.buf[:] = bytes(len(segment.buf))
        producer, consumer = open_ring(segment)
        push(producer, 1)
        push(producer, 2)
        before = []
        killed = kill_at(instruction, lambda it=consumer, tokens=before: take_all(it, tokens))
        successor = open_consumer(segment)
        lost = successor.dropped["lost"]
        tokens = take_all(successor)
        assert not set(before) & set(tokens)
        assert tokens == [1, 2][2 - len(tokens) :]
        assert lost <= 2 - len(tokens) <= len(before) + 1
        assert push(producer, 3)
        assert take_all(successor) == [3]
        assert successor.dropped == drops(lost=lost)
        most_lost = max(most_lost, lost)
        for side in (producer, consumer, successor):
            side.close()
        if not killed:
            break
    assert instruction > 100
    assert most_lost == 1


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
TestRingMachine.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
