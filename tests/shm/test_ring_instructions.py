"""A producer or a consumer of a ring that dies at any instruction."""

import itertools

import pytest

from aa2c.shm.ring import ring_bytes
from tests.shm.killing import kill_at
from tests.shm.rings import CAPACITY, SLOT, drops, open_consumer, open_ring, push, take_all


@pytest.fixture
def segment(make_segment):
    return make_segment(ring_bytes(CAPACITY, SLOT))


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
