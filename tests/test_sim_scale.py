"""tools/sim_scale.py: what must hold of any queueing simulation, and its command line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

TOOLS = Path(__file__).parent.parent / "tools"


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import scale_model
    import scale_queues

    return SimpleNamespace(Model=scale_model.Model, Simulation=scale_queues.Simulation)


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
    "ray, on one machine": {"engine": "ray", "mode": "grad", "one_machine": True},
    "ray, calls": {"engine": "ray", "mode": "grad", "call_host_us": 30e3, "call_engine_us": 20e3},
    "ray, large": {"engine": "ray", "workers": 8, "params_engine_us": 50e3, "record_host_us": 50e3},
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


def test_the_cpu_time_of_calls_slows_down_whom_it_takes_the_cores_from(tool):
    free = dict.fromkeys(("call_engine_us", "call_host_us", "params_engine_us"), 0.0)
    idle = tool.Model(engine="ray", mode="grad", workers=4, workers_per_host=2, rtt_ms=0.0, **free)
    for end in ("engine", "host"):
        # A core's second for each record, at one end: more than a worker takes to make one.
        slow = replace(idle, **{f"call_{end}_us": 50e3})
        assert rate(tool, slow) < 0.5 * rate(tool, idle)
    # On cores of their own hosts do not notice that the engine's machine is busy.
    busy = replace(idle, cores=1, call_engine_us=idle.act_s * 1e6 / 8)
    assert rate(tool, busy) > 1.5 * rate(tool, replace(busy, one_machine=True))


def run(*arguments, tool="sim_scale.py"):
    command = [sys.executable, str(TOOLS / tool), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


RATES = {
    "env": 200e3, "act": 400e3, "learn": 80e3, "ring": 500.0, "cores": 2.0, "memcpy_record": 4e3, "whole": 20e3,
    "link_calls": 800.0, "link_records": 900.0, "link_call_here_us": 500.0, "link_call_there_us": 600.0,
    "link_record_here_us": 550.0, "link_record_there_us": 650.0, "link_parameters_here_us": 900.0,
    "link_parameters_there_us": 800.0,
}  # fmt: skip


@pytest.fixture
def bench(tmp_path):
    """Writes what `bench --json` would have printed."""

    def write(rates=None, **options):
        config = {
            "mode": "traj",
            "env": "CartPole-v1",
            "num_envs": 16,
            "num_steps": 32,
            "workers": 2,
        }
        medians = RATES | (rates or {})
        every = {name: [rate] for name, rate in medians.items()}
        document = {"medians": medians, "every_round": every, "cores": 2}
        path = tmp_path / f"bench-{len(list(tmp_path.iterdir()))}.json"
        path.write_text(json.dumps(document | {"config": config | options}))
        return path

    return write


def test_the_command_line_reads_a_bench_and_flags_win(bench):
    args = ("--bench", str(bench()), "--engine", "ray", "--workers", "2", "40", "--json")
    done = run(*args)
    assert done.returncode == 0, done.stderr
    two, forty = map(json.loads, done.stdout.splitlines())
    assert (two["workers"], forty["workers"]) == (2, 40)
    assert two["utilization"]["bridge"] > 0
    faster = json.loads(run(*args, "--learn-rate", "1e6").stdout.splitlines()[1])
    assert faster["env_steps_per_s"] > 2 * forty["env_steps_per_s"]


@pytest.fixture
def numbers(bench, monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    from sim_scale import Bench

    def read(workers, rates=None, **options):
        read = Bench(bench(rates, **options))
        (of_round,) = read.rounds()
        return read.numbers(workers, of_round)

    return read


def test_optimizer_steps_grow_with_the_workers_where_minibatches_have_a_size(numbers):
    of_size = [numbers(n, minibatches=0, update_epochs=3)["optimizer_steps"] for n in (2, 20)]
    assert of_size == [3 * 2 * 16 * 32 // 128, 3 * 20 * 16 * 32 // 128]
    fixed = [numbers(n, minibatches=5, update_epochs=3)["optimizer_steps"] for n in (2, 20)]
    assert fixed == [15, 15]
    batch = {"minibatches": 0, "update_epochs": 3, "batch_steps": 64}
    assert [numbers(n, **batch)["optimizer_steps"] for n in (2, 20)] == 2 * [3 * 2 * 16 * 32 // 128]


def test_cpu_times_are_longer_where_other_programs_have_the_cores(numbers):
    idle, busy = numbers(2), numbers(2, {"cores": 0.5})
    assert (idle["call_engine_us"], idle["call_host_us"]) == (500, 600)
    assert (idle["record_engine_us"], idle["params_host_us"]) == (50, 200)
    assert busy["call_engine_us"] == 4 * 500
    assert busy["params_engine_us"] == 4 * 400


def test_benches_are_compared_with_their_runs_and_the_tables_of_a_page_are_drawn(bench, tmp_path):
    benches = [
        bench({"whole": 20e3}),
        bench({"whole": 30e3}),
        bench({"whole": 10e3}),
        bench({"whole": 10e3}, mode="grad", engine="ray", workers=4, workers_per_host=2),
    ]
    files = [str(path) for path in reversed(benches)]
    done = run("tell", *files, tool="compare_scale.py")
    assert done.returncode == 0, done.stderr
    _, _, traj, grad = done.stdout.splitlines()
    assert grad.startswith("| ray | grad | 4 |")
    assert traj.startswith("| local | traj | 2 |")
    assert "| 20,000 (10,000 to 30,000) |" in traj
    predicted = int(traj.split("|")[4].replace(",", ""))
    assert f"{predicted / 20e3 - 1:+.0%}" in traj.replace("−", "-")
    page, picture = tmp_path / "page.md", tmp_path / "drawn.png"
    page.write_text(f"# Scale\n\n| a |\n|---|\n| 1 |\n\n{done.stdout}\nThe end.\n")
    done = run("draw", str(page), str(picture), tool="compare_scale.py")
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_page_of_scale_has_tables_of_both_engines_to_draw(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    from compare_scale import tables_of

    found = tables_of(TOOLS.parent / "aa2c" / "docs" / "scale.md")
    assert {(engine, mode) for engine, mode, _ in found} == {
        (engine, mode) for engine in ("local", "ray") for mode in ("grad", "traj")
    }
    assert found["ray", "grad", 2][1] == 19_732


def test_the_command_line_prints_a_table_and_refuses_what_makes_no_sense():
    table = run("--workers", "1", "2").stdout.splitlines()
    assert len(table) == 4
    assert table[-1].startswith("| 2 |")
    for wrong in (("--presum",), ("--workers", "0"), ("--learn-rate", "0")):
        done = run(*wrong)
        assert done.returncode == 2
        assert "error" in done.stderr
