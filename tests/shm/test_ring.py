"""The ring: order, back-pressure, fencing, damage."""

import pytest

from aa2c.shm.ring import RingMemory, ring_bytes
from aa2c.shm.segment import Segment
from aa2c.shm.slot import PAYLOAD_OFFSET, PREFIX_BYTES, Header
from tests.shm.rings import (
    CAPACITY,
    CONTROL,
    SLOT,
    drops,
    fill,
    open_ring,
    push,
    take_all,
    token_of,
)

HEAD, TAIL = 0, 16


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
    view = RingMemory(Segment.attach(segment.name), CAPACITY, SLOT)
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
        RingMemory(segment, 3 + CONTROL // SLOT, SLOT)
    with pytest.raises(ValueError, match="too small"):
        RingMemory(segment, 0, SLOT)
