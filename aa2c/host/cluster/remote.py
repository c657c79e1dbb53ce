"""The orchestrator's end of workers elsewhere: incarnations whose processes others start and watch.

All that they are told goes through the engine's process, `aa2c-engine`, which is a child like the others:
started again when it ends, and then all workers with it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

from aa2c.host.commands import KILL, START, Command, ToWorker, encode
from aa2c.host.incarnation import ChildSlot, Incarnation
from aa2c.host.memory import RunMemory
from aa2c.ports import Message, Report

OF_HOSTS = (Report.FROM_WORKER, Report.WORKER_EXITED, Report.HOSTS, Report.HOST_CHANGED)
HOST_LOST, ENGINE_LOST = "host lost", "engine lost"


class RemoteChild(Incarnation):
    """One incarnation of a worker on some host."""

    is_watched_elsewhere = True
    gone_within_s = 5.0

    def __init__(
        self,
        slot: ChildSlot,
        on_message: Callable[[Message], None],
        *,
        pass_on: Callable[[ToWorker], None],
        on_end: Callable[[RemoteChild, bool], None],
    ) -> None:
        """`on_end` gets this incarnation, and whether its host was lost with it."""
        super().__init__(slot.role, slot.index, slot.generation, on_message)
        self.key = slot.index, slot.generation
        self._pass_on = pass_on
        self._on_end = on_end
        self.told: list[ToWorker] = []
        self._tell(START)

    def _tell(self, command: Message) -> None:
        worker, generation = self.key
        self.told.append(ToWorker(worker=worker, generation=generation, command=command))
        self._pass_on(self.told[-1])

    def send(self, command: Command) -> None:
        if self.is_alive:
            self._tell(encode(command))

    def kill(self) -> None:
        if self.is_alive:
            self._tell(KILL)

    async def stop(self, seconds: float) -> None:
        await super().stop(seconds)
        self.end(-signal.SIGKILL, "its host does not answer", host_is_lost=True)

    def kill_and_wait(self) -> None:
        """Its host ends with the engine's process, which is killed before."""
        self.end(-signal.SIGKILL, host_is_lost=True)

    def end(
        self,
        exit_code: int,
        error: str | None = None,
        replaced_as: str | None = None,
        *,
        host_is_lost: bool,
    ) -> None:
        """It has ended, or nobody can reach it any more."""
        if self.is_alive:
            self.error = self.error or error
            self.replaced_as = replaced_as
            self.exited.set_result(exit_code)
            self._on_end(self, host_is_lost)


class RemoteWorkers:
    """All workers of a run, and the engine's process, whose place is `engine`."""

    def __init__(self, log: Any, memory: RunMemory) -> None:
        self._memory = memory
        self.engine = ChildSlot("engine")
        self.hosts: list[dict[str, Any]] = []
        self._living: dict[tuple[int, int], RemoteChild] = {}
        self._log = log

    def start(self, slot: ChildSlot, on_message: Callable[[Message], None]) -> RemoteChild:
        """Ask for the slot's next incarnation; while there is no host for it, it waits for one."""
        records = self._memory.counters.workers[slot.index].count("records")

        def on_end(child: RemoteChild, host_is_lost: bool) -> None:
            self._living.pop(child.key, None)
            self._memory.count_unsent(*child.key, records, host_is_lost=host_is_lost)

        child = RemoteChild(slot, on_message, pass_on=self._pass_on, on_end=on_end)
        self._living[child.key] = child
        return child

    def _pass_on(self, command: ToWorker) -> None:
        if self.engine.child is not None:
            self.engine.child.send(command)
        elif command.command == KILL:  # there is nothing of it yet
            child = self._living[command.worker, command.generation]
            child.end(-signal.SIGKILL, host_is_lost=False)

    def engine_started(self) -> None:
        """Tell a new engine's process what was said while there was none."""
        for child in self._living.values():
            for command in child.told:
                self._pass_on(command)

    def engine_ended(self) -> None:
        """Hosts end with it."""
        self.engine.child = None
        self.hosts = [host | {"state": "lost"} for host in self.hosts]
        for child in list(self._living.values()):
            error = "the engine's process ended"
            child.end(-signal.SIGKILL, error, ENGINE_LOST, host_is_lost=True)

    def hear(self, message: Message) -> None:
        """What the engine's process says of hosts and workers."""
        match message["kind"]:
            case Report.HOSTS:
                self.hosts = message["hosts"]
            case Report.HOST_CHANGED:
                log = self._log.warning if message["is_bad"] else self._log.info
                log(message["event"], **message["about"])
            case _:
                child = self._living.get((message["worker"], message["generation"]))
                if child is None:
                    return
                if message["kind"] == Report.WORKER_EXITED:
                    how = message["replaced_as"]
                    is_lost = how == HOST_LOST
                    child.end(message["exit_code"], message["error"], how, host_is_lost=is_lost)
                elif "pid" in message:
                    child.pid = message["pid"]
                else:
                    child.deliver([message["message"]])

    async def stop(self, seconds: float) -> None:
        """End the engine's process, and with it the hosts."""
        if self.engine.child is not None:
            await self.engine.child.stop(seconds)
        await asyncio.sleep(0)  # its end is seen
