"""A ring over two machines: a source on the worker's, a mirror on the updater's, slot for slot.

The source hands out each committed slot once, in order; the mirror takes it verbatim under the same
sequence number, so that the updater reads and checks it as ever. A source slot is free once the mirror
says that the updater has released it: a worker has at most `capacity` records outstanding, wherever
they are. A mirror has no more room than its source, and never needs more.
"""

from __future__ import annotations

from aa2c.failpoint import failpoint
from aa2c.shm.ring import HEAD, TAIL, TAKEN, RingMemory


class OutOfOrder(Exception):
    """What came is not what comes next: the other side is not to be trusted any more."""


class _RelayedRing(RingMemory):
    @property
    def released(self) -> int:
        """How many records the updater has released, from the first on, as far as it is known here."""
        return self.words[TAIL]


class RingSource(_RelayedRing):
    """The worker's machine: the consumer's side of the ring that the worker fills."""

    @property
    def waiting(self) -> int:
        """Records committed and not yet handed out."""
        return self.words[HEAD] - self.words[TAKEN]

    def next_slot(self) -> tuple[int, memoryview] | None:
        """Sequence and bytes of the next record, which stay until it is released; None if there is none."""
        sequence = self.words[TAKEN]
        waiting = self.waiting
        if waiting == 0:
            return None
        if not 0 < waiting <= self.capacity:
            raise OutOfOrder(f"{waiting} records wait in a ring of {self.capacity}")
        self.words[TAKEN] = sequence + 1
        return sequence, self.slots[sequence % self.capacity]

    def release_to(self, tail: int) -> bool:
        """All records before `tail` are released. Returns whether the ring was full before."""
        before = self.words[TAIL]
        if not before <= tail <= self.words[TAKEN]:
            raise OutOfOrder(f"release to {tail}, after {before} of {self.words[TAKEN]}")
        was_full = self.words[HEAD] - before >= self.capacity
        self.words[TAIL] = tail
        return was_full and tail > before


class RingMirror(_RelayedRing):
    """The updater's machine: the producer's side of the ring that the updater empties."""

    def put(self, sequence: int, slot: memoryview) -> bool:
        """Make a record visible to the updater; returns whether that may be waiting."""
        head = self.words[HEAD]
        if sequence != head or head - self.words[TAIL] >= self.capacity:
            raise OutOfOrder(
                f"record {sequence} came after {head} of which {self.words[TAIL]} are released"
            )
        target = self.slots[head % self.capacity]
        if len(slot) != len(target):
            raise OutOfOrder(f"a record of {len(slot)} bytes for a slot of {len(target)}")
        target[:] = slot
        failpoint("bridge.before_commit")
        self.words[HEAD] = head + 1
        failpoint("bridge.after_commit")
        return self.words[TAKEN] == head
