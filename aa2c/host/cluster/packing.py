"""Compression of records on their way: in the host, and only where it pays.

Frames of games shrink to a thirtieth at the speed of a memory copy, gradients hardly at all and slowly.
So a sample of a ring's record decides, and decides anew after a while.
"""

from __future__ import annotations

import zlib

import numpy as np

from aa2c.host.cluster.frames import Block
from aa2c.shm.relay import OutOfOrder

LEVEL = 1
LEAST_BYTES = 2**16  # of a record
SAMPLE_BYTES = 2**14
DECIDE_EVERY = 64  # records
LEAST_RATIO = 4.0


class Packing:
    """For the records of one ring."""

    def __init__(self) -> None:
        self._pays = False

    def pack(self, sequence: int, slot: memoryview) -> tuple[bool, Block]:
        """Whether it is packed, and the bytes to send; unpacked ones are the slot's own."""
        if len(slot) < LEAST_BYTES:
            return False, np.frombuffer(slot, np.uint8)
        if sequence % DECIDE_EVERY == 0:
            middle = len(slot) // 2
            sample = slot[middle : middle + SAMPLE_BYTES]
            self._pays = len(zlib.compress(sample, LEVEL)) * LEAST_RATIO <= len(sample)
        if not self._pays:
            return False, np.frombuffer(slot, np.uint8)
        return True, np.frombuffer(zlib.compress(slot, LEVEL), np.uint8)


def unpack(block: Block, slot_bytes: int) -> memoryview:
    """A packed record of so many bytes. Raises `OutOfOrder` for anything else."""
    unpacker = zlib.decompressobj()
    try:
        slot = unpacker.decompress(block, slot_bytes + 1)  # type: ignore[arg-type]
    except zlib.error as error:
        raise OutOfOrder(f"a record cannot be unpacked: {error}") from None
    if len(slot) != slot_bytes or not unpacker.eof:
        raise OutOfOrder(f"a record of another size than {slot_bytes} bytes was packed")
    return memoryview(slot)
