"""Hosts of workers that are elsewhere: in the status, in metrics and at the terminal."""

from __future__ import annotations

import collections
from types import SimpleNamespace

from rich.console import Console

from aa2c import Config
from aa2c.cli.terminal import display
from aa2c.host.incarnation import ChildSlot
from aa2c.host.memory import RunMemory
from aa2c.host.usage import ProcessUsage
from aa2c.run import status as run_status
from aa2c.run.status import MOST_SHOWN, Returns, make_status
from aa2c.web.prometheus import RunCollector

HOST = {
    "name": "node-1",
    "address": "10.0.0.2",
    "workers": 8,
    "state": "running",
    "restarts": 2,
    "env_steps": 1234,
    "exchanges_per_s": 20.0,
    "bytes_per_s": 24_000_000,
    "round_trip_ms": 1.5,
}
HOSTS = [HOST, {**HOST, "name": "node-2", "state": "lost"}]


def status_of(workers):
    """Of a run with so many workers, of which one is running and the others are still coming up."""
    config = Config(engine="ray", mode="traj", workers=workers)
    memory = RunMemory(config, "hosts", here=range(0))
    running = SimpleNamespace(is_alive=True, is_ready=True, pid=7, is_watched_elsewhere=True)
    engine = SimpleNamespace(
        telemetry=memory.counters,
        updater=ChildSlot("updater", exits=collections.Counter()),
        evaluator=ChildSlot("evaluator"),
        workers=[ChildSlot("worker", i, running if i else None) for i in range(workers)],
        ring_status=memory.ring_status,
        hosts=lambda: HOSTS,
        bridge=ChildSlot("engine", restarts=1, exits=collections.Counter({"SIGKILL": 1})),
        usage=ProcessUsage(),
    )
    run = dict.fromkeys(("id", "name", "mode", "env", "error", "stall"), "") | {
        "uptime_s": 1.0,
        "state": "running",
        "stall": None,
    }
    tests = {policy: run_status.TestReturns() for policy in ("greedy", "sampled")}
    try:
        status = make_status(run, config, engine, (Returns(), tests)) | {"warnings": []}
        families = list(RunCollector(lambda: status, memory.counters.lag_histogram).collect())
    finally:
        memory.release()
    return status, families


def test_hosts_are_in_status_metrics_and_at_the_terminal():
    status, families = status_of(2)
    assert status["hosts"] == HOSTS
    samples = {(s.name, *s.labels.values()): s.value for f in families for s in f.samples}
    assert samples["aa2c_host_up", "0"] == 1
    assert samples["aa2c_host_up", "1"] == 0
    assert samples["aa2c_host_restarts_total", "0"] == 2
    assert samples["aa2c_engine_restarts_total",] == 1
    assert samples["aa2c_process_exits_total", "engine", "SIGKILL"] == 1
    assert samples["aa2c_ring_untold_total", "0"] == 0
    assert status["engine"]["restarts"] == 1
    assert samples["aa2c_host_round_trip_seconds", "0"] == 0.0015
    assert samples["aa2c_host_env_steps_total", "0"] == 1234
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(display(status, None, 5))
    console.file.close()
    lines = console.export_text().splitlines()
    of_hosts = [line.strip() for line in lines if line.startswith("host ")]
    assert of_hosts[0].startswith("host node-2 10.0.0.2  8 workers  lost"), "in trouble: first"
    assert of_hosts[1].endswith("2 restarts  20 exchanges/s  24.0 MB/s  round trip 1.5 ms")
    assert "engine starting  restarted 1 times, after SIGKILL 1" in (line.strip() for line in lines)


def test_of_very_many_workers_only_those_in_trouble_are_shown_one_by_one():
    status, families = status_of(MOST_SHOWN)
    assert len(status["workers"]) == len(status["rings"]) == MOST_SHOWN
    status, families = status_of(MOST_SHOWN + 1)
    assert [worker["id"] for worker in status["workers"]] == [0]
    assert [ring["worker"] for ring in status["rings"]] == [0]
    (up,) = [family for family in families if family.name == "aa2c_worker_up"]
    assert [sample.labels for sample in up.samples] == [{"worker": "0"}]
