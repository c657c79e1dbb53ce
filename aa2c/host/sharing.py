"""Telling child processes of the shared memory they work on, as soon as its size is known.

Runs in the orchestrator. Each incarnation of a worker gets a ring of its own, and the updater hears
of all of them; one that is started again finds what waits in them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aa2c.host.memory import RunMemory
from aa2c.host.process import ChildSlot


class Sharing:
    """What the children of a run are told; the updater's slot is where it hears of the rings."""

    def __init__(self, memory: RunMemory, updater: ChildSlot) -> None:
        self._memory = memory
        self._updater = updater
        self._updater_is_attached = False

    def attach_updater(self, gone: Iterable[int]) -> None:
        """An updater has told its sizes: name the board, every ring, and the workers that are gone."""
        self._updater_is_attached = True
        self._tell_updater("attach", **self._memory.board_attachment)
        for ring in self._memory.ring_attachments():
            self._tell_updater("attach_ring", **ring)
        for index in gone:
            self.let_go(index)

    def attach(self, slot: ChildSlot) -> None:
        """Give an incarnation what it shares with others, once there is that.

        Raises `SharedMemoryTooSmall` or `OSError` where there is no room for a ring.
        """
        child = slot.child
        if slot.role == "updater" or not child or not child.is_alive or not self._memory.is_sized:
            return
        if slot.role == "evaluator":
            child.send("attach", **self._memory.board_attachment)
            return
        attach = self._memory.create_ring(slot.index, slot.generation)
        child.send("attach", **attach)
        whose = {"worker": slot.index, "generation": slot.generation}
        self._tell_updater("attach_ring", ring=attach["ring"], **whose)

    def let_go(self, index: int) -> None:
        """A worker has ended and comes back with a new ring, or not at all."""
        self._tell_updater("let_go", worker=index)

    def updater_ended(self) -> None:
        """The next one hears all of it anew."""
        self._updater_is_attached = False

    def _tell_updater(self, kind: str, **fields: Any) -> None:
        if self._updater.child is not None and self._updater_is_attached:
            self._updater.child.send(kind, **fields)
