"""The runs of bench_learning.py: which there are, under which conditions, and how one is made."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import subprocess
import sys
import threading
import time
import tomllib
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psutil

from aa2c.errors import ConfigError
from aa2c.host.usage import ran_and_waited_s
from aa2c.report.reading import Run, read_runs

FILES = Path(__file__).parent
TASKS: dict[str, dict[str, Any]] = tomllib.loads((FILES / "tasks.toml").read_text())
PERIOD_S = 0.01  # between stops of a slow worker; less than a rollout takes
LOOK_S = 0.2  # for the slow worker, while it starts or is restarted
PATIENCE = [  # at the lowest priority, a child may get no core for minutes
    word for option in ("start", "stall", "progress") for word in (f"--{option}-timeout-s", "1800")
]


@dataclass(frozen=True)
class Condition:
    """What is done to a run, beside its recipe.

    Pinned, all its processes have one core. A slow worker is stopped for as long as it works, as if it
    had a core of half the speed.
    """

    name: str
    flags: tuple[str, ...] = ()
    is_pinned: bool = False
    has_slow_worker: bool = False


USUAL = Condition("usual")
CONDITIONS = {
    condition.name: condition
    for condition in (
        USUAL,
        Condition("workers-1", ("--workers", "1")),
        Condition("workers-8", ("--workers", "8")),
        Condition("pinned", is_pinned=True),
        Condition("slow-worker", has_slow_worker=True),
    )
}


@dataclass(frozen=True)
class Case:
    """One run to make."""

    task: str
    mode: str
    seed: int
    condition: Condition = USUAL

    @property
    def directory(self) -> str:
        """Within --runs."""
        more = "" if self.condition == USUAL else f"-{self.condition.name}"
        return f"{self.task}-{self.mode}{more}-{self.seed}"

    def command(self, runs: Path) -> list[str]:
        """The command line that makes the run, or resumes it."""
        serve = [sys.executable, "-m", "aa2c", "serve", "--quiet", "--port", "0"]
        place = runs / self.directory
        task = TASKS[self.task]
        if _can_be_resumed(place):
            return [*serve, "--resume", str(place), *_consent(task.get("flags", ""))]
        return [
            *serve,
            *("--mode", self.mode, "--env", task["env"], "--seed", str(self.seed)),
            *("--total-env-steps", str(task["env_steps"]), "--eval-interval-s", "0"),
            *("--runs-dir", str(runs), "--name", self.directory),
            *PATIENCE,
            *shlex.split(task.get("flags", "")),
            *shlex.split(task.get(f"{self.mode}_flags", "")),
            *self.condition.flags,
        ]


def _can_be_resumed(place: Path) -> bool:
    return (place / "checkpoints").is_dir() and any((place / "checkpoints").iterdir())


def _set_aside(place: Path) -> bool:
    """Make room where a run ended before its first checkpoint; False if it is being trained."""
    with (place / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        names = (place.with_name(f"{place.name}.failed-{number}") for number in count(1))
        place.rename(next(name for name in names if not name.exists()))
    return True


def _consent(flags: str) -> list[str]:
    """A wrapper is imported again only if it is named again."""
    words = shlex.split(flags)
    return words[words.index("--wrapper") :][:2] if "--wrapper" in words else []


def finished(place: Path) -> Run | None:
    """The run there, if it has used up its budget."""
    try:
        (run,) = read_runs([place])
    except ConfigError:
        return None
    return run if run.metrics["env_steps"][-1] >= run.config.total_env_steps else None


class Maker:
    """Makes runs, or resumes them, in a directory; each pinned run has a core to itself."""

    def __init__(self, runs: Path, nice: int) -> None:
        self._runs = runs
        self._nice = nice
        self._cores: SimpleQueue[int] = SimpleQueue()
        for core in sorted(os.sched_getaffinity(0)):
            self._cores.put(core)

    def make(self, case: Case) -> str:
        """What went wrong, if anything did. A finished run is not repeated."""
        place = self._runs / case.directory
        if finished(place):
            return ""
        if place.is_dir() and not _can_be_resumed(place) and not _set_aside(place):
            return "it is already being trained"
        command = ["nice", "-n", str(self._nice), *case.command(self._runs)]
        if case.condition.is_pinned:
            core = self._cores.get()
            try:
                said = _run(["taskset", "--cpu-list", str(core), *command], case.condition)
            finally:
                self._cores.put(core)
        else:
            said = _run(command, case.condition)
        if finished(place):
            return ""
        return said.strip().splitlines()[-1] if said.strip() else "it was stopped"


def _run(command: list[str], condition: Condition) -> str:
    """Wait for a run to end; what it said on standard error."""
    with psutil.Popen(
        command,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(FILES), os.getenv("PYTHONPATH", "")])},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        has_ended = threading.Event()
        if condition.has_slow_worker:
            threading.Thread(target=slow_down, args=(process.pid, has_ended)).start()
        try:
            return str(process.communicate()[1])
        finally:
            has_ended.set()


def slow_down(pid: int, has_ended: threading.Event) -> None:
    """Halve the speed of the first worker of the run with this process, until it has ended."""
    while not has_ended.is_set():
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(pid).children():
                if child.name() == "aa2c-worker-0":
                    _halve(child, has_ended)
        has_ended.wait(LOOK_S)


def _halve(worker: psutil.Process, has_ended: threading.Event) -> None:
    """Until it is no more: stop it for as long as it runs or waits for a core."""
    first, stopped = _wanted_s(worker), 0.0
    while not has_ended.wait(PERIOD_S):
        owed = _wanted_s(worker) - first - stopped
        if owed <= 0:
            continue
        start = time.monotonic()
        worker.suspend()
        try:
            has_ended.wait(owed)
        finally:
            worker.resume()
        stopped += time.monotonic() - start


def _wanted_s(process: psutil.Process) -> float:
    """For how long it has run, or waited in a core's queue; not for records, or while it was stopped."""
    try:
        return sum(ran_and_waited_s(process.pid))
    except OSError:
        raise psutil.NoSuchProcess(process.pid) from None
