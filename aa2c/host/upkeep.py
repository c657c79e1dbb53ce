"""What the orchestrator does for its children throughout: heartbeat, and word of slow starts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from aa2c.host.incarnation import ChildSlot
from aa2c.host.output import Output
from aa2c.host.resting import HEARTBEAT_S
from aa2c.host.zombies import Zombies
from aa2c.ports import Counters

SLOW_START_S = 20.0


class Upkeep:
    """Two tasks that end once `stopping` is set. `run` is the orchestrator's row of counters."""

    def __init__(
        self,
        run: Counters,
        run_dir: Path,
        log: Any,
        *,
        stopping: asyncio.Event,
        have_come_up: asyncio.Event,
    ) -> None:
        self._run = run
        self._output = Output(run_dir, log)
        self._zombies = Zombies()
        self._log = log
        self._stopping = stopping
        self._have_come_up = have_come_up

    def start(self, tasks: asyncio.TaskGroup, slots: Callable[[], Iterable[ChildSlot]]) -> None:
        tasks.create_task(self._beat(slots))
        tasks.create_task(self._tell_of_slow_starts(slots))

    async def _beat(self, slots: Callable[[], Iterable[ChildSlot]]) -> None:
        """Show the children that their orchestrator lives, bound what they print, reap orphans."""
        while not self._stopping.is_set():
            self._run.add("beats", 1)
            self._output.bound()
            self._zombies.reap([slot.pid_here for slot in slots() if slot.pid_here])
            await first_of(self._stopping, timeout_s=HEARTBEAT_S)

    async def _tell_of_slow_starts(self, slots: Callable[[], Iterable[ChildSlot]]) -> None:
        """Say who is still coming up, less and less often."""
        started, wait_s = time.monotonic(), SLOW_START_S
        while True:
            await first_of(self._have_come_up, self._stopping, timeout_s=wait_s)
            if self._have_come_up.is_set() or self._stopping.is_set():
                return
            self._log.warning(
                "still coming up (are environments slow to make?)",
                who=", ".join(slot.title for slot in slots() if slot.is_awaited),
                after_s=round(time.monotonic() - started),
            )
            wait_s *= 2

    def finish(self) -> None:
        """All children have ended: nobody prints any more."""
        self._output.bound()


async def first_of(*events: asyncio.Event, timeout_s: float | None = None) -> None:
    """Wait for the first of these events, or for the timeout."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for event in waiting:
        event.cancel()
