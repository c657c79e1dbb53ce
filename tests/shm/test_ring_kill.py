"""Real processes, killed with SIGKILL at random moments: nothing torn is ever seen."""

import random
import time

import numpy as np
import pytest

from aa2c.shm.board import ParameterBoard, board_bytes
from aa2c.shm.ring import DROP_REASONS, RingConsumer, RingProducer, ring_bytes
from aa2c.shm.segment import Segment
from aa2c.shm.slot import ArraySpec, slot_bytes
from tests.shm.killing import START_S, kill

CAPACITY = 4
NUM_PARAMS = 50_000


def specs_of(length):
    return (ArraySpec("steps", "<i8", (length,)), ArraySpec("mark", "|u1", (7,)))


def produce_until_killed(name, length, generation, payload_checksum):
    specs = specs_of(length)
    ring = RingProducer(
        Segment.attach(name),
        CAPACITY,
        slot_bytes(specs),
        specs,
        worker=1,
        generation=generation,
        payload_checksum=payload_checksum,
    )
    while True:
        arrays = ring.reserve()
        if arrays is None:
            continue
        sequence = ring.committed
        arrays["steps"][:] = sequence
        arrays["mark"][:] = sequence % 251
        ring.commit(sequence, {"sequence": sequence})


def publish_until_killed(name, checksum):
    board = ParameterBoard(Segment.attach(name), NUM_PARAMS, checksum=checksum)
    while True:
        board.publish(np.full(NUM_PARAMS, board.version + 1, np.float32))


def take_checked(consumer, expected):
    """Take, check and release one record if there is one; the sequence number to expect next."""
    record = consumer.take()
    if record is None:
        return expected
    assert record.header.sequence == record.header.policy_version == expected
    assert (record.arrays["steps"] == expected).all()
    assert (record.arrays["mark"] == expected % 251).all()
    record.release()
    return expected + 1


@pytest.mark.parametrize(
    ("length", "payload_checksum"),
    [
        pytest.param(4, False, marks=pytest.mark.long),
        pytest.param(20_000, False, marks=pytest.mark.long),
        (500, True),
    ],
)
def test_a_consumer_sees_an_unbroken_sequence_of_each_killed_producer(
    make_segment, start, length, payload_checksum
):
    chance = random.Random(length)
    slot = slot_bytes(specs_of(length))
    for generation in range(1, 5):
        segment = make_segment(ring_bytes(CAPACITY, slot))
        consumer = RingConsumer(
            Segment.attach(segment.name), CAPACITY, slot, worker=1, generation=generation
        )
        process = start(produce_until_killed, segment.name, length, generation, payload_checksum)
        expected, deadline = 0, time.monotonic() + START_S
        while expected == 0:
            assert time.monotonic() < deadline
            expected = take_checked(consumer, expected)
        until = time.monotonic() + chance.uniform(0, 0.2)
        while time.monotonic() < until:
            expected = take_checked(consumer, expected)
        kill(process)
        while not consumer.drained:
            expected = take_checked(consumer, expected)
        assert consumer.committed == expected
        assert consumer.dropped == dict.fromkeys(DROP_REASONS, 0)
        consumer.close()


@pytest.mark.parametrize("checksum", [pytest.param(False, marks=pytest.mark.long), True])
def test_pulled_parameters_are_whole_and_newer_while_their_writers_are_killed(
    make_segment, start, checksum
):
    chance = random.Random(checksum)
    segment = make_segment(board_bytes(NUM_PARAMS))
    board = ParameterBoard(Segment.attach(segment.name), NUM_PARAMS, checksum=checksum)
    out = np.empty(NUM_PARAMS, np.float32)
    latest = 0

    def pull():
        nonlocal latest
        version = board.pull(out)
        if version:
            assert version >= latest
            assert (out == version).all()
            latest = version
        return version

    for _ in range(4):
        before, deadline = latest, time.monotonic() + START_S
        process = start(publish_until_killed, segment.name, checksum)
        while latest == before:
            assert time.monotonic() < deadline
            pull()
        until = time.monotonic() + chance.uniform(0, 0.2)
        while time.monotonic() < until:
            pull()
        kill(process)
        assert pull() == board.version
    board.close()
