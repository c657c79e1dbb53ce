"""Rings of small records that say one token in each of their parts."""

import numpy as np

from aa2c.shm.ring import DROP_REASONS, RingConsumer, RingProducer, ring_bytes
from aa2c.shm.segment import Segment
from aa2c.shm.slot import ArraySpec, slot_bytes

SPECS = (ArraySpec("reward", "<f4", (3, 2)), ArraySpec("frame", "|u1", (5,)))
SLOT = slot_bytes(SPECS)
CONTROL = ring_bytes(1, SLOT) - SLOT
CAPACITY = 4


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


def drops(**counts):
    return {**dict.fromkeys(DROP_REASONS, 0), **counts}
