"""The local engine: children of this process, which share memory with it and with each other.

All that `aa2c.ports.Engine` promises, on one host.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aa2c.checkpoints.files import CheckpointFiles, last_sequence
from aa2c.config.config import IMPORTING_OPTIONS, Config, flag
from aa2c.config.factory import Factory, factory_of, is_factory
from aa2c.envs.registered import not_sent, registered_here
from aa2c.errors import Aa2cError, ConfigError, RunFailed
from aa2c.host.children import Children
from aa2c.host.memory import RunMemory
from aa2c.host.settings import Settings
from aa2c.machine import open_standard_descriptors
from aa2c.ports import ChildView, Counters, LiveSettings, Message, Telemetry
from aa2c.shm.segment import remove_leftovers

_OF_MAIN = "__main__:"


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
        resume: CheckpointFiles | None,
        on_report: Callable[[int, Message], None],
        on_failure: Callable[[Aa2cError], None],
    ) -> None:
        open_standard_descriptors()  # children have their own, in place of any pipe of that number
        leftovers = remove_leftovers()
        if leftovers:
            log.warning("removed shared memory of dead runs", segments=leftovers)
        self._memory = RunMemory(config, run_id, resume.counts if resume else None)
        self._children = Children(
            config,
            run_dir,
            resume.path if resume else None,
            self._memory,
            log,
            last_sequence=last_sequence(run_dir / "checkpoints"),
            on_report=on_report,
            on_failure=on_failure,
        )
        self.most_workers = self._memory.most_workers
        self.have_come_up = self._children.have_come_up
        self.control: Counters = self._memory.counters.run
        self.settings: LiveSettings = Settings(config, self.control)
        self.telemetry: Telemetry = self._memory.counters
        self.updater: ChildView = self._children.updater
        self.evaluator: ChildView = self._children.evaluator
        self.workers: Sequence[ChildView] = self._children.workers

    def ring_status(self, worker: int) -> dict[str, Any]:
        return self._memory.ring_status(worker)

    def start(self, tasks: asyncio.TaskGroup) -> None:
        self._children.start(tasks)

    def require_room(self, workers: int) -> None:
        self._memory.require_rings(workers)

    async def set_workers(self, count: int) -> None:
        await self._children.set_workers(count)

    async def stop(self, last_word: Callable[[], None]) -> None:
        await self._children.stop(last_word)

    def failure(self, *, is_saved: bool) -> RunFailed | None:
        return self._children.failure(is_saved=is_saved)

    def kill(self) -> None:
        self._children.kill()

    def release(self) -> None:
        self._memory.release()


def with_code(config: Config) -> Config:
    """With the classes and functions among its options as they are now, to be sent to children.

    Raises `ConfigError` for those, and for an environment's id, that cannot be sent.
    """
    registered_here(config.env)
    code: dict[str, Any] = {}
    for name in IMPORTING_OPTIONS:
        value = getattr(config, name)
        if name == "network" and value.startswith(_OF_MAIN):
            value = _of_main(value)
        if isinstance(value, Factory) or is_factory(value):
            factory = factory_of(flag(name), value)
            try:
                code[name] = factory.packed()
            except Exception as error:  # whatever a user's object raises when it is pickled
                raise ConfigError(not_sent(flag(name), value, error)) from error
    return dataclasses.replace(config, **code)


def _of_main(value: str) -> Factory:
    """A named function of the main program: in its children, __main__ is another module."""
    function = getattr(sys.modules["__main__"], value.removeprefix(_OF_MAIN), None)
    if function is None:
        raise ConfigError(f"--network {value} does not exist: this program has no such function.")
    return Factory(value, function)
