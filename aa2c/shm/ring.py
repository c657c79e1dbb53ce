"""The ring: fixed slots in shared memory between one producer and one consumer.

`head` counts records committed and is written by the producer only; `tail` counts records
released and `taken` those taken, both written by the consumer only. They only grow, and each is
written by one aligned 8-byte store. A producer wakes a consumer only if `taken` says that it had
taken everything; where that look comes too early, the bounded re-check of a wait helps. And a consumer
that follows one that died continues after `taken`, so that nothing is learned from twice: what the dead
one had taken and not released is lost, and counted.
A slot is filled before `head` moves, so a producer killed at any instruction leaves nothing half
visible: at worst the record it was writing is lost. A ring belongs to one incarnation of one
worker; a restart gets a new ring, and records that name another generation are fenced.

This relies on the order of stores, which x86 keeps. On other processors every record carries a
checksum of its payload, and one that was read too early is dropped and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aa2c.failpoint import failpoint
from aa2c.shm.segment import STORES_ARE_ORDERED, Segment
from aa2c.shm.slot import (
    Arrays,
    ArraySpec,
    Header,
    Malformed,
    map_arrays,
    read_slot,
    write_header,
)

HEAD = 0
TAIL = 16  # 128 bytes on: the two sides never share a cache line, adjacent-line prefetch included
TAKEN = 17
_CONTROL_BYTES = 4096

DROP_REASONS = ("checksum", "fenced", "invalid", "lost")


def ring_bytes(capacity: int, slot_bytes: int) -> int:
    """Bytes of a segment for a ring of `capacity` slots."""
    return _CONTROL_BYTES + capacity * slot_bytes


class RingMemory:
    """The mapped words and slots, as either side and the watching orchestrator see them."""

    def __init__(self, segment: Segment, capacity: int, slot_bytes: int) -> None:
        if capacity < 1 or len(segment.buf) < ring_bytes(capacity, slot_bytes):
            raise ValueError(f"segment {segment.name} is too small for {capacity} slots")
        self.segment = segment
        self.capacity = capacity
        self.words = segment.buf[:_CONTROL_BYTES].cast("Q")
        self.slots = [
            segment.buf[start : start + slot_bytes]
            for start in range(_CONTROL_BYTES, _CONTROL_BYTES + capacity * slot_bytes, slot_bytes)
        ]

    @property
    def used(self) -> int:
        """Slots committed and not yet released."""
        return max(0, min(self.capacity, self.words[HEAD] - self.words[TAIL]))

    @property
    def committed(self) -> int:
        return self.words[HEAD]

    def close(self) -> None:
        self.slots.clear()
        self.words.release()
        self.segment.close()


class RingProducer(RingMemory):
    """The worker's side: `reserve` a slot, fill its arrays, `commit`."""

    def __init__(
        self,
        segment: Segment,
        capacity: int,
        slot_bytes: int,
        specs: Sequence[ArraySpec],
        *,
        worker: int,
        generation: int,
        payload_checksum: bool = not STORES_ARE_ORDERED,
    ) -> None:
        super().__init__(segment, capacity, slot_bytes)
        self._specs = tuple(specs)
        self.worker = worker
        self.generation = generation
        self._payload_checksum = payload_checksum
        self._arrays = [map_arrays(slot, self._specs, writeable=True) for slot in self.slots]

    def reserve(self) -> Arrays | None:
        """The arrays of the next slot, to be filled in place; None while the ring is full."""
        head = self.words[HEAD]
        if head - self.words[TAIL] >= self.capacity:
            return None
        return self._arrays[head % self.capacity]

    def commit(self, policy_version: int, values: Mapping[str, float]) -> bool:
        """Make the reserved slot visible. Until the last store here the record does not exist.

        Returns whether the consumer had taken everything before, and so may be waiting.
        """
        head = self.words[HEAD]
        header = Header(self.worker, self.generation, head, policy_version, values)
        slot = self.slots[head % self.capacity]
        write_header(slot, header, self._specs, payload_checksum=self._payload_checksum)
        failpoint("ring.before_commit")
        self.words[HEAD] = head + 1
        failpoint("ring.after_commit")
        return self.words[TAKEN] == head


class Record:
    """One taken record: header and read-only arrays, valid until `release`."""

    __slots__ = ("_index", "_ring", "arrays", "header")

    def __init__(self, ring: RingConsumer, index: int, header: Header, arrays: Arrays) -> None:
        self._ring = ring
        self._index = index
        self.header = header
        self.arrays: dict[str, Any] = arrays

    def release(self) -> bool:
        """Give the slot back to the producer; the arrays must not be used any more.

        Returns whether the ring was full before, so that the producer may be waiting.
        """
        return self._ring.release(self._index)


class RingConsumer(RingMemory):
    """The updater's side: `take` records in order, `release` them in any order."""

    def __init__(
        self, segment: Segment, capacity: int, slot_bytes: int, *, worker: int, generation: int
    ) -> None:
        super().__init__(segment, capacity, slot_bytes)
        self.worker = worker
        self.generation = generation
        self.dropped = dict.fromkeys(DROP_REASONS, 0)
        self._released: set[int] = set()
        self._follow()

    def _follow(self) -> None:
        """Continue after what was taken before, by a consumer that died."""
        head, tail, taken = (self.words[word] for word in (HEAD, TAIL, TAKEN))
        if tail <= taken <= head:
            self.dropped["lost"] += taken - tail
        else:
            taken = tail
        self._taken = self.words[TAIL] = self.words[TAKEN] = taken

    def take(self) -> Record | None:
        """The next good record, or None if there is none. Bad ones are dropped and counted."""
        while True:
            index = self._taken
            waiting = self.words[HEAD] - index
            if waiting == 0:
                return None
            if not 0 < waiting <= self.capacity:
                self._resynchronize()
                return None
            self._taken += 1
            self.words[TAKEN] = self._taken
            try:
                header, arrays = read_slot(self.slots[index % self.capacity], index)
                if header.generation != self.generation or header.worker != self.worker:
                    raise Malformed("fenced")
            except Malformed as error:
                self.dropped[error.reason] += 1
                self.release(index)
                continue
            return Record(self, index, header, arrays)

    @property
    def has_more(self) -> bool:
        """Whether there is something to take."""
        return self.words[HEAD] != self._taken

    @property
    def drained(self) -> bool:
        """Whether nothing is left to take or to release."""
        return self.words[HEAD] == self._taken == self.words[TAIL]

    def release(self, index: int) -> bool:
        """Free a taken slot. `tail` moves over slots that are released without a gap.

        Returns whether the ring was full before.
        """
        tail = self.words[TAIL]
        if not tail <= index < self._taken:
            return False  # from before a resynchronisation: the slot is somebody else's by now
        before = tail
        self._released.add(index)
        while tail in self._released:
            self._released.remove(tail)
            tail += 1
        self.words[TAIL] = tail
        return self.words[HEAD] - before >= self.capacity

    def _resynchronize(self) -> None:
        """`head` is impossible: count one drop and continue from where the producer says it is."""
        self.dropped["invalid"] += 1
        self._taken = self.words[HEAD]
        self.words[TAKEN] = self._taken
        self._released.clear()
        self.words[TAIL] = self._taken
