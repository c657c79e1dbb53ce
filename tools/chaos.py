"""Chaos test of a real run: kills, suspensions, HTTP abuse, a full /dev/shm and a full disk; then an audit.

    python tools/chaos.py --mode grad --minutes 30 --seed 0

Random SIGKILL, SIGTERM, SIGSTOP and SIGCONT hit workers, updater and evaluator; the endpoint gets garbage;
as root, a small /dev/shm of its own is filled briefly, and at the end the disk. The exit code is 0 if the
audit passes: every record was learned from at most once and in order, counters never decreased, the run kept
making progress, and no descriptors, threads, memory, segments or processes leaked. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from aa2c import Config, Orchestrator, RunFailed
from aa2c.checkpoints.files import read_checkpoint
from aa2c.host import journal
from aa2c.run.status import TRAINING_STATES

SMALL_SHM = "64m"
SMALL_DISK = "256m"
INSIDE = "AA2C_CHAOS_INSIDE"
MOST_MORE_DESCRIPTORS = 8
MOST_MORE_BYTES = 64 * 2**20
FULL_DISK_S = 20.0  # within which it must have been noticed
QUIET_S = 60.0  # for all children to run again afterwards
ABUSE = (
    b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"POST /control/stop HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999999999\r\n\r\n{",
    b"\x00" * 4096,
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
    b"GET /static/../../../../etc/passwd HTTP/1.0\r\n\r\n",
    b"",
)


class Chaos:
    """Faults injected into a run, drawn from a seed, and the counters seen meanwhile."""

    def __init__(self, run: Orchestrator, seed: int) -> None:
        self._run = run
        self._random = random.Random(seed)
        self._pending: set[asyncio.Task[None]] = set()
        self.acts: collections.Counter[str] = collections.Counter()
        self._seen: dict[str, float] = {}

    def _faults(self) -> Sequence[Callable[[], None]]:
        """One of them is drawn at a time."""
        return (self._kill, self._kill, self._kill, self._stop, self._abuse, self._fill)

    async def inject(self, seconds: float) -> None:
        """Inject one fault after another."""
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at and self._run.state in TRAINING_STATES:
            self._random.choice(self._faults())()
            wait_until = time.monotonic() + self._random.uniform(0.05, 2.0)
            while time.monotonic() < wait_until:
                self.look()
                await asyncio.sleep(0.02)
        for task in list(self._pending):
            await task

    def look(self) -> None:
        """Check that no counter has decreased."""
        status = self._run.status()
        now = dict(status["progress"]) | {
            f"ring {ring['worker']}": ring["committed"] for ring in status["rings"]
        }
        now |= {f"worker {worker['id']}": worker["env_steps"] for worker in status["workers"]}
        now.pop("time_left_s")
        for name, value in now.items():
            assert value >= self._seen.get(name, 0), f"{name} decreased to {value}"
        self._seen = now

    def _victim(self) -> tuple[str, int] | None:
        status = self._run.status()
        children = [("worker", worker["pid"]) for worker in status["workers"]]
        children += [("updater", status["updater"]["pid"])]
        children += [("evaluator", status["evaluator"]["pid"])]
        role, pid = self._random.choice(children)
        return (role, pid) if pid else None

    def _send(self, number: signal.Signals, role: str, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            self.acts[f"{number.name} {role}"] += 1

    def _kill(self) -> None:
        if victim := self._victim():
            self._send(
                self._random.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)), *victim
            )

    def _stop(self) -> None:
        if victim := self._victim():
            self._send(signal.SIGSTOP, *victim)
            self._later(self._continue(*victim, self._random.uniform(0.1, 6.0)))

    async def _continue(self, role: str, pid: int, after_s: float) -> None:
        await asyncio.sleep(after_s)
        if any(child.pid == pid for child in psutil.Process().children()):
            self._send(signal.SIGCONT, role, pid)

    def _abuse(self) -> None:
        self.acts["http"] += 1
        self._later(self._send_garbage(self._random.choice(ABUSE)))

    async def _send_garbage(self, garbage: bytes) -> None:
        assert self._run.url is not None
        port = int(self._run.url.rstrip("/").rpartition(":")[2])
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(garbage)
            await asyncio.wait_for(reader.read(100), 2.0)
            writer.close()

    def _fill(self) -> None:
        """Fill /dev/shm for a while: a worker restarted meanwhile gets no ring."""
        if os.environ.get(INSIDE):
            self.acts["full /dev/shm"] += 1
            path = f"/dev/shm/filler-{self.acts['full /dev/shm']}"  # two may exist at a time
            self._later(_fill_for(path, self._random.uniform(0.5, 3.0)))

    def _later(self, act: Any) -> None:
        task = asyncio.create_task(act)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)


async def _fill_for(path: str, seconds: float) -> None:
    fill(path)
    await asyncio.sleep(seconds)
    os.unlink(path)


def fill(path: str) -> None:
    """Fill a file system."""
    with contextlib.suppress(OSError), open(path, "ab", buffering=0) as file:
        while file.write(b"\0" * 65536) == 65536:
            pass


def held(run: Orchestrator) -> dict[str, int]:
    """Resources of this process, and the updater's descriptors, which grow with each new ring."""
    me, updater = psutil.Process(), psutil.Process(run.status()["updater"]["pid"])
    return {
        "descriptors": me.num_fds(),
        "threads": me.num_threads(),
        "rss": me.memory_info().rss,
        "updater_descriptors": updater.num_fds(),
    }


