"""The engine: children of this process, which share memory with it and with each other.

All that `aa2c.engine.Engine` promises. Workers may be elsewhere: then one more child is the bridge to them,
and the rest is the same.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aa2c.checkpoints.files import CheckpointFiles, last_sequence
from aa2c.config.config import IMPORTING_OPTIONS, Config, codes, flag
from aa2c.config.factory import Factory, factory_of, is_factory
from aa2c.engine import ChildView, LiveSettings, Telemetry, Usage
from aa2c.envs.registered import not_sent, registered_here
from aa2c.errors import Aa2cError, ConfigError, RunFailed
from aa2c.host.children import Children
from aa2c.host.cluster.frames import Cluster
from aa2c.host.cluster.ray import RayCluster
from aa2c.host.cluster.remote import RemoteWorkers
from aa2c.host.memory import RunMemory
from aa2c.host.settings import Settings
from aa2c.host.starter import Starter
from aa2c.host.usage import ProcessUsage
from aa2c.machine import open_standard_descriptors
from aa2c.ports import Counters, Message
from aa2c.shm.segment import remove_leftovers

Registered = Mapping[str, bytes]  # environments that only this program knows, by their ids

_OF_MAIN = "__main__:"

CLUSTERS: dict[str, Callable[[Config, Path], Cluster]] = {"ray": RayCluster}


class LocalEngine:
    """Memory and children of one run. Raises `SharedMemoryTooSmall` if there is no room.

    It removes what dead runs left behind. `resume` is the checkpoint that the run is resumed from;
    `on_report` gets the child's index with what concerns the run, `on_failure` what it cannot
    survive.
    """

    def __init__(
        self,
        config: Config,
        run_id: str,
        run_dir: Path,
        log: Any,
        *,
        registered: Registered,
        resume: CheckpointFiles | None,
        on_report: Callable[[int, Message], None],
        on_failure: Callable[[Aa2cError], None],
    ) -> None:
        open_standard_descriptors()  # children have their own, in place of any pipe of that number
        if leftovers := remove_leftovers():
            log.warning("removed shared memory of dead runs", segments=leftovers)
        make_cluster = CLUSTERS.get(config.engine)
        here = range(0) if make_cluster else None
        self._memory = RunMemory(config, run_id, resume.counts if resume else None, here=here)
        self._remote = RemoteWorkers(log, self._memory) if make_cluster else None
        starter = Starter(
            config,
            run_dir,
            self._memory,
            registered=registered,
            resume=resume.path if resume else None,
            last_sequence=last_sequence(run_dir / "checkpoints"),
            make_cluster=make_cluster,
        )
        self._children = Children(
            config,
            run_dir,
            self._memory,
            starter,
            self._remote,
            log,
            is_resumed=resume is not None,
            on_report=on_report,
            on_failure=on_failure,
        )
        self.most_workers = self._memory.most_workers
        self.have_come_up = self._children.have_come_up
        self.control: Counters = self._memory.counters.run
        self.settings: LiveSettings = Settings(config, self.control)
        self.telemetry: Telemetry = self._memory.counters
        self._own_usage = ProcessUsage()
        self.usage: Usage = self._own_usage
        self.updater: ChildView = self._children.updater
        self.evaluator: ChildView = self._children.evaluator
        self.workers: Sequence[ChildView] = self._children.workers
        self.bridge: ChildView | None = self._remote.engine if self._remote else None

    def sample(self) -> None:
        self._memory.counters.sample()
        self._own_usage.sample(os.getpid())
        for slot in self._children.slots:
            slot.usage.sample(slot.pid_here)

    def ring_status(self, worker: int) -> dict[str, Any]:
        return self._memory.ring_status(worker)

    def hosts(self) -> list[dict[str, Any]]:
        return self._remote.hosts if self._remote else []

    def start(self, tasks: asyncio.TaskGroup) -> None:
        self._children.start(tasks)

    def require_room(self, workers: int) -> None:
        self._memory.require_rings(workers)

    async def set_workers(self, count: int) -> None:
        await self._children.set_workers(count)

    async def stop(self, last_word: Callable[[], None]) -> None:
        await self._children.stop(last_word)

    async def evaluate(self, checkpoint: Path, unless: asyncio.Event) -> None:
        await self._children.evaluate(checkpoint, unless)

    def end(self) -> None:
        self._children.end()

    def failure(self, *, is_saved: bool) -> RunFailed | None:
        return self._children.failure(is_saved=is_saved)

    def kill(self) -> None:
        self._children.kill()

    def release(self) -> None:
        self._memory.release()


def with_code(config: Config) -> tuple[Config, Registered]:
    """All code that is to be sent to children, as it is now: of the options, and registered ids.

    Raises `ConfigError` for those, and for an environment's id, that cannot be sent.
    """
    registered = registered_here(config.env)
    code: dict[str, Any] = {}
    for name in IMPORTING_OPTIONS:
        value = getattr(config, name)
        sent = [_sent(name, each) for each in codes(value)]
        code[name] = sent if isinstance(value, tuple) else sent[0]
    return dataclasses.replace(config, **code), registered


def _sent(name: str, value: str) -> str:
    if name != "env" and value.startswith(_OF_MAIN):
        value = _of_main(name, value)
    if not isinstance(value, Factory) and not is_factory(value):
        return value
    factory = factory_of(flag(name), value)
    try:
        return factory.packed()
    except Exception as error:  # whatever a user's object raises when it is pickled
        raise ConfigError(not_sent(flag(name), value, error)) from error


def _of_main(name: str, value: str) -> Factory:
    """A named function of the main program: in its children, __main__ is another module."""
    function = getattr(sys.modules["__main__"], value.removeprefix(_OF_MAIN), None)
    if function is None:
        raise ConfigError(
            f"{flag(name)} {value} does not exist: this program has no such function."
        )
    return Factory(value, function)
