"""A Ray cluster of three nodes on this machine, in processes that are nobody's children.

A program: it prints the cluster's address, the pids of its raylets and of its head's server as JSON;
`kill N` and `add` on its standard input end a node at once and start another, and its end ends them all.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

STORE_BYTES = 78 * 2**20
START_S = 90.0


class Nodes:
    """The program, from outside."""

    def __init__(self, directory: Path, environment: dict[str, str], workers: int = 2) -> None:
        self._out = directory / "nodes.json"
        self._in = directory / "nodes.in"
        os.mkfifo(self._in)
        command = [sys.executable, "-m", __name__, str(self._in), str(self._out), str(workers)]
        kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        with (directory / "nodes.log").open("w") as log:
            subprocess.run(
                command,
                env=kept | {"PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"} | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._commands = self._in.open("w", buffering=1)
        self._wait_for(1)

    def _wait_for(self, answers: int) -> None:
        deadline = time.monotonic() + START_S
        while len(self._answers()) < answers:
            if time.monotonic() > deadline:
                raise TimeoutError(self._out.with_name("nodes.log").read_text()[-2000:])
            time.sleep(0.05)

    def _answers(self) -> list[dict]:
        with contextlib.suppress(FileNotFoundError):
            return [json.loads(line) for line in self._out.read_text().splitlines()]
        return []

    def _ask(self, command: str) -> None:
        before = len(self._answers())
        self._commands.write(f"{command}\n")
        self._wait_for(before + 1)

    @property
    def address(self) -> str:
        return self._answers()[-1]["address"]

    @property
    def raylets(self) -> list[int]:
        return self._answers()[-1]["raylets"]

    @property
    def head(self) -> int:
        return self._answers()[-1]["head"]

    def kill(self, index: int) -> None:
        self._ask(f"kill {index}")

    def add(self) -> None:
        self._ask("add")

    def close(self) -> None:
        self._ask("end")
        self._commands.close()


def main(commands: str, answers: str, workers: int) -> None:
    from ray.cluster_utils import Cluster

    options = {"object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
    head = cluster.head_node.all_processes["gcs_server"][0].process.pid
    nodes = [cluster.add_node(num_cpus=1, **options) for _ in range(workers)]

    def say() -> None:
        raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
        told = {"address": cluster.address, "raylets": raylets, "head": head}
        with open(answers, "a") as file:
            file.write(json.dumps(told) + "\n")

    with open(commands) as asked:
        say()
        for line in asked:
            match line.split():
                case ["kill", index]:
                    cluster.remove_node(nodes.pop(int(index)), allow_graceful=False)
                case ["add"]:
                    nodes.append(cluster.add_node(num_cpus=1, **options))
                case ["end"]:
                    nodes.clear()
                    cluster.shutdown()
            say()


if __name__ == "__main__" and os.fork() == 0:
    os.setsid()
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