async def until_all_run(run: Orchestrator, within_s: float = QUIET_S) -> None:
    """Wait until every child runs again and the run makes progress."""

    def is_well() -> bool:
        status = run.status()
        states = [worker["state"] for worker in status["workers"]] + [status["updater"]["state"]]
        return set(states) == {"running"}

    try:
        async with asyncio.timeout(within_s):
            while not is_well():  # noqa: ASYNC110 (what is waited for sets no event)
                await asyncio.sleep(0.1)
            wanted = run.status()["progress"]["updates"] + 3
            while run.status()["progress"]["updates"] <= wanted:  # noqa: ASYNC110 (as above)
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"no progress: {json.dumps(run.status(), indent=1)}") from None


async def train(options: argparse.Namespace, runs_dir: str) -> dict[str, Any]:
    """The run, its faults, and the audit. Raises `AssertionError` or `ValueError`."""
    config = Config(
        mode=options.mode,
        env=options.env,
        workers=3,
        num_envs=4,
        seed=options.seed,
        total_env_steps=10**12,
        runs_dir=runs_dir,
        port=0,
        hidden_sizes=(16,),
        checkpoint_interval_s=2.0,
        eval_interval_s=3.0,
        eval_episodes=2,
        stall_timeout_s=4.0,
        start_timeout_s=60.0,
        max_restarts=10_000,
    )
    async with Orchestrator(config, http=True) as run:
        await run.ready()
        chaos = Chaos(run, options.seed)
        await chaos.inject(0.2 * 60 * options.minutes)
        await until_all_run(run)
        early = held(run)
        await chaos.inject(0.8 * 60 * options.minutes)
        await until_all_run(run)
        late = held(run)
        for name in ("descriptors", "updater_descriptors"):
            assert late[name] <= early[name] + MOST_MORE_DESCRIPTORS, (early, late)
        assert late["threads"] <= early["threads"], (early, late)
        assert late["rss"] <= early["rss"] + MOST_MORE_BYTES, (early, late)
        ending = await end(run)
        status = run.status()
    (run.dir / "filler").unlink(missing_ok=True)
    records = journal.check(run.dir / "journal")
    assert records["taken"] > 0
    dropped = collections.Counter()
    for ring in status["rings"]:
        dropped.update(ring["dropped"])
    damaged = {reason: count for reason, count in dropped.items() if reason != "lost"}
    assert not any(damaged.values()), damaged
    saved = read_checkpoint(run.dir, lambda files: files)
    return {
        "mode": options.mode,
        "minutes": options.minutes,
        "acts": dict(sorted(chaos.acts.items())),
        "exits": {
            "workers": [worker["exits"] for worker in status["workers"]],
            "updater": status["updater"]["exits"],
            "evaluator": status["evaluator"]["exits"],
        },
        "records": records,
        "env_steps": status["progress"]["env_steps"],
        "updates": status["progress"]["updates"],
        "checkpoint_env_steps": saved.counts["env_steps"],
        "held_early": early,
        "held_late": late,
        "ending": ending,
    }


async def end(run: Orchestrator) -> str:
    """End the run, on a full disk if it is a small one: reported, and the last checkpoint survives."""
    told = ""
    if os.environ.get(INSIDE):
        fill(f"{run.dir}/filler")
        ends_at = time.monotonic() + FULL_DISK_S
        while not _warnings_of(run, "No space left"):
            assert time.monotonic() < ends_at, "a full disk was not noticed"
            await asyncio.sleep(0.1)
        told = f"with a full disk, after {_warnings_of(run, 'No space left')} warnings about it; "
    try:
        await asyncio.wait_for(run.stop(), 60)
    except RunFailed as error:
        return f"{told}{error}"
    return f"{told}stopped"


def _warnings_of(run: Orchestrator, words: str) -> int:
    return sum(words in line["text"] for line in run.status()["log"])


def inside(command: list[str]) -> int | None:
    """Rerun this program with a small /dev/shm and disk; None if that is not permitted."""
    disk = tempfile.mkdtemp()
    script = (
        f"mount -t tmpfs -o size={SMALL_SHM} tmpfs /dev/shm && "
        f'mount -t tmpfs -o size={SMALL_DISK} tmpfs "$0" && exec "$@"'
    )
    probe = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, disk, "true"], capture_output=True, check=False
    )
    if probe.returncode:
        return None
    environment = os.environ | {INSIDE: disk}
    wrapped = ["unshare", "-m", "sh", "-c", script, disk, *command]
    try:
        return subprocess.run(wrapped, env=environment, check=False).returncode
    finally:
        shutil.rmtree(disk, ignore_errors=True)


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", choices=("grad", "model", "traj"), default="grad")
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not os.environ.get(INSIDE):
        code = inside([sys.executable, *sys.argv])
        if code is not None:
            sys.exit(code)
        print("without root, /dev/shm and the disk are not filled", file=sys.stderr)
    os.environ[journal.VARIABLE] = "1"
    runs_dir = os.environ.get(INSIDE) or tempfile.mkdtemp()
    before = {path.name for path in Path("/dev/shm").iterdir()}
    report = asyncio.run(train(options, runs_dir))
    left = {path.name for path in Path("/dev/shm").iterdir()} - before
    assert not left, f"leaked segments: {left}"
    children = [child.name() for child in psutil.Process().children() if "aa2c" in child.name()]
    assert not children, f"leaked processes: {children}"
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
