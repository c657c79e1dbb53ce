"""One incarnation of a child, wherever its process is, and the place that it takes in the run.

Runs in the orchestrator, and for the workers of a host in that host.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aa2c.host.commands import Command, Role, Stop, title_of
from aa2c.host.usage import ChildClock, ProcessUsage
from aa2c.ports import Message, Report

LOOK_S = 0.5


class Incarnation:
    """From its start to its end: what has been heard of it, and what it can be told.

    `error` and `replaced_as` say why it ended, as far as somebody knows; `exited` has the exit code.
    """

    pid: int | None = None
    is_watched_elsewhere = False
    gone_within_s: float | None = None  # after it was killed; None: without fail

    def __init__(
        self,
        role: Role,
        index: int,
        generation: int,
        on_message: Callable[[Message], None],
    ) -> None:
        self.role: Role = role
        self.generation = generation
        self.title = title_of(role, index)
        self.error: str | None = None
        self.replaced_as: str | None = None
        self.became_ready = asyncio.Event()
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._on_message = on_message

    def send(self, command: Command) -> None:
        """Send a command; one that has ended hears nothing."""
        raise NotImplementedError

    def kill(self) -> None:
        """End it at once."""
        raise NotImplementedError

    def kill_and_wait(self) -> None:
        """End it at once and block until it is gone: for when the event loop is going away."""
        raise NotImplementedError

    @property
    def is_alive(self) -> bool:
        return not self.exited.done()

    @property
    def is_ready(self) -> bool:
        return self.became_ready.is_set()

    def clock(self) -> ChildClock:
        """By which it is waited for: time in which it cannot run is none."""
        return ChildClock(None if self.is_watched_elsewhere else self.pid, 2 * LOOK_S)

    async def wait_until_ready(self, seconds: float) -> None:
        """Wait so long for it to come up, or to end."""
        clock = self.clock()
        ready = asyncio.ensure_future(self.became_ready.wait())
        events: list[asyncio.Future[Any]] = [ready, self.exited]
        while (left := seconds - clock.look()) > 0 and not any(event.done() for event in events):
            timeout = min(left, LOOK_S)
            await asyncio.wait(events, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()

    async def stop(self, seconds: float) -> None:
        """Ask it to stop, and kill it if it takes longer; at once where it has nothing to finish yet."""
        self.send(Stop())
        clock = self.clock()
        while self.is_alive and self.is_ready and (left := seconds - clock.look()) > 0:
            await asyncio.wait([self.exited], timeout=min(left, LOOK_S))
        self.kill()
        await asyncio.wait([self.exited], timeout=self.gone_within_s)

    def deliver(self, messages: list[Message]) -> None:
        """It has said this."""
        for message in messages:
            if message["kind"] == Report.ERROR:
                self.error = str(message.get("message"))
            elif message["kind"] == Report.READY:
                self.became_ready.set()
            self._on_message(message)


@dataclass
class ChildSlot:
    """A place for a child: its current incarnation, and what the status says of it."""

    role: Role
    index: int = 0
    child: Incarnation | None = None
    generation: int = 0
    restarts: int = 0
    has_come_up: bool = False
    is_leaving: bool = False
    is_abandoned: bool = False
    last_exit: str | None = None
    exits: Counter[str] = field(default_factory=Counter)
    usage: ProcessUsage = field(default_factory=ProcessUsage)

    @property
    def is_awaited(self) -> bool:
        """Whether the run's start waits for it: nobody waits for the evaluator."""
        return self.role != "evaluator" and not self.has_come_up

    @property
    def title(self) -> str:
        return title_of(self.role, self.index)

    @property
    def state(self) -> str:
        if self.is_abandoned:
            return "abandoned"
        if self.child is None:
            return "starting"
        if self.is_leaving and self.child.is_alive:
            return "stopping"
        if not self.child.is_alive:
            return "stopped"
        return "running" if self.child.is_ready else "starting"

    def count_exit(self, child: Incarnation, exit_code: int) -> None:
        """Remember how an incarnation ended."""
        self.last_exit = child.replaced_as or exit_in_words(exit_code)
        self.exits[self.last_exit] += 1

    @property
    def pid(self) -> int | None:
        return self.child.pid if self.child and self.child.is_alive else None

    @property
    def pid_here(self) -> int | None:
        """Only if it is a process of this machine."""
        return None if self.child and self.child.is_watched_elsewhere else self.pid


def exit_in_words(exit_code: int) -> str:
    """'exit 1', or the name of the signal that ended it."""
    if exit_code >= 0:
        return f"exit {exit_code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-exit_code).name
    return f"signal {-exit_code}"
