"""Records are compressed where that pays, and what cannot be unpacked to a record is refused."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from aa2c.host.cluster.packing import DECIDE_EVERY, LEAST_BYTES, Packing, unpack
from aa2c.shm.relay import OutOfOrder

FRAMES = memoryview(np.repeat(np.arange(4 * LEAST_BYTES // 64, dtype=np.uint8), 64).tobytes())
GRADIENT = memoryview(np.random.default_rng(0).bytes(len(FRAMES)))


def test_frames_are_packed_and_unpacked_to_what_they_were():
    is_packed, block = Packing().pack(0, FRAMES)
    assert is_packed
    assert len(block) < len(FRAMES) / 10
    assert unpack(block, len(FRAMES)) == FRAMES


def test_gradients_and_small_records_are_sent_as_they_are():
    for slot in (GRADIENT, FRAMES[: LEAST_BYTES - 1]):
        is_packed, block = Packing().pack(0, slot)
        assert not is_packed
        assert np.shares_memory(block, np.frombuffer(slot, np.uint8)), "and are not copied"


def test_what_a_ring_holds_may_change_and_is_looked_at_again():
    packing = Packing()
    assert not packing.pack(0, GRADIENT)[0]
    assert not packing.pack(1, FRAMES)[0]
    assert packing.pack(DECIDE_EVERY, FRAMES)[0]


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"no stream",
        zlib.compress(bytes(99)),
        zlib.compress(bytes(101)),
        zlib.compress(bytes(10**8)),
        zlib.compress(bytes(100))[:-1],
    ],
    ids=["nothing", "garbage", "short", "long", "a bomb", "cut off"],
)
def test_what_is_no_packed_record_of_this_size_is_refused(block):
    with pytest.raises(OutOfOrder):
        unpack(np.frombuffer(block, np.uint8), 100)
