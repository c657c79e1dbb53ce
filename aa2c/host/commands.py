"""What a child is told: all at once at its start, then by commands of the orchestrator.

Commands are typed objects at both ends and msgpack dicts in between (see `aa2c.shm.queue`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Literal

from aa2c.config.config import Config
from aa2c.host.cluster.frames import Cluster
from aa2c.ports import Message
from aa2c.shm.queue import Receiver
from aa2c.shm.slot import ArraySpec, Malformed
from aa2c.shm.wakeup import Wakeup

COMMAND_WAIT_S = 0.02

Role = Literal["worker", "updater", "evaluator", "engine"]


def title_of(role: Role, index: int) -> str:
    """What a child is called, in the log and in the list of processes."""
    return f"aa2c-worker-{index}" if role == "worker" else f"aa2c-{role}"


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """All that a child is told at its start; the rest comes with `Attach`."""

    role: Role
    index: int
    generation: int
    config: Config
    run_dir: Path
    counters_segment: str
    commands: Connection
    reports: Connection
    records: Wakeup
    spaces: tuple[Wakeup, ...]
    registered: Mapping[str, bytes]  # environments, by their ids (see `aa2c.envs.registered`)
    resume: Path | None
    env_steps_before: int
    last_sequence: int  # of the checkpoints that were there when the run was started
    make_cluster: (
        Callable[[Config, Path], Cluster] | None
    )  # where hosts are, for the engine's process
    parent_pid: int
    dies_with_parent_thread: bool

    @property
    def budget(self) -> int | None:
        """Env steps that the run's workers may make; in lock-step the updater's count decides."""
        config = self.config
        return None if config.deterministic else config.total_env_steps - self.env_steps_before

    @property
    def title(self) -> str:
        return title_of(self.role, self.index)


@dataclass(frozen=True, kw_only=True)
class Attach:
    """The memory that a child works on: the board and, for a worker, its ring.

    `shared` are the names and sizes of the vectors of mode model's shared model, if there is one.
    """

    board: str
    num_params: int
    slot_bytes: int
    arrays: tuple[ArraySpec, ...]
    shared: tuple[tuple[str, int], ...]
    ring: str = ""

    @classmethod
    def of(cls, board: str, told: Message, ring: str = "") -> Attach:
        """From the sizes that an updater reported, as msgpack decodes them."""
        return cls(
            board=board,
            num_params=told["num_params"],
            slot_bytes=told["slot_bytes"],
            arrays=tuple(ArraySpec(n, dtype, tuple(shape)) for n, dtype, shape in told["arrays"]),
            shared=tuple((name, size) for name, size in told["shared"]),
            ring=ring,
        )


@dataclass(frozen=True, kw_only=True)
class Spaces:
    """To the updater: the spec of the workers' environments, as plain as it is in checkpoints."""

    spec: Message


@dataclass(frozen=True, kw_only=True)
class AttachRing:
    """To the updater: the ring of one incarnation of a worker."""

    ring: str
    worker: int
    generation: int


@dataclass(frozen=True, kw_only=True)
class LetGo:
    """To the updater: a worker has ended, and comes back with a new ring or not at all."""

    worker: int


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """To the evaluator: evaluate this checkpoint now, the run's last, and end."""

    checkpoint: str


@dataclass(frozen=True, kw_only=True)
class ToWorker:
    """To the engine's process: pass a command on to a worker's incarnation, or start or kill it."""

    worker: int
    generation: int
    command: Message


START, KILL = {"kind": "Start"}, {"kind": "Kill"}


@dataclass(frozen=True)
class Stop:
    """To everyone."""


RingCommand = AttachRing | LetGo
Command = Spaces | Attach | RingCommand | Evaluate | ToWorker | Stop


def encode(command: Command) -> Message:
    """The message that carries a command."""
    return {"kind": type(command).__name__, **vars(command)}


def decode(message: Message) -> Command:
    """The command that a message carries. Raises `Malformed` if it carries none."""
    fields = {name: value for name, value in message.items() if name != "kind"}
    try:
        match message["kind"]:
            case "Spaces":
                return Spaces(**fields)
            case "Attach":
                return Attach.of(fields["board"], fields, fields["ring"])
            case "AttachRing":
                return AttachRing(**fields)
            case "LetGo":
                return LetGo(**fields)
            case "ToWorker":
                return ToWorker(**fields)
            case "Evaluate":
                return Evaluate(**fields)
            case "Stop":
                return Stop(**fields)
    except (KeyError, TypeError, ValueError):
        pass
    raise Malformed("invalid")


class Stopped(Exception):
    """Told to stop before it had come up."""


class Commands:
    """The child's end: commands that have come from the orchestrator."""

    def __init__(self, connection: Connection) -> None:
        self._receiver = Receiver(connection)
        self._spaces: Spaces | None = None
        self.last_checkpoint: Path | None = None
        self._attach: Attach | None = None
        self._early: list[RingCommand] = []
        self._obey: Callable[[RingCommand], None] | None = None
        self._is_stopping = False

    def hear(self) -> bool:
        """Act on what has arrived; False once the child is to stop. Never blocks."""
        try:
            messages = self._receiver.drain()
        except EOFError:
            self._is_stopping = True
            return False
        for message in messages:
            self._act_on(decode(message))
        return not self._is_stopping

    def _act_on(self, command: Command) -> None:
        match command:
            case Stop():
                self._is_stopping = True
            case Spaces():
                self._spaces = command
            case Attach():
                self._attach = command
            case Evaluate():
                self.last_checkpoint = Path(command.checkpoint)
            case AttachRing() | LetGo() if self._obey:
                self._obey(command)
            case AttachRing() | LetGo():
                self._early.append(command)

    def wait_for_spaces(self, tick: Callable[[], None]) -> Spaces:
        """The workers' spaces, once one of them has told; `tick` is called meanwhile. Raises `Stopped`."""
        while self._spaces is None:
            self._wait(tick)
        return self._spaces

    def wait_for_attach(self, tick: Callable[[], None]) -> Attach:
        """What to attach to, once it is there; `tick` is called meanwhile. Raises `Stopped`."""
        while self._attach is None:
            self._wait(tick)
        return self._attach

    def _wait(self, tick: Callable[[], None]) -> None:
        tick()
        wait([self._receiver.fileno()], COMMAND_WAIT_S)
        if not self.hear():
            raise Stopped

    def obey_with(self, obey: Callable[[RingCommand], None]) -> None:
        """Pass commands about rings to this handler: those that came before, then each new one."""
        self._obey = obey
        for command in self._early:
            obey(command)
        self._early.clear()
