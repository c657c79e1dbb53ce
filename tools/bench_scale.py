"""The overhead of a run by number of workers, with a null environment and a tiny network.

    python tools/bench_scale.py [--workers 1 4 16 64] [--seconds 20] [--json]

For each number of workers it starts `serve` as a user would, and prints

    first step    seconds from the command to the first env step
    running       seconds until every child is up
    CPU           of the orchestrator, in percent of one core: without clients, and while one client
                  requests /status fifty times per second
    memory        of the orchestrator and of a worker: proportional set size (PSS) in MB (10**6 bytes)
    p50, p99      latency of /status in ms, with all workers busy
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAUSE_S = 0.02  # between two requests: fifty per second
START_S = 600.0


def options_for(workers: int, directory: str) -> list[str]:
    """The command line: default options, except for the network and the environment."""
    return [
        sys.executable, "-m", "aa2c", "serve", "--preset", "none", "--env", "null_env:Null-v0",
        "--workers", str(workers), "--num-envs", "4", "--num-steps", "64", "--network", "mlp",
        "--hidden-sizes", "8", "--port", "0", "--quiet", "--eval-interval-s", "0",
        "--total-env-steps", str(10**12), "--runs-dir", directory, "--name", "scale",
        "--start-timeout-s", str(START_S), "--stall-timeout-s", str(START_S),
    ]  # fmt: skip


class Run:
    """A `serve` process, as a context manager."""

    def __init__(self, workers: int, directory: str) -> None:
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            options_for(workers, directory),
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(HERE)},
        )
        assert self._process.stdout is not None
        found = re.search(r"http://([^/:]+):(\d+)", self._process.stdout.readline())
        if not found:
            raise RuntimeError("serve printed no address")
        self._client = http.client.HTTPConnection(found[1], int(found[2]), timeout=60)

    def status(self) -> dict[str, Any]:
        """GET /status."""
        self._client.request("GET", "/status")
        document: dict[str, Any] = json.loads(self._client.getresponse().read())
        return document

    def wait_until(self, what: str, condition: Any) -> float:
        """Seconds from the command until the status meets the condition."""
        while not condition(self.status()):
            if time.perf_counter() - self.started > START_S:
                raise TimeoutError(f"{what} took more than {START_S:g} s")
            time.sleep(PAUSE_S)
        passed = time.perf_counter() - self.started
        self._client.close()  # the server closes idle connections; the next request opens another
        return passed

    @property
    def cpu_s(self) -> float:
        """CPU time of the orchestrator so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> tuple[float, float]:
        """MB of the orchestrator, and of a worker on average."""
        workers = [worker["pid"] for worker in self.status()["workers"]]
        return _pss(self._process.pid), statistics.mean(_pss(pid) for pid in workers)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._process.terminate()
        self._process.wait(60)


def _pss(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def measure(workers: int, seconds: float) -> dict[str, float]:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as directory, Run(workers, directory) as run:
        first = run.wait_until("the first env step", lambda s: s["progress"]["env_steps"] > 0)
        running = run.wait_until("every child", lambda s: s["run"]["state"] == "running")
        cpu = _cpu_share(run, lambda: time.sleep(seconds))
        latencies: list[float] = []
        cpu_asked = _cpu_share(run, lambda: _ask_for(run, seconds, latencies))
        own, worker = run.memory()
    cuts = statistics.quantiles(latencies, n=100)
    return {
        "workers": workers,
        "first_step_s": first,
        "running_s": running,
        "cpu_percent": 100 * cpu,
        "asked_percent": 100 * cpu_asked,
        "orchestrator_mb": own,
        "worker_mb": worker,
        "p50_ms": cuts[49],
        "p99_ms": cuts[98],
        "requests": len(latencies),
    }


def _cpu_share(run: Run, act: Callable[[], None]) -> float:
    """CPU time of the orchestrator per second, during a call."""
    began, before = time.perf_counter(), run.cpu_s
    act()
    return (run.cpu_s - before) / (time.perf_counter() - began)


def _ask_for(run: Run, seconds: float, latencies: list[float]) -> None:
    """Request /status repeatedly; collect latencies in ms."""
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        asked = time.perf_counter()
        run.status()
        latencies.append(1000 * (time.perf_counter() - asked))
        time.sleep(PAUSE_S)


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds per measurement")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    rows = []
    for workers in options.workers:
        rows.append(measure(workers, options.seconds))
        if not options.json:
            if len(rows) == 1:
                print("".join(f"{name:>17}" for name in rows[0]))
            print("".join(f"{value:>17,.1f}" for value in rows[-1].values()), flush=True)
    if options.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
