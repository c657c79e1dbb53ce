"""The ports: all that worker, updater and evaluator know of the world outside their process; the engine:
all that a run knows of its processes and of what they share.

Protocols only. They are the seam at which another engine can take the place of processes and shared
memory on one host: a record is a header and named contiguous arrays, parameters are one flat vector,
and nothing that passes is a torch object. The local engine is `aa2c.host.engine`. Mode model, whose workers
share one network in memory, is of one host by its nature: it asks its port for the shared model,
which only the local engine has.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum, StrEnum, auto
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from aa2c.config.config import Config
from aa2c.errors import RunFailed
from aa2c.shared_model import SharedModel, Vector

Arrays = dict[str, NDArray[Any]]
Message = dict[str, Any]  # its kind, one of `Report`, and what that kind tells
LagHistogram = tuple[list[tuple[str, float]], float]  # cumulative buckets by upper bound; the sum


class WaitsFor(IntEnum):
    """What a process waits for: `waits_for` in its row of counters."""

    NOTHING = 0
    FREE_SLOT = 1
    PARAMETERS = 2
    MODEL_LOCK = 3
    RECORDS = 4
    TURN = 5
    WORKER_STATES = 6


class Report(StrEnum):
    """The kinds of messages that children send: to the engine, then to the run."""

    SPACES = auto()
    SPEC = auto()
    READY = auto()
    RETIRED = auto()
    PRECISION = auto()
    ERROR = auto()
    FATAL = auto()

    EPISODES = auto()
    EVALUATED = auto()
    FRAMES = auto()
    VIDEO = auto()
    CHECKPOINT = auto()
    SAVED = auto()
    UNSAVED = auto()
    REJECTED = auto()
    ROLLED_BACK = auto()
    RESUMED = auto()
    OPTIONS_UNDONE = auto()


class Counters(Protocol):
    """A row of named counters, written by one process and read by all."""

    def add(self, name: str, amount: float) -> None:
        """Increase a count or a sum of seconds."""

    def set(self, name: str, value: float) -> None:
        """Set the latest value of a quantity."""

    def count(self, name: str) -> int: ...

    def value(self, name: str) -> float: ...


class Header(Protocol):
    """What every record says about itself; `values` holds the mode's own counts and losses."""

    @property
    def worker(self) -> int: ...

    @property
    def generation(self) -> int: ...

    @property
    def sequence(self) -> int: ...

    @property
    def policy_version(self) -> int: ...

    @property
    def values(self) -> Mapping[str, float]: ...


class Record(Protocol):
    """One taken record: header and read-only arrays, valid until it is released."""

    @property
    def header(self) -> Header: ...

    @property
    def arrays(self) -> Arrays: ...


class Port(Protocol):
    """What worker, updater and evaluator have in common."""

    @property
    def counters(self) -> Counters: ...

    def beat(self) -> bool:
        """Show a sign of life and hear commands; False once the process is to stop.

        A worker's and the evaluator's return only when the run is not paused.
        """

    def config_now(self) -> Config:
        """The configuration as it is now: some options may be changed during the run."""

    def report(self, kind: Report, **fields: Any) -> None:
        """Send a small message to the orchestrator."""


class TrainingPort(Port, Protocol):
    """What worker and updater have in common. `run` is what the orchestrator tells of the run."""

    @property
    def run(self) -> Counters: ...

    def shared_model(self) -> SharedModel:
        """The shared model of mode model."""

    def set_aside(self, arrays: Mapping[str, Any], told: Mapping[str, float]) -> None:
        """Keep numbers that are not finite for inspection."""


class WorkerPort(TrainingPort, Protocol):
    """A worker's port."""

    def tick(self) -> None:
        """Show a sign of life in the middle of something."""

    def wait_for_turn(self, make_state: Callable[[], bytes]) -> bool:
        """In lock-step (--deterministic): wait until the next record may be begun.

        Leaves the worker's state meanwhile, if a checkpoint is being made. False once it is to stop.
        """

    def reserve(self) -> Arrays | None:
        """Arrays to fill; waits while the ring is full. None once the worker is to stop."""

    def commit(self, policy_version: int, values: Mapping[str, float]) -> None:
        """Send the reserved arrays, with the policy version that acted and the mode's values."""

    def pull(self, out: Vector) -> int:
        """Newest parameters into `out`; waits for some. Their version, 0 once it is to stop."""

    def lock_model(self) -> bool:
        """Wait for the right to step the shared model; False once the worker is to stop."""


class UpdaterPort(TrainingPort, Protocol):
    """The updater's port."""

    def wait(self) -> None: ...

    def pass_turn(self, records: int) -> None:
        """In lock-step: so many records have been dealt with."""

    def worker_states(self) -> dict[int, bytes] | None:
        """In lock-step: ask the workers, who all wait for their turn, for their states.

        None if the updater is to stop before.
        """

    def take(self, most: int) -> Sequence[Record]:
        """Up to `most` records in the order of arrival; waits a moment for the first."""

    def release(self, records: Sequence[Record]) -> None:
        """Give the records' memory back; their arrays must not be used any more."""

    def publish(self, vector: Vector, *, after: int = 0) -> int:
        """Make parameters the newest; returns their policy version, which is above `after`."""

    def count_lag(self, worker: int, lag: int) -> None: ...


class EvaluatorPort(Port, Protocol):
    """The evaluator's port. `updater` are the updater's counters, `run` is as in `TrainingPort`."""

    @property
    def updater(self) -> Counters: ...

    @property
    def run(self) -> Counters: ...

    @property
    def last_checkpoint(self) -> Path | None:
        """The run's last, once it is to be evaluated: the evaluator's last act."""

    def wait(self) -> None: ...

    def pull(self, out: Vector) -> int:
        """Newest parameters into `out`; waits for some. Their version, 0 once it is to stop."""


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
    process that runs the orchestrator. `have_come_up` is set
    once the updater and all workers have.
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

    def sample(self) -> None:
        """Take a sample for the rates; to be called at a steady pace."""

    def ring_status(self, worker: int) -> dict[str, Any]:
        """Fill and counts of a worker's rings, over all its generations."""

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start all children, in tasks that end when they have been stopped."""

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
