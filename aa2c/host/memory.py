"""The shared memory of a run: counters, parameter board, rings and wake-ups, made and given back.

Runs in the orchestrator, which creates and unlinks everything; children only attach.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from aa2c.config.config import Config
from aa2c.config.engine_options import MOST_LOCAL_WORKERS
from aa2c.host.commands import Attach, AttachRing, LetGo, RingCommand, Spaces
from aa2c.host.incarnation import ChildSlot
from aa2c.host.telemetry import RunCounters
from aa2c.machine import require_files, require_linux
from aa2c.ports import Message
from aa2c.shm import segment as shm
from aa2c.shm.board import board_bytes
from aa2c.shm.counters import table_bytes
from aa2c.shm.ring import RingMemory, ring_bytes
from aa2c.shm.shared_model import shared_model_bytes
from aa2c.shm.wakeup import Wakeup

ROOM_FOR_WORKERS = 16  # that may be added while it runs: all children inherit their wake-ups
MOST_WORKERS = 1024
MOST_OLD_RINGS = 3  # of one worker
FILES_OF_A_CHILD = 5  # two pipes, pidfd and ring, and what it is sent at its start
OTHER_FILES = 16


class RunMemory:
    """All segments of one run. Raises `SharedMemoryTooSmall` before it makes what cannot fit."""

    def __init__(
        self,
        config: Config,
        run_id: str,
        before: Mapping[str, int] | None = None,
        *,
        here: range | None = None,
        rings: int | None = None,
    ) -> None:
        """`before`: what a run resumed from a checkpoint has counted already.

        Of a run on several machines only the workers `here` have wake-ups of their own, those elsewhere
        share one, `space_elsewhere`; and it has this number of `rings`, not one for each worker.
        """
        room = 0 if config.deterministic else ROOM_FOR_WORKERS
        is_local = config.engine == "local"
        self.most_workers = min(
            config.workers + room, MOST_LOCAL_WORKERS if is_local else MOST_WORKERS
        )
        here = range(self.most_workers) if here is None else here
        self._ring_count = config.workers if rings is None else rings
        self._config = config
        self._prefix = shm.name_prefix(run_id)
        self._spec: Message | None = None
        self._board: shm.Segment | None = None
        self._rings: dict[tuple[int, int], RingMemory] = {}
        self._committed_before = [0] * self.most_workers
        self._lost = [0] * self.most_workers
        self._untold = [0] * self.most_workers
        require_linux()
        require_files(len(here) + FILES_OF_A_CHILD * (self._ring_count + 2) + OTHER_FILES)
        nbytes = table_bytes(self.most_workers)
        shm.require_space(nbytes)
        with contextlib.ExitStack() as made:  # what fails here leaves nothing behind
            self.counters_segment = shm.Segment.create(self._prefix + "counters", nbytes)
            made.callback(self.counters_segment.unlink)
            self.records = made.enter_context(contextlib.closing(Wakeup()))
            self.space_elsewhere = made.enter_context(contextlib.closing(Wakeup()))
            self.spaces = tuple(
                made.enter_context(contextlib.closing(Wakeup()))
                if worker in here
                else self.space_elsewhere
                for worker in range(self.most_workers)
            )
            self.counters = RunCounters(self.counters_segment, self.most_workers, before)
            made.pop_all()

    @property
    def is_sized(self) -> bool:
        """Whether the network's size is known, and with it that of board and rings."""
        return self._spec is not None

    def create_board(self, spec: Message) -> None:
        """The updater knows the sizes: make the board, if all the rings will fit too.

        In mode model the shared model is the board. A restarted worker gets its new ring before
        its old one is emptied: room for one more.
        """
        shared = spec["shared"]
        board = shared_model_bytes(shared) if shared else board_bytes(spec["num_params"])
        ring = ring_bytes(self._config.ring_slots, spec["slot_bytes"])
        shm.require_space(board + ring * (self._ring_count + 1))
        self._spec = spec
        self._board = shm.Segment.create(self._prefix + "board", board)

    def require_rings(self, count: int) -> None:
        """Raises `SharedMemoryTooSmall` if there is no room for so many rings more."""
        assert self._spec is not None
        shm.require_space(count * ring_bytes(self._config.ring_slots, self._spec["slot_bytes"]))

    def create_ring(self, worker: int, generation: int) -> Attach:
        """A ring for one incarnation of a worker; returns what that worker must know."""
        assert self._spec is not None
        slots, slot_bytes = self._config.ring_slots, self._spec["slot_bytes"]
        name = f"{self._prefix}ring-{worker}-{generation}"
        segment = shm.Segment.create(name, ring_bytes(slots, slot_bytes))
        self._rings[worker, generation] = RingMemory(segment, slots, slot_bytes)
        return replace(self.board_attachment, ring=name)

    def drop_oldest(self, worker: int) -> None:
        """While the updater is away, rings of dead incarnations wait for it: not an unbounded number of them."""
        rings = sorted(generation for owner, generation in self._rings if owner == worker)
        for generation in rings[:-MOST_OLD_RINGS]:
            self.retire_ring(worker, generation)

    def ring_attachments(self) -> list[AttachRing]:
        """What an updater must know of each ring there is: a worker's older ones first."""
        return [
            AttachRing(ring=ring.segment.name, worker=worker, generation=generation)
            for (worker, generation), ring in sorted(self._rings.items())
        ]

    @property
    def board_attachment(self) -> Attach:
        """What a child must know to read the board."""
        assert self._spec is not None
        assert self._board is not None
        return Attach.of(self._board.name, self._spec)

    def retire_ring(self, worker: int, generation: int) -> None:
        """Remove the ring of a dead incarnation; what nobody has taken from it by now is lost."""
        ring = self._rings.pop((worker, generation), None)
        if ring is not None:
            self._committed_before[worker] += ring.committed
            self._lost[worker] += ring.used
            ring.segment.unlink()
            ring.close()

    def count_unsent(
        self, worker: int, generation: int, records_before: int, *, host_is_lost: bool
    ) -> None:
        """An incarnation on a host has ended: count what it made and never reached its ring here.

        Of that its host had told. One that is lost may not have come to tell of the last ones: at most
        of as many as the ring has free slots, since no worker has more than `ring_slots` outstanding.
        """
        ring = self._rings.get((worker, generation))
        if ring is None:
            return
        made = self.counters.workers[worker].count("records") - records_before
        lost = max(0, made - ring.committed)
        self._lost[worker] += lost
        if host_is_lost:
            self._untold[worker] += max(0, ring.capacity - ring.used - lost)

    def ring_status(self, worker: int) -> dict[str, Any]:
        """Fill and counts of a worker's rings, over all its generations."""
        rings = [ring for (owner, _), ring in self._rings.items() if owner == worker]
        dropped = self.counters.dropped(worker)
        return {
            "worker": worker,
            "used": sum(ring.used for ring in rings),
            "capacity": self._config.ring_slots,
            "committed": self._committed_before[worker] + sum(r.committed for r in rings),
            "dropped": dropped | {"lost": dropped["lost"] + self._lost[worker]},
            "untold": self._untold[worker],
        }

    def release(self) -> None:
        """Unlink every segment and close every wake-up."""
        self.counters.close()
        segments = [self.counters_segment, *(ring.segment for ring in self._rings.values())]
        if self._board is not None:
            segments.append(self._board)
        for ring in self._rings.values():
            ring.close()
        for segment in segments:
            segment.unlink()
            segment.close()
        for wakeup in {self.records, self.space_elsewhere, *self.spaces}:
            wakeup.close()


