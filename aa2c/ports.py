"""The ports: all that worker, updater and evaluator know of the world outside their process.

Protocols only. They are the seam at which another engine can take the place of processes and shared
memory on one host (see `aa2c.engine`): a record is a header and named contiguous arrays, parameters are
one flat vector, and nothing that passes is a torch object. Mode model, whose workers share one network
in memory, is of one host by its nature: it asks its port for the shared model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum, StrEnum, auto
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from aa2c.config.config import Config
from aa2c.shared_model import SharedModel, Vector

Arrays = dict[str, NDArray[Any]]
Message = dict[str, Any]  # its kind, one of `Report`, and what that kind tells


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
    ERROR = auto()
    FATAL = auto()

    FROM_WORKER = auto()
    WORKER_EXITED = auto()
    HOSTS = auto()
    HOST_CHANGED = auto()

    PRECISION = auto()
    IGNORED = auto()
    EPISODES = auto()
    EVALUATED = auto()
    FRAMES = auto()
    VIDEO = auto()
    CHECKPOINT = auto()
    SAVED = auto()
    UNSAVED = auto()
    RETURNED = auto()
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
