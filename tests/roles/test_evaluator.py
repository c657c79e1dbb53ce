"""The evaluator process: real test episodes beside a real run, and nothing lost without it."""

from __future__ import annotations

import csv
import json
import os
import signal

import psutil
import pytest

from aa2c import Orchestrator, failpoint, load_policy
from aa2c.checkpoints.tensors import load_checkpoint
from aa2c.host.wiring import EVALUATOR_NICENESS
from aa2c.learn.play import evaluation_seed, play
from aa2c.web.prometheus import RunCollector
from tests.conftest import until
from tests.envs.endless_env import Endless

pytestmark = pytest.mark.long


def returns_of(run):
    return run.status()["returns"]["test"]


@pytest.mark.parametrize("mode", ["model", "traj"])  # of either kind of board
async def test_test_returns_are_in_status_files_and_metrics(small, mode):
    config = small(mode=mode, total_env_steps=10**9, eval_interval_s=0.5, eval_episodes=4)
    async with Orchestrator(config) as run:
        await run.ready()
        assert returns_of(run)["greedy"] == {
            "mean": None, "std": None, "nonfinite": 0, "count": 0, "env_steps": None
        }  # fmt: skip
        await until(lambda: run.status()["evaluator"]["evaluations"] >= 2)
        status = await run.stop()
    assert status["marks"] == [], "a run that is stopped is not evaluated at its end"
    for test in status["returns"]["test"].values():
        assert 1 <= test["mean"] <= 500
        assert test["count"] >= 8
        assert test["env_steps"] > 0
    with (run.dir / "episodes.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] != "train"]
    for policy, test in status["returns"]["test"].items():
        mine = [row for row in rows if row["kind"] == policy]
        assert len(mine) == test["count"]
        assert all(row["worker"] == "" and row["return"] == f"{row['length']}.0" for row in mine)
        last = [float(row["return"]) for row in mine[-4:]]
        assert test["mean"] == pytest.approx(sum(last) / 4)
    _metrics_tell_them_by_policy(status)


def _metrics_tell_them_by_policy(status):
    collector = RunCollector(lambda: status, lambda: ([("+Inf", 0.0)], 0.0))
    found = {
        (sample.name, sample.labels.get("policy")): sample.value
        for metric in collector.collect()
        for sample in metric.samples
    }
    for policy, test in status["returns"]["test"].items():
        assert found["aa2c_test_return_mean", policy] == test["mean"]
        assert found["aa2c_test_return_std", policy] == test["std"]
        assert found["aa2c_test_episodes_total", policy] == test["count"]
    assert found["aa2c_evaluations_total", None] == status["evaluator"]["evaluations"]


async def test_a_run_ends_with_an_evaluation_of_what_it_saves_even_if_the_evaluator_dies_over_it(
    small, monkeypatch
):
    """Whoever plays the saved parameters with the same seed sees the same games."""
    monkeypatch.setenv(failpoint.VARIABLE, "aa2c-evaluator:evaluator.before_report=kill@1")
    config = small(
        mode="traj", total_env_steps=4_000, eval_interval_s=3600.0, eval_episodes=3,
        deterministic=True,
    )  # fmt: skip
    async with Orchestrator(config) as run:
        status = await run.wait()
    checkpoint = load_checkpoint(run.dir)
    state = json.loads((checkpoint.path / "state.json").read_text())
    at = checkpoint.counts["env_steps"]
    for policy, test in status["returns"]["test"].items():
        assert test["env_steps"] == at
        assert test["count"] in (3, 6), (
            "one before the last may have been due, and none counts twice"
        )
        assert test["mean"] == pytest.approx(sum(state["test_returns"][policy]) / 3)
        played = play(
            checkpoint.config, load_policy(checkpoint.path).network, episodes=3,
            greedy=policy == "greedy", seed=evaluation_seed(config, at), max_steps=27_000,
        )  # fmt: skip
        assert [episode.episode_return for episode in played] == state["test_returns"][policy]
    (mark,) = [mark for mark in status["marks"] if mark["kind"] == "evaluation"]
    assert mark["env_steps"] == at
    assert f"greedy {status['returns']['test']['greedy']['mean']:.1f}" in mark["text"]
    assert status["evaluator"]["restarts"] == 1
    assert status["run"]["state"] == "finished"


async def test_a_stop_skips_the_last_evaluation_at_once(small):
    config = small(
        env=Endless, total_env_steps=3_000, eval_interval_s=3600.0, eval_episodes=1,
        eval_max_steps=10**9,
    )  # fmt: skip
    said = []
    async with Orchestrator(config, on_event=said.append) as run:
        await until(lambda: any("evaluating the final" in event["event"] for event in said))
        assert run.state == "stopping"
        trained_s = run.status()["run"]["uptime_s"]
        await until(lambda: run.status()["evaluator"]["state"] == "running")
        status = await run.stop()
    assert status["run"]["state"] == "finished"
    assert status["run"]["uptime_s"] == trained_s, "what follows is no training"
    assert returns_of(run)["greedy"]["count"] == 0
    assert load_checkpoint(run.dir).counts["updates"] == status["progress"]["updates"]
    assert any("skipped" in event["event"] for event in said)


async def test_killed_evaluators_cost_nothing_but_their_restart(small):
    config = small(total_env_steps=10**9, eval_interval_s=0.2, eval_episodes=1)
    async with Orchestrator(config) as run:
        await run.ready()
        for kill in range(2):
            await until(lambda n=kill: run.status()["evaluator"]["restarts"] == n)
            await until(lambda: run.status()["evaluator"]["state"] == "running")
            seen = run.status()["evaluator"]["evaluations"]
            await until(lambda n=seen: run.status()["evaluator"]["evaluations"] > n)
            os.kill(run.status()["evaluator"]["pid"], signal.SIGKILL)
        await until(lambda: run.status()["evaluator"]["last_exit"] == "SIGKILL")
        assert run.status()["run"]["state"] in ("running", "degraded")
        assert all(worker["restarts"] == 0 for worker in run.status()["workers"])


async def test_it_stands_behind_the_others_on_the_cpu_and_where_it_cannot_restart_leaves_them_alone(
    small,
):
    config = small(total_env_steps=10**9, eval_interval_s=60.0, max_restarts=0)
    async with Orchestrator(config) as run:
        await run.ready()
        await until(lambda: run.status()["evaluator"]["state"] == "running")
        evaluator = psutil.Process(run.status()["evaluator"]["pid"])
        worker = psutil.Process(run.status()["workers"][0]["pid"])
        assert evaluator.nice() == min(19, worker.nice() + EVALUATOR_NICENESS)  # 19 is the most
        assert evaluator.cmdline()[0] == "aa2c-evaluator"
        os.kill(run.status()["evaluator"]["pid"], signal.SIGKILL)
        await until(lambda: run.status()["evaluator"]["state"] == "abandoned")
        updates = run.status()["progress"]["updates"]
        await until(lambda: run.status()["progress"]["updates"] > updates)
        assert "no evaluator any more" in (run.dir / "log.jsonl").read_text()


async def test_there_is_none_where_it_is_switched_off(small):
    async with Orchestrator(small(total_env_steps=3000)) as run:
        status = await run.wait()
    assert (status["evaluator"]["state"], status["evaluator"]["pid"]) == ("off", None)
