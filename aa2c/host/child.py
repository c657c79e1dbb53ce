"""What every child process does first and last, whatever its role.

Runs in the child. It takes a process title, dies with its parent, opens the log, connects its port,
runs its role, and turns whatever goes wrong into a message for the orchestrator and a traceback in
the log. Its exit code is a message too: 0 told to stop, 3 never came up, 1 crashed.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import functools
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

import setproctitle

from aa2c import failpoint
from aa2c.checkpoints.files import newest_since, worker_state
from aa2c.config.config import Config
from aa2c.errors import Aa2cError, StartError
from aa2c.host.ports import Board, ShmEvaluatorPort, ShmUpdaterPort, ShmWorkerPort
from aa2c.log import LogFile, make_logger
from aa2c.shm.board import ParameterBoard
from aa2c.shm.counters import run_row, updater_row, worker_row
from aa2c.shm.queue import Receiver, Sender
from aa2c.shm.ring import RingConsumer, RingProducer
from aa2c.shm.segment import STORES_ARE_ORDERED, Segment
from aa2c.shm.shared_model import SharedModel
from aa2c.shm.slot import ArraySpec, slot_bytes
from aa2c.shm.wakeup import Wakeup

COMMAND_WAIT_S = 0.02
CROWD_NICENESS = 10  # of workers that are more than cores: nobody else shall queue behind them
EVALUATOR_NICENESS = 5  # beyond the workers'
_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4

Role = Literal["worker", "updater", "evaluator"]


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """All that a child is told at its start; the rest comes as an `attach` command."""

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
    resume: Path | None
    env_steps_before: int
    started_at: float
    parent_pid: int
    dies_with_parent_thread: bool

    @property
    def title(self) -> str:
        return f"aa2c-worker-{self.index}" if self.role == "worker" else f"aa2c-{self.role}"


class Stopped(Exception):
    """Told to stop before it had come up."""


class Commands:
    """The commands that have come from the orchestrator."""

    def __init__(self, connection: Connection) -> None:
        self._receiver = Receiver(connection)
        self._on: dict[str, Callable[[dict[str, Any]], None]] = {}
        self._is_stopping = False

    def on(self, kind: str, act: Callable[[dict[str, Any]], None]) -> None:
        """Call `act` with each command of this kind."""
        self._on[kind] = act

    def hear(self) -> bool:
        """Act on what has arrived; False once the child is to stop. Never blocks."""
        try:
            messages = self._receiver.drain()
        except EOFError:
            self._is_stopping = True
            return False
        for message in messages:
            if message["kind"] == "stop":
                self._is_stopping = True
            else:
                self._on[message["kind"]](message)
        return not self._is_stopping

    def wait_for(self, kind: str) -> dict[str, Any]:
        """The first command of this kind. Raises `Stopped`."""
        heard: list[dict[str, Any]] = []
        self.on(kind, heard.append)
        while not heard:
            wait([self._receiver.fileno()], COMMAND_WAIT_S)
            if not self.hear():
                raise Stopped
        return heard[0]


def main(spec: ChildSpec) -> None:
    """Entry point of a child process."""
    _join_parent(spec)
    keep_freed_memory()
    _redirect_output(spec.run_dir / "output.log")
    setproctitle.setproctitle(spec.title)
    log = make_logger(LogFile(spec.run_dir / "log.jsonl"), spec.title)
    log = log.bind(generation=spec.generation)
    exit_code = _run(spec, log)
    sys.stdout.flush()
    os._exit(exit_code)  # at once: the interpreter's own way out takes torch half a second


def _run(spec: ChildSpec, log: Any) -> int:
    """Run the role to its end; returns the exit code."""
    report = Sender(spec.reports)
    try:
        failpoint.arm(spec.title, spec.generation)
        _import_torch()
        _ROLES[spec.role](spec, Commands(spec.commands), report)
    except (Stopped, KeyboardInterrupt):
        return 0
    except Exception as error:
        _report_failure(error, log, report)
        return error.exit_code if isinstance(error, Aa2cError) else 1
    return 0


def _import_torch() -> None:
    """With one thread of maths. Nothing that it makes is garbage: no collection looks at it."""
    gc.disable()
    import torch

    torch.set_num_threads(1)
    gc.freeze()
    gc.enable()


def _report_failure(error: Exception, log: Any, report: Sender) -> None:
    is_plain = isinstance(error, StartError) and error.__cause__ is None
    log.error("failed", error=str(error), exc_info=not is_plain)
    sentence = str(error) if isinstance(error, Aa2cError) else f"{type(error).__name__}: {error}"
    with contextlib.suppress(OSError):  # nobody is there to hear it
        report.send("error", message=sentence[:4000])


def _join_parent(spec: ChildSpec) -> None:
    """Own process group, so that a terminal's Ctrl-C reaches the orchestrator only; two bonds."""
    os.setpgid(0, 0)
    if spec.dies_with_parent_thread:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != spec.parent_pid:
        os._exit(1)
    threading.Thread(target=_exit_with_parent, name="parent-watch", daemon=True).start()


