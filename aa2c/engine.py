"""The engine: all that a run knows of its processes and of what they share. Protocols only.

`aa2c.host.engine` has the one for processes and shared memory, of one machine or of many.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from aa2c.config.config import Config
from aa2c.errors import RunFailed
from aa2c.ports import Counters

LagHistogram = tuple[list[tuple[str, float]], float]  # cumulative buckets by upper bound; the sum


class Usage(Protocol):
    """What a process uses: CPU time in seconds, its share of a core, resident memory.

    The last two are None while there is no process.
    """

    cpu_s: float
    rss_bytes: int | None

    @property
    def cpu_share(self) -> float | None: ...


class ChildView(Protocol):
    """A place for a child, as it is shown: who holds it now, and how those before ended."""

    index: int
    generation: int
    restarts: int
    last_exit: str | None
    exits: Counter[str]

    @property
    def usage(self) -> Usage: ...

    @property
    def state(self) -> str: ...

    @property
    def pid(self) -> int | None: ...


class Telemetry(Protocol):
    """The counters of all processes, to be read, and rates over the last seconds."""

    updater: Counters
    evaluator: Counters
    workers: Sequence[Counters]

    @property
    def env_steps(self) -> int: ...

    @property
    def env_steps_per_s(self) -> float: ...

    @property
    def updates_made(self) -> int: ...

    @property
    def updates_per_s(self) -> float: ...

    @property
    def updater_wait_per_s(self) -> float: ...

    def worker_env_steps_per_s(self, worker: int) -> float: ...

    def worker_wait_per_s(self, worker: int) -> float: ...

    def worker_policy_lag(self, worker: int) -> float | None: ...

    def policy_lag(self) -> dict[str, Any]: ...

    def lag_histogram(self) -> LagHistogram: ...


class LiveSettings(Protocol):
    """The options that may be changed during a run; every process sees the change."""

    def now(self) -> Config: ...

    def set(self, name: str, value: float) -> None: ...

    def unset(self, name: str) -> None: ...


class Engine(Protocol):
    """The processes of one run and what they share: started, watched, restarted, given back.

    `control` holds the control flags and what else children are told of the run, `usage` is that of the
    process that runs the orchestrator. `have_come_up` is set once the updater and all workers have.
    `bridge` is the process that talks to hosts, if workers are elsewhere.
    """

    most_workers: int
    have_come_up: asyncio.Event
    control: Counters
    settings: LiveSettings
    telemetry: Telemetry
    usage: Usage
    updater: ChildView
    evaluator: ChildView
    workers: Sequence[ChildView]
    bridge: ChildView | None

    def sample(self) -> None:
        """Take a sample for the rates; to be called at a steady pace."""

    def ring_status(self, worker: int) -> dict[str, Any]:
        """Fill and counts of a worker's rings, over all its generations."""

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start all children, in tasks that end when they have been stopped."""

    def hosts(self) -> list[dict[str, Any]]:
        """The hosts of workers that are elsewhere, if any are."""

    def require_room(self, workers: int) -> None:
        """Raises `StartError` if there is no room for so many workers more."""

    async def set_workers(self, count: int) -> None:
        """Add workers, or take the last ones away; these finish what they are at."""

    async def stop(self, last_word: Callable[[], None]) -> None:
        """Stop workers, then the updater, which saves; `last_word` is called in between."""

    async def evaluate(self, checkpoint: Path, unless: asyncio.Event) -> None:
        """After that: let the evaluator evaluate this checkpoint, within limits and unless this is set."""

    def end(self) -> None:
        """End the evaluator, the last child."""

    def failure(self, *, is_saved: bool) -> RunFailed | None:
        """Why a run that ended as it should has failed, if it has."""

    def kill(self) -> None:
        """End all children at once; blocks until they are gone."""

    def release(self) -> None:
        """Give back all that children shared, once they are gone."""