class Sharing:
    """Tells children of the memory they work on, as soon as its size is known.

    It follows from the spaces of the environments, which the workers report. Each incarnation of a
    worker gets a ring of its own, and the updater hears of all of them; a restarted one finds what
    waits in them.
    """

    def __init__(self, memory: RunMemory, updater: ChildSlot) -> None:
        self._memory = memory
        self._updater = updater
        self._updater_is_attached = False
        self._spaces: Spaces | None = None

    def hear_spaces(self, spec: Message) -> bool:
        """A worker has told its spaces: let the updater know. False if another's are not the same."""
        if self._spaces is None:
            self._spaces = Spaces(spec=spec)
            self.tell_spaces()
        return self._spaces.spec == spec

    def tell_spaces(self) -> None:
        """To an updater that lives, once they are known."""
        if self._spaces is not None and self._updater.child is not None:
            self._updater.child.send(self._spaces)

    def attach_updater(self, gone: Iterable[int]) -> None:
        """An updater has told its sizes: name the board, every ring, and the workers that are gone."""
        self._updater_is_attached = True
        self._tell_updater(self._memory.board_attachment)
        for ring in self._memory.ring_attachments():
            self._tell_updater(ring)
        for index in gone:
            self.let_go(index)

    def attach(self, slot: ChildSlot) -> None:
        """Attach an incarnation to the memory it shares with others, once that exists.

        Raises `SharedMemoryTooSmall` or `OSError` where there is no room for a ring.
        """
        child = slot.child
        if slot.role == "updater":
            self.tell_spaces()
        if (
            slot.role in ("updater", "engine")
            or not child
            or not child.is_alive
            or not self._memory.is_sized
        ):
            return
        if slot.role == "evaluator":
            child.send(self._memory.board_attachment)
            return
        if not self._updater_is_attached:
            self._memory.drop_oldest(slot.index)
        attach = self._memory.create_ring(slot.index, slot.generation)
        child.send(attach)
        ring = AttachRing(ring=attach.ring, worker=slot.index, generation=slot.generation)
        self._tell_updater(ring)

    def let_go(self, index: int) -> None:
        """A worker has ended and comes back with a new ring, or not at all."""
        self._tell_updater(LetGo(worker=index))

    def updater_ended(self) -> None:
        """Its successor must be told everything again."""
        self._updater_is_attached = False

    def _tell_updater(self, command: Attach | RingCommand) -> None:
        if self._updater.child is not None and self._updater_is_attached:
            self._updater.child.send(command)