def keep_freed_memory() -> None:
    """Let glibc keep what is freed: the kernel would hand out each batch's buffers page by page.

    Another C library has no such setting, or needs none.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _exit_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _redirect_output(path: Path) -> None:
    """What libraries print goes to a file of the run, and so does a crash's stack."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    faulthandler.enable()


def run_worker_role(spec: ChildSpec, commands: Commands, report: Sender) -> None:
    """Run a worker whose port is shared memory."""
    from aa2c.roles.worker import run_worker

    config = spec.config

    def connect() -> ShmWorkerPort:
        os.nice(_workers_niceness(config))
        attach = commands.wait_for("attach")
        counters = Segment.attach(spec.counters_segment)
        ring = RingProducer(
            Segment.attach(attach["ring"]),
            config.ring_slots,
            attach["slot_bytes"],
            [ArraySpec(name, dtype, tuple(shape)) for name, dtype, shape in attach["arrays"]],
            worker=spec.index,
            generation=spec.generation,
            payload_checksum=has_payload_checksum(config),
        )
        return ShmWorkerPort(
            config,
            ring,
            attach_board(config, attach),
            worker_row(counters, spec.index),
            run_row(counters),
            updater=updater_row(counters),
            space=spec.spaces[spec.index],
            records=spec.records,
            hear=commands.hear,
            report=report.send,
            run_dir=spec.run_dir,
        )

    saved_state = None
    if config.deterministic and spec.resume:
        saved_state = worker_state(spec.resume, config, spec.index)
    entropy = (config.seed, spec.index, spec.generation, spec.env_steps_before)
    run_worker(config, spec.index, entropy, connect, saved_state)


def _workers_niceness(config: Config) -> int:
    """How far workers stand behind orchestrator and updater on the CPU, once they have come up."""
    return CROWD_NICENESS if config.workers > len(os.sched_getaffinity(0)) else 0


def attach_board(config: Config, attach: dict[str, Any]) -> Board:
    """The parameter board, or in mode model the shared model, that a command names."""
    segment = Segment.attach(attach["board"])
    if attach["shared"]:
        is_locked = config.update_order != "hogwild"
        return SharedModel(segment, attach["shared"], is_locked=is_locked)
    return ParameterBoard(segment, attach["num_params"])


def has_payload_checksum(config: Config) -> bool:
    """Whether records carry a checksum of their arrays."""
    return config.payload_checksum == "on" or (
        config.payload_checksum == "auto" and not STORES_ARE_ORDERED
    )


def run_updater_role(spec: ChildSpec, commands: Commands, report: Sender) -> None:
    """Run the updater with shared memory for its port."""
    from aa2c.roles.updater import run_updater

    run_updater(
        spec.config,
        spec.run_dir,
        functools.partial(_connect_updater, spec, commands, report),
        lambda: newest_since(spec.run_dir, spec.started_at, spec.resume),
        is_restart=spec.generation > 0,
    )


def _connect_updater(
    spec: ChildSpec,
    commands: Commands,
    report: Sender,
    num_params: int,
    arrays: list[ArraySpec],
    shared: dict[str, int],
) -> ShmUpdaterPort:
    """Tell how large records and parameters are, and wait for the memory that they need."""
    record_bytes = slot_bytes(tuple(arrays))
    report.send(
        "spec",
        num_params=num_params,
        slot_bytes=record_bytes,
        arrays=arrays,
        shared=list(shared.items()),
    )
    attached: list[dict[str, Any]] = []
    gone: list[dict[str, Any]] = []
    commands.on("attach_ring", attached.append)
    commands.on("let_go", gone.append)
    port = ShmUpdaterPort(
        spec.config,
        attach_board(spec.config, commands.wait_for("attach")),
        Segment.attach(spec.counters_segment),
        spaces=spec.spaces,
        records=spec.records,
        hear=commands.hear,
        report=report.send,
        run_dir=spec.run_dir,
        generation=spec.generation,
    )

    def attach_ring(command: dict[str, Any]) -> None:
        segment, slots = Segment.attach(command["ring"]), spec.config.ring_slots
        whose = {"worker": command["worker"], "generation": command["generation"]}
        port.attach_ring(RingConsumer(segment, slots, record_bytes, **whose))

    commands.on("attach_ring", attach_ring)
    commands.on("let_go", lambda command: port.let_go(command["worker"]))
    for command in attached:
        attach_ring(command)
    for command in gone:
        port.let_go(command["worker"])
    return port


def run_evaluator_role(spec: ChildSpec, commands: Commands, report: Sender) -> None:
    """Run the evaluator with shared memory for its port, behind everyone else on the CPU.

    But for its start, which would otherwise take a minute on a busy machine.
    """
    from aa2c.roles.evaluator import run_evaluator

    def connect() -> ShmEvaluatorPort:
        os.nice(_workers_niceness(spec.config) + EVALUATOR_NICENESS)
        return ShmEvaluatorPort(
            spec.config,
            attach_board(spec.config, commands.wait_for("attach")),
            Segment.attach(spec.counters_segment),
            hear=commands.hear,
            report=report.send,
        )

    run_evaluator(spec.config, connect)


_ROLES: dict[Role, Callable[[ChildSpec, Commands, Sender], None]] = {
    "worker": run_worker_role,
    "updater": run_updater_role,
    "evaluator": run_evaluator_role,
}
