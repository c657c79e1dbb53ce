"""A Ray cluster of several nodes on this machine, in processes that are nobody's children.

A program: it tells the cluster's address, the pids of its raylets and of its head's server as lines of JSON;
`kill N`, `add` and `again` on its standard input end a node at once, start another, and end all nodes and
start as many at the same address. `end`, or the end of its input, ends them all, and the program.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from aa2c.host import journal

STORE_BYTES = 78 * 2**20
START_S = 200.0
TRIES = 4  # to start a node: Ray allows each 30 s, which are few on a busy machine


class Nodes:
    """The program, from outside."""

    def __init__(self, directory: Path, environment: dict[str, str], workers: int = 2) -> None:
        self._out = directory / "nodes.json"
        self._in = directory / "nodes.in"
        os.mkfifo(self._in)
        command = [sys.executable, __file__, str(self._in), str(self._out), str(workers)]
        kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        with (directory / "nodes.log").open("w") as log:
            subprocess.run(
                command,
                env=kept | {"PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"} | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=True,
            )
        # For both directions, which does not wait for a reader that may never come.
        self._commands = os.fdopen(os.open(self._in, os.O_RDWR), "w", buffering=1)
        try:
            self._wait_for(1)
        except TimeoutError:
            self._commands.close()  # which ends the program, whenever its nodes have started
            raise

    def _wait_for(self, answers: int) -> None:
        deadline = time.monotonic() + START_S
        while len(self._answers()) < answers:
            if time.monotonic() > deadline:
                raise TimeoutError(self._out.with_name("nodes.log").read_text()[-2000:])
            time.sleep(0.05)

    def _answers(self) -> list[dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError):
            return [json.loads(line) for line in self._out.read_text().splitlines()]
        return []

    def _ask(self, command: str) -> None:
        before = len(self._answers())
        self._commands.write(f"{command}\n")
        self._wait_for(before + 1)

    @property
    def address(self) -> str:
        return str(self._answers()[-1]["address"])

    @property
    def raylets(self) -> list[int]:
        return list(self._answers()[-1]["raylets"])

    @property
    def head(self) -> int:
        return int(self._answers()[-1]["head"])

    def kill(self, index: int) -> None:
        self._ask(f"kill {index}")

    def add(self) -> None:
        self._ask("add")

    def again(self) -> None:
        """End all that is left of them, and start as many as at first, at the same address."""
        self._ask("again")

    def close(self) -> None:
        try:
            self._ask("end")
        finally:
            self._commands.close()


def token_in(directory: Path) -> dict[str, str]:
    """A new token for a cluster, which Ray reads as these variables say."""
    token = directory / "token"
    token.write_text("0123456789abcdef" * 4)
    token.chmod(0o600)
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}


def segments_of(run_id: str, run_dir: Path) -> list[str]:
    """The shared memory of a run, and of its hosts, whose names have the end of its directory's."""
    names = [path.name for path in Path("/dev/shm").glob("aa2c-*")]
    return [name for name in names if _is_of(name, run_id, run_dir)]


def _is_of(text: str, run_id: str, run_dir: Path) -> bool:
    return f"-{run_id}-" in text or f"-{run_dir.name[-8:]}-" in text


def processes_of(run_id: str, run_dir: Path) -> list[int]:
    """All of a run, on whatever node: they map its memory, also once that is unlinked."""
    found = []
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):  # it has ended
            if _is_of(maps.read_text(), run_id, run_dir):
                found.append(int(maps.parent.name))
    return found


def collect_journals(run_dir: Path, scratch: Path) -> Path:
    """Bring a run's journals of its hosts, which are below `scratch`, to where `check` looks for them."""
    for path in scratch.glob(f"aa2c-host-{run_dir.name[-8:]}-*/journal/produced-*"):
        (run_dir / "journal" / path.name).write_bytes(path.read_bytes())
    return run_dir / "journal"


def audit(run_dir: Path, scratch: Path, status: dict[str, Any]) -> dict[str, int]:
    """What the journals tell of a run that has ended with this status, and may have lost hosts.

    Raises `AssertionError` or `ValueError` if a record was learned from twice or out of order, or was lost
    and not counted.
    """
    records = journal.check(collect_journals(run_dir, scratch))
    assert records["taken"] > 0
    counted = sum(ring["dropped"]["lost"] + ring["untold"] for ring in status["rings"])
    ends = sum(sum(worker["exits"].values()) for worker in status["workers"])
    # A worker may be killed between its journal and its ring.
    assert records["lost"] <= counted + ends, (records, counted, ends)
    return records


class _Cluster:
    """Its head and its other nodes, from inside."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._start()

    def _start(self, port: int | None = None) -> None:
        from ray.cluster_utils import Cluster

        self._options = {"object_store_memory": STORE_BYTES, "include_dashboard": False}
        head = {"num_cpus": 0, "gcs_server_port": port, **self._options}
        self.cluster = _trying(lambda: Cluster(initialize_head=True, head_node_args=head))
        self.nodes: list[Any] = []
        for _ in range(self._workers):
            self.add()

    def add(self) -> None:
        add = functools.partial(self.cluster.add_node, num_cpus=1, **self._options)
        self.nodes.append(_trying(add))

    def kill(self, index: int) -> None:
        self.cluster.remove_node(self.nodes.pop(index), allow_graceful=False)

    def again(self) -> None:
        port = int(self.cluster.address.rpartition(":")[2])
        self.end()
        self._start(port)

    def end(self) -> None:
        self.nodes.clear()
        self.cluster.shutdown()

    def told(self) -> str:
        raylets = [_pid_of(node, "raylet") for node in self.nodes]
        head = _pid_of(self.cluster.head_node, "gcs_server") if self.nodes else 0
        return json.dumps({"address": self.cluster.address, "raylets": raylets, "head": head})


def _trying(start: Callable[[], Any]) -> Any:
    for left in reversed(range(TRIES)):
        before = set(psutil.Process().children())
        try:
            return start()
        except Exception:
            if not left:
                raise
            for process in set(psutil.Process().children()) - before:
                process.kill()
    return None


def _pid_of(node: Any, name: str) -> int:
    return int(node.all_processes[name][0].process.pid)


def main(commands: str, answers: str, workers: int) -> None:
    """Do what is asked, one line after the other, and answer each."""
    with open(commands) as asked, open(answers, "a", buffering=1) as told:
        cluster = _Cluster(workers)
        told.write(f"{cluster.told()}\n")
        for line in asked:
            match line.split():
                case ["kill", index]:
                    cluster.kill(int(index))
                case ["add"]:
                    cluster.add()
                case ["again"]:
                    cluster.again()
                case ["end"]:
                    break
            told.write(f"{cluster.told()}\n")
        cluster.end()
        told.write(f"{cluster.told()}\n")


if __name__ == "__main__" and os.fork() == 0:
    os.setsid()
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
