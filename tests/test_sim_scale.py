"""tools/sim_scale.py: what must hold of any queueing simulation, and its command line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

TOOLS = Path(__file__).parent.parent / "tools"


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import scale_queues

    return scale_queues


# Every stage is the slowest of one of these.
CASES = {
    "local": {},
    "local, cores busy": {"cores": 2, "workers": 8, "env_rate": 10e3},
    "local, grad": {"mode": "grad", "workers": 8},
    "ray, workers": {"engine": "ray", "env_rate": 5e3},
    "ray, updater": {"engine": "ray", "workers": 200, "batch_records": 8},
    "ray, network": {"engine": "ray", "workers": 64, "gbps": 0.02, "learn_rate": 1e6},
    "ray, bridge": {"engine": "ray", "workers": 64, "copy_mbps": 2.0, "learn_rate": 1e6},
    "ray, packed": {"engine": "ray", "workers": 64, "gbps": 0.02, "compression": 20.0},
    "ray, pre-sums": {"engine": "ray", "mode": "grad", "workers": 64, "presum": True},
    "ray, updaters": {"engine": "ray", "workers": 64, "updaters": 4, "batch_records": 16},
}


@pytest.mark.parametrize("case", CASES)
def test_records_are_conserved_and_no_stage_is_faster_than_it_can_be(tool, case):
    model = tool.Model(**{"workers": 4} | CASES[case])
    simulation = tool.Simulation(model)
    simulation.run(20.0)
    hosts = sum(len(host.ready) for host in simulation._hosts)
    queued = sum(map(len, simulation.pending)) + sum(map(len, simulation.updating))
    assert simulation.made == simulation.learned + hosts + simulation.on_the_way + queued
    assert simulation.learned > 0
    assert 0 < simulation.most_in_flight <= model.workers * model.slots
    assert all(0 <= credits <= model.slots for credits in simulation.credits)

    found = simulation.result()
    edge = 2 * model.units_per_update * model.steps / 20.0  # an update more or less is counted
    if model.presum:
        edge *= model.workers_per_host * model.slots
    assert found["env_steps_per_s"] <= 1.02 * min(model.capacities().values()) + edge
    assert all(0 <= share <= 1.0001 for share in found["utilization"].values())


@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("workers", [1, 8, 40])
def test_policy_lag_is_bounded_by_the_credits(tool, workers, slots):
    model = tool.Model(workers=workers, slots=slots, batch_records=max(1, workers // 4))
    simulation = tool.Simulation(model)
    simulation.run(20.0)
    assert max(simulation.lags) <= slots * workers / model.units_per_update + 1


@pytest.mark.parametrize("stage", ["updater", "network", "bridge", "workers"])
def test_it_tells_what_saturates_and_reaches_its_capacity(tool, stage):
    model = tool.Model(**{"workers": 4} | CASES[f"ray, {stage}"])
    simulation = tool.Simulation(model)
    simulation.run(30.0)
    found = simulation.result()
    assert found["saturates"] == stage
    assert found["env_steps_per_s"] > 0.8 * min(model.capacities().values())


def rate(tool, model):
    simulation = tool.Simulation(model)
    simulation.run(20.0)
    return simulation.result()["env_steps_per_s"]


def test_compression_pre_sums_and_more_updaters_buy_what_they_relieve(tool):
    network = tool.Model(**CASES["ray, network"])
    assert rate(tool, replace(network, compression=20.0)) > 3 * rate(tool, network)
    updater = tool.Model(**CASES["ray, updater"])
    assert rate(tool, replace(updater, updaters=4)) > 2 * rate(tool, updater)
    # Summed is what waits while an exchange is under way, so that a slow network lets much wait.
    pushes = tool.Model(engine="ray", mode="grad", workers=64, gbps=0.02, learn_rate=1e6)
    assert rate(tool, replace(pushes, presum=True)) > 3 * rate(tool, pushes)


def test_the_same_seed_gives_the_same_run(tool):
    model = tool.Model(workers=8)
    assert rate(tool, model) == rate(tool, model)


def run(*arguments):
    command = [sys.executable, str(TOOLS / "sim_scale.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_line_reads_a_bench_and_flags_win(tmp_path):
    rates = {"env": 200e3, "act": 400e3, "learn": 80e3, "ring": 500.0, "link_calls": 800.0}
    config = {"mode": "traj", "env": "CartPole-v1", "num_envs": 16, "num_steps": 32}
    bench = {"medians": rates | {"link_records": 900.0}, "cores": 2, "config": config}
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(bench))
    args = ("--bench", str(path), "--engine", "ray", "--workers", "2", "40", "--json")
    done = run(*args)
    assert done.returncode == 0, done.stderr
    two, forty = map(json.loads, done.stdout.splitlines())
    assert (two["workers"], forty["workers"]) == (2, 40)
    assert two["utilization"]["bridge"] > 0
    faster = json.loads(run(*args, "--learn-rate", "1e6").stdout.splitlines()[1])
    assert faster["env_steps_per_s"] > 2 * forty["env_steps_per_s"]


def test_the_command_line_prints_a_table_and_refuses_what_makes_no_sense():
    table = run("--workers", "1", "2").stdout.splitlines()
    assert len(table) == 4
    assert table[-1].startswith("| 2 |")
    for wrong in (("--presum",), ("--workers", "0"), ("--learn-rate", "0")):
        done = run(*wrong)
        assert done.returncode == 2
        assert "error" in done.stderr
