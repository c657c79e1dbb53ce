"""One child process: spawn it, hear it, see it end, stop it.

Runs in the orchestrator. The end of a child is seen through its handle, not by polling, and what it
says arrives through its pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from aa2c.clock import LivedClock
from aa2c.host.commands import ChildSpec, Command, Role, Stop, encode, title_of
from aa2c.host.handle import Handle
from aa2c.host.launch import launch
from aa2c.host.usage import ProcessUsage
from aa2c.ports import Message, Report
from aa2c.shm.queue import MESSAGE_LIMIT, Receiver, Sender
from aa2c.shm.slot import Malformed

LOOK_S = 0.5


class Child:
    """One incarnation of a child process, from its start to its end."""

    def __init__(
        self,
        make_spec: Callable[[Connection, Connection], ChildSpec],
        on_message: Callable[[Child, Message], None],
    ) -> None:
        """Start it. `make_spec` gets the child's ends of the two pipes."""
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self.error: str | None = None
        self.replaced_as: str | None = None
        self.became_ready = asyncio.Event()
        commands_out, commands_in = multiprocessing.Pipe(duplex=False)
        reports_out, reports_in = multiprocessing.Pipe(duplex=False)
        os.set_blocking(commands_in.fileno(), False)
        self._commands = Sender(commands_in)
        self._reports = Receiver(reports_out)
        self.spec = make_spec(commands_out, reports_in)
        if self.spec.role == "updater":
            _make_room(commands_in)
        self._process, self._feed = launch(self.spec, blocked=signals_not_for(self.spec.role))
        commands_out.close()
        reports_in.close()
        self.pid = self._process.pid
        try:
            self._handle = Handle(self._process, self._reap)
        except OSError:
            self._feed.close()
            self._process.kill()
            self._process.wait()
            raise
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(self._reports.fileno(), self._hear)

    @property
    def is_alive(self) -> bool:
        return not self.exited.done()

    @property
    def is_ready(self) -> bool:
        return self.became_ready.is_set()

    def send(self, command: Command) -> None:
        """Send a command. A child that has not read for so long that its pipe is full is killed."""
        try:
            self._commands.send(**encode(command))
        except BlockingIOError:
            self.error = "it does not hear its commands"
            self.kill()
        except OSError:  # it is dead already, and its end will be seen
            pass

    def kill(self) -> None:
        """End it at once."""
        if self.is_alive:
            self._handle.send(signal.SIGKILL)

    def kill_and_wait(self) -> None:
        """End it at once and block until it is gone: for when the event loop is going away."""
        if self.is_alive:
            self.kill()
            self._process.wait()
            self._reap()

    async def wait_until_ready(self, seconds: float) -> None:
        """Wait so long for it to come up, or to end."""
        ready = asyncio.ensure_future(self.became_ready.wait())
        events: list[asyncio.Future[Any]] = [ready, self.exited]
        await asyncio.wait(events, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()

    async def stop(self, clock: LivedClock, deadline: float) -> None:
        """Ask it to stop, and kill it at the deadline; at once where it has nothing to finish yet."""
        self.send(Stop())
        self._handle.send(signal.SIGCONT)  # somebody may have stopped it
        while self.is_alive and self.is_ready and (left := deadline - clock.look()) > 0:
            await asyncio.wait([self.exited], timeout=min(left, LOOK_S))
        self.kill()
        await asyncio.wait([self.exited])

    def _hear(self) -> None:
        try:
            messages = self._reports.drain()
        except EOFError:
            self._loop.remove_reader(self._reports.fileno())
        except Malformed:
            self._loop.remove_reader(self._reports.fileno())
            self.error = "it sent what is not a message"
            self.kill()
        else:
            self._deliver(messages)

    def _deliver(self, messages: list[Message]) -> None:
        for message in messages:
            if message["kind"] == Report.ERROR:
                self.error = str(message.get("message"))
            elif message["kind"] == Report.READY:
                self.became_ready.set()
            self._on_message(self, message)

    def _reap(self) -> None:
        """The process has ended: read its last words, then tell."""
        self._handle.close()
        with contextlib.suppress(EOFError, Malformed):
            while messages := self._reports.drain():
                self._deliver(messages)
        self._loop.remove_reader(self._reports.fileno())
        exit_code = self._process.wait()
        self._feed.close()
        self._reports.close()
        self._commands.close()
        if not self.exited.done():
            self.exited.set_result(exit_code)


@dataclass
class ChildSlot:
    """A place for a child: its current incarnation, and what the status says of it."""

    role: Role
    index: int = 0
    child: Child | None = None
    generation: int = 0
    has_come_up: bool = False
    is_leaving: bool = False
    is_given_up: bool = False
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
        if self.is_given_up:
            return "abandoned"
        if self.child is None:
            return "starting"
        if self.is_leaving and self.child.is_alive:
            return "stopping"
        if not self.child.is_alive:
            return "stopped"
        return "running" if self.child.is_ready else "starting"

    def count_exit(self, child: Child, exit_code: int) -> None:
        """Remember how an incarnation ended."""
        self.last_exit = child.replaced_as or exit_in_words(exit_code)
        self.exits[self.last_exit] += 1

    @property
    def pid(self) -> int | None:
        return self.child.pid if self.child and self.child.is_alive else None


def _make_room(connection: Connection) -> None:
    """For the spaces of an environment, which may have thousands of bounds."""
    with contextlib.suppress(OSError):  # without, a usual pipe has to do
        fcntl.fcntl(connection.fileno(), fcntl.F_SETPIPE_SZ, MESSAGE_LIMIT)


def signals_not_for(role: Role) -> set[signal.Signals]:
    """Signals that go to a whole process group or service, and are the orchestrator's to answer.

    A terminal's Ctrl-C and end, and a batch system's warnings, are for nobody else; the updater must
    live on to write the last checkpoint.
    """
    ours = {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
    return ours if role == "worker" else ours | {signal.SIGTERM}


def is_main_thread() -> bool:
    """Whether a child may die with the thread that starts it: PR_SET_PDEATHSIG is about threads."""
    return threading.current_thread() is threading.main_thread()


def exit_in_words(exit_code: int) -> str:
    """'exit 1', or the name of the signal that ended it."""
    if exit_code >= 0:
        return f"exit {exit_code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-exit_code).name
    return f"signal {-exit_code}"
