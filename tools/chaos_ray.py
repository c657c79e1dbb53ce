"""Chaos test of a run on a Ray cluster: its parts are killed and frozen at random; then an audit.

    python tools/chaos_ray.py --mode traj --minutes 5 --seed 0

Signals hit workers, updater, hosts and the engine; nodes end and others are added; the head is killed and
the cluster started again at its address. All nodes are on this machine. The exit code is 0 if the audit
passes: every record was learned from at most once and in order, what was lost is counted, counters
never decreased, and no processes or segments are left. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from chaos import Chaos, until_all_run
from ray_nodes import Nodes, audit, processes_of, segments_of, token_in

from aa2c import Config, Orchestrator
from aa2c.checkpoints.files import read_checkpoint
from aa2c.host import journal

MARK = "AA2C_CHAOS_RAY"  # in the environment of the cluster's processes
HEAD_IS_MISSED_S = 5  # instead of a minute, as Ray's own setting
MOST_FROZEN_S = 30.0  # longer than the 20 s after which a host is lost
GONE_WITHIN_S = 60.0
UPDATERS_SHARE = 0.1  # of the signals to it and to workers


class RayChaos(Chaos):
    """Faults in a run on these nodes."""

    def __init__(self, run: Orchestrator, seed: int, nodes: Nodes) -> None:
        super().__init__(run, seed)
        self._nodes = nodes
        self._changing = asyncio.Lock()  # one change of the cluster at a time

    def _faults(self) -> Sequence[Callable[[], None]]:
        of_run = (*4 * [self._kill], *2 * [self._stop], self._kill_engine)
        return (*of_run, *2 * [self._kill_host], self._freeze_host, self._end_node, self._end_head)

    def _victim(self) -> tuple[str, int] | None:
        """A worker that is there, mostly; else nobody."""
        status = self._run.status()
        children = [("worker", worker["pid"]) for worker in status["workers"]]
        if self._random.random() < UPDATERS_SHARE:
            children = [("updater", status["updater"]["pid"])]
        role, pid = self._random.choice(children)
        return (role, pid) if pid else None

    async def _continue(self, role: str, pid: int, after_s: float) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            await asyncio.sleep(after_s)
            process.resume()  # not another that has its pid by now
            self.acts[f"SIGCONT {role}"] += 1

    def _host(self) -> int | None:
        """The process that has some worker."""
        pids = [worker["pid"] for worker in self._run.status()["workers"] if worker["pid"]]
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            parent = psutil.Process(self._random.choice(pids)).parent()
            if parent and parent.name().startswith("ray::"):
                return int(parent.pid)
        return None

    def _kill_host(self) -> None:
        if pid := self._host():
            self._send(signal.SIGKILL, "host", pid)

    def _freeze_host(self) -> None:
        if pid := self._host():
            self._send(signal.SIGSTOP, "host", pid)
            self._later(self._continue("host", pid, self._random.uniform(0.5, MOST_FROZEN_S)))

    def _kill_engine(self) -> None:
        """Once all hosts are there again, which takes longest of all."""
        status = self._run.status()
        if {host["state"] for host in status["hosts"]} == {"running"} and status["engine"]["pid"]:
            self._send(signal.SIGKILL, "engine", status["engine"]["pid"])

    def _end_node(self) -> None:
        if not self._changing.locked():
            self._later(self._replace_node(self._random.randrange(len(self._nodes.raylets))))

    async def _replace_node(self, index: int) -> None:
        async with self._changing:
            self.acts["node ended"] += 1
            await asyncio.to_thread(self._nodes.kill, index)
            await asyncio.sleep(self._random.uniform(1.0, 20.0))
            await asyncio.to_thread(self._nodes.add)

    def _end_head(self) -> None:
        if not self._changing.locked():
            self._later(self._replace_cluster())

    async def _replace_cluster(self) -> None:
        async with self._changing:
            self._send(signal.SIGKILL, "head", self._nodes.head)
            await asyncio.sleep(self._random.uniform(1.0, 4.0) * HEAD_IS_MISSED_S)
            await asyncio.to_thread(self._nodes.again)


async def train(options: argparse.Namespace, directory: Path, nodes: Nodes) -> dict[str, Any]:
    """The run, its faults, and the audit. Raises `AssertionError` or `ValueError`."""
    config = Config(
        mode=options.mode,
        engine="ray",
        address=nodes.address,
        workers=2 * options.nodes,
        workers_per_host=2,
        num_envs=4,
        seed=options.seed,
        total_env_steps=10**12,
        runs_dir=str(directory / "runs"),
        hidden_sizes=(16,),
        checkpoint_interval_s=2.0,
        eval_interval_s=0.0,
        stall_timeout_s=15.0,
        max_restarts=10_000,
    )
    async with Orchestrator(config) as run:
        await run.ready()
        chaos = RayChaos(run, options.seed, nodes)
        chaos.most_pause_s = options.pause_s
        await chaos.inject(60 * options.minutes)
        await until_all_run(run, options.quiet_s)
        status = await run.stop()
    records = audit(run.dir, directory, status)
    dropped = sum((Counter(ring["dropped"]) for ring in status["rings"]), Counter())
    untold = sum(ring["untold"] for ring in status["rings"])
    assert not any(count for reason, count in dropped.items() if reason != "lost"), dropped
    exits = sum((Counter(worker["exits"]) for worker in status["workers"]), Counter())
    saved = read_checkpoint(run.dir, lambda files: files)
    return {
        "run": run.id,
        "dir": str(run.dir),
        "mode": options.mode,
        "minutes": options.minutes,
        "nodes": options.nodes,
        "acts": dict(sorted(chaos.acts.items())),
        "exits": {
            "workers": dict(exits),
            "updater": status["updater"]["exits"],
            "engine": status["engine"]["exits"],
        },
        "records": records,
        "counted": {"lost": dropped["lost"], "untold at most": untold},
        "env_steps": status["progress"]["env_steps"],
        "updates": status["progress"]["updates"],
        "checkpoint_env_steps": saved.counts["env_steps"],
    }


def left(directory: Path, run_id: str, run_dir: Path) -> list[str]:
    """Processes of this run and its cluster, and segments."""
    found = segments_of(run_id, run_dir)
    pids = (pid for pid in processes_of(run_id, run_dir) if pid != os.getpid())
    found += [f"process {pid}" for pid in pids]
    for process in psutil.process_iter(["name", "environ"]):
        is_ours = (process.info["environ"] or {}).get(MARK) == str(directory)
        if is_ours and process.info["name"] in ("gcs_server", "raylet"):
            found.append(f"{process.info['name']} {process.pid}")
    return found


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", choices=("grad", "traj"), default="traj")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--nodes", type=int, default=2, help="beside the head")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause-s", type=float, default=8.0, help="at most, between faults")
    parser.add_argument("--quiet-s", type=float, default=180.0, help="to recover in afterwards")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="aa2c-chaos-"))
    os.environ |= token_in(directory) | {
        MARK: str(directory),
        journal.VARIABLE: "1",
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(HEAD_IS_MISSED_S),
    }
    for_nodes = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    for_hosts = {"TMPDIR": str(directory), "RAY_TMPDIR": "/tmp"}  # sockets' paths must be short
    nodes = Nodes(directory, for_nodes | for_hosts, options.nodes)
    try:
        report = asyncio.run(train(options, directory, nodes))
    finally:
        nodes.close()
    ends_at = time.monotonic() + GONE_WITHIN_S
    while (
        found := left(directory, report["run"], Path(report["dir"]))
    ) and time.monotonic() < ends_at:
        time.sleep(0.5)
    assert not found, f"left behind: {found}"
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
