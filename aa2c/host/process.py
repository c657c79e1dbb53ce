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
from collections.abc import Callable
from multiprocessing.connection import Connection

from aa2c.host.commands import ChildSpec, Command, Role, Stop, encode
from aa2c.host.handle import Handle
from aa2c.host.incarnation import Incarnation
from aa2c.host.launch import launch
from aa2c.ports import Message
from aa2c.shm.queue import MESSAGE_LIMIT, Receiver, Sender
from aa2c.shm.slot import Malformed


class Child(Incarnation):
    """A process of this machine, whose parent this process is."""

    def __init__(
        self,
        make_spec: Callable[[Connection, Connection], ChildSpec],
        on_message: Callable[[Message], None],
        *,
        hidden: str = "",
    ) -> None:
        """Start it. `make_spec` gets the child's ends of the two pipes.

        It sees no environment variables whose names begin with `hidden`.
        """
        self._loop = asyncio.get_running_loop()
        commands_out, commands_in = multiprocessing.Pipe(duplex=False)
        reports_out, reports_in = multiprocessing.Pipe(duplex=False)
        os.set_blocking(commands_in.fileno(), False)
        self._commands = Sender(commands_in)
        self._reports = Receiver(reports_out)
        spec = make_spec(commands_out, reports_in)
        super().__init__(spec.role, spec.index, spec.generation, on_message)
        if spec.role in ("updater", "engine"):
            _make_room(commands_in)
        blocked = signals_not_for(spec.role)
        self._process, self._feed = launch(spec, blocked=blocked, hidden=hidden)
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
        self._loop.add_reader(self._reports.fileno(), self._hear)

    def send(self, command: Command) -> None:
        """A child that has not read for so long that its pipe is full is killed."""
        try:
            self._commands.send(**encode(command))
        except BlockingIOError:
            self.error = "it does not hear its commands"
            self.kill()
        except OSError:  # it is dead already, and its end will be seen
            pass
        if isinstance(command, Stop):
            self._handle.send(signal.SIGCONT)  # somebody may have stopped it

    def kill(self) -> None:
        if self.is_alive:
            self._handle.send(signal.SIGKILL)

    def kill_and_wait(self) -> None:
        if self.is_alive:
            self.kill()
            self._process.wait()
            self._reap()

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
            self.deliver(messages)

    def _reap(self) -> None:
        """The process has ended: read its last words, then tell."""
        self._handle.close()
        with contextlib.suppress(EOFError, Malformed):
            while messages := self._reports.drain():
                self.deliver(messages)
        self._loop.remove_reader(self._reports.fileno())
        exit_code = self._process.wait()
        self._feed.close()
        self._reports.close()
        self._commands.close()
        if not self.exited.done():
            self.exited.set_result(exit_code)


def _make_room(connection: Connection) -> None:
    """For the spaces of an environment, which may have thousands of bounds, or for many workers."""
    with contextlib.suppress(OSError):  # without, a usual pipe has to do
        fcntl.fcntl(connection.fileno(), fcntl.F_SETPIPE_SZ, MESSAGE_LIMIT)


def signals_not_for(role: Role) -> set[signal.Signals]:
    """Signals that go to a whole process group or service, and are the orchestrator's to answer.

    A terminal's Ctrl-C and end, and a batch system's warnings, are for nobody else; the updater must
    live on to write the last checkpoint.
    """
    ours = {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
    return ours if role == "worker" else ours | {signal.SIGTERM}
