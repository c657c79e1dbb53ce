"""A ring of hostile bytes: every slot is a record or one counted drop."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aa2c.shm.ring import RingConsumer, ring_bytes
from aa2c.shm.slot import PAYLOAD_OFFSET
from tests.shm.hostile import (
    SLOT,
    fuzzed,
    header_with_shape,
    headers,
    pack_with_claim,
    slot_with_header,
    slots,
    words,
)


@pytest.fixture
def feed(make_segment):
    """Put bytes into a new record of a ring and take it: the record and the drops it led to."""
    segment = make_segment(ring_bytes(2, SLOT))
    consumer = RingConsumer(segment, 2, SLOT, worker=1, generation=1)

    def feed(data):
        index = consumer.committed
        consumer.slots[index % 2][:] = data
        consumer.words[0] = index + 1
        before = sum(consumer.dropped.values())
        record = consumer.take()
        if record:
            record.release()
        assert consumer.drained
        return record, sum(consumer.dropped.values()) - before

    yield feed
    consumer.close()


def test_a_ring_counts_each_slot_of_arbitrary_bytes_as_one_drop(feed):
    @fuzzed
    @given(data=slots)
    def check(data):
        record, drops = feed(data)
        assert (record is None) == (drops == 1)

    check()


def test_a_ring_counts_each_refused_header_as_one_drop(feed):
    @fuzzed
    @given(header=headers)
    @example(header=header_with_shape([0, 2**39, 2**39]))
    def check(header):
        packed, payload_bytes = pack_with_claim(header)
        fits = min(payload_bytes, SLOT - PAYLOAD_OFFSET)
        record, drops = feed(slot_with_header(packed, payload_bytes=fits))
        assert (record is None) == (drops == 1)

    check()


@pytest.mark.parametrize("payload_bytes", [0, 64, 192, SLOT - PAYLOAD_OFFSET])
def test_a_ring_counts_a_slot_whose_length_and_shapes_disagree_as_invalid(feed, payload_bytes):
    packed, claimed = pack_with_claim(header_with_shape([16]))
    assert claimed == 128
    assert feed(slot_with_header(packed, payload_bytes=payload_bytes)) == (None, 1)


def test_a_ring_of_arbitrary_words_and_slots_raises_nothing(make_segment):
    """Control words included: whatever they say, `take` returns and counts."""
    segment = make_segment(ring_bytes(2, SLOT))
    near = st.one_of(st.integers(0, 5), st.integers(2**64 - 5, 2**64 - 1), words)

    @fuzzed
    @given(head=near, tail=near, heads=st.lists(near, max_size=3), data=slots)
    def check(head, tail, heads, data):
        control = segment.buf[:256].cast("Q")
        control[0], control[16] = head, tail
        consumer = RingConsumer(segment, 2, SLOT, worker=1, generation=1)
        for slot in consumer.slots:
            slot[:] = data
        for control[0] in [head, *heads]:
            for _ in range(4):
                record = consumer.take()
                if record:
                    record.release()
            assert record is None

    check()
