"""Where test scores stand: at the env steps of the parameters that were evaluated, one point each."""

from __future__ import annotations

import asyncio
import csv
import itertools
import json
from typing import Any

import pytest

from aa2c.ports import Report
from aa2c.run.history import MOST_ROWS, RunHistory, Series
from aa2c.run.tracking import Tracking
from tests.run.test_tracking import Log, scalars

NOW = 50_000  # env steps, by the time that evaluations end
NOTHING = {"env_steps": 0, "episodes": 0}


def evaluated(policy: str, env_steps: int, *returns: float) -> dict[str, Any]:
    episodes = [[episode_return, 10] for episode_return in returns]
    return {
        "kind": Report.EVALUATED, "policy": policy, "env_steps": env_steps, "episodes": episodes,
        "is_last": False,
    }  # fmt: skip


def status_of(history: RunHistory, env_steps: int) -> dict[str, Any]:
    """As much of the status as files and trackers ask for."""
    tests = {policy: test.summary() for policy, test in history.tests.items()}
    return {
        "run": {"uptime_s": history.uptime_s, "state": "running"},
        "progress": {"env_steps": env_steps},
        "returns": {"train": history.returns.summary(), "test": tests},
        "losses": {},
        "throughput": {},
        "policy_lag": {},
    }


@pytest.fixture
def history(small, tmp_path):
    made = RunHistory(tmp_path, small(), NOTHING)
    yield made
    made.close()


def test_an_evaluation_is_one_point_at_the_env_steps_of_its_parameters(
    small, history, tmp_path, monkeypatch
):
    monkeypatch.setattr("aa2c.run.tracking._numbers", lambda status: [("charts/SPS", 1.0)])
    history.tracking = Tracking(tmp_path, small(track=("tensorboard",)), Log())
    for measured in (10_000, 20_000):
        history.hear(NOW, 0, evaluated("greedy", measured, 1.0, 3.0))
        history.hear(NOW, 0, evaluated("sampled", measured, 0.0, float(measured)))
        for _ in range(8):  # seconds
            history.add_row(status_of(history, NOW))
    tests = history.document()["tests"]
    assert tests["greedy"] == {
        "time_s": tests["greedy"]["time_s"], "env_steps": [10_000, 20_000], "mean": [2.0, 2.0]
    }  # fmt: skip
    assert tests["sampled"]["mean"] == [5_000.0, 10_000.0]
    history.close()
    asyncio.run(history.drain())
    with (tmp_path / "episodes.csv").open(newline="") as file:
        assert {row["env_steps"] for row in csv.DictReader(file)} == {"10000", "20000"}
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["returns"]["test"]["greedy"]["env_steps"] == 20_000
    found = scalars(tmp_path)
    for policy in ("greedy", "sampled"):
        points = found[f"test/{policy}_return"]
        assert [(p.step, p.value) for p in points] == list(
            zip(tests[policy]["env_steps"], tests[policy]["mean"], strict=True)
        )
    assert {point.step for point in found["charts/SPS"]} == {NOW}


def test_a_resumed_run_shows_the_evaluations_of_before_up_to_its_checkpoint(
    small, history, tmp_path
):
    """Also one that ended when the run was further on than the checkpoint."""
    for measured in (10_000, 20_000, 30_000):
        history.hear(NOW, 0, evaluated("greedy", measured, measured / 1000))
        history.add_row(status_of(history, NOW))
    history.close()
    again = RunHistory(tmp_path, small(), {"env_steps": 20_000, "episodes": 0})
    again.read_back(tmp_path, 20_000)
    assert again.document()["tests"]["greedy"]["env_steps"] == [10_000, 20_000]
    assert again.document()["series"]["env_steps"] == []
    again.close()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_a_null_everywhere_and_no_point_of_a_tracker(
    small, history, tmp_path, monkeypatch, value
):
    monkeypatch.setattr("aa2c.run.tracking._numbers", lambda status: [])
    history.tracking = Tracking(tmp_path, small(track=("tensorboard",)), Log())
    history.hear(NOW, 0, evaluated("greedy", 10_000, 1.0, value))
    history.hear(NOW, 0, evaluated("sampled", 10_000, 1.0, 2.0))
    assert history.tests["greedy"].summary() == {
        "mean": None, "std": None, "count": 2, "env_steps": 10_000, "nonfinite": 1,
    }  # fmt: skip
    assert history.document()["tests"]["greedy"]["mean"] == [None]
    history.close()
    asyncio.run(history.drain())
    found = scalars(tmp_path)
    assert "test/greedy_return" not in found
    assert [point.value for point in found["test/sampled_return"]] == [1.5]


def test_a_long_series_is_thinned_out_evenly():
    series = Series("x")
    for x in range(5 * MOST_ROWS):
        series.add(x)
    xs = series.columns()["x"]
    assert MOST_ROWS / 2 <= len(xs) <= MOST_ROWS
    apart = [b - a for a, b in itertools.pairwise(xs)]
    assert max(apart) < 2 * min(apart)


@pytest.mark.parametrize("tests", [None, 3, {"greedy": 5}, {"greedy": {"env_steps": "x"}}])
def test_a_damaged_row_has_no_evaluation(small, tmp_path, tests):
    row = {"time_s": 1.0, "progress": {"env_steps": 5}, "returns": {"test": tests}}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    history = RunHistory(tmp_path, small(), {"env_steps": 10, "episodes": 0})
    history.read_back(tmp_path, 10)
    assert history.document()["tests"]["greedy"]["env_steps"] == []
    assert history.document()["series"]["env_steps"] == [5]
    history.close()


EPISODES = """time_s,env_steps,kind,worker,return,length
1.0,100,train,0,1.0,10
2.0,200,train,1,2.0,10
2.5,150,greedy,,9.0,10
3.0,300,train,0,3.0,10
damaged
4.0,250,train,0,4.0,10
5.0,900,train,0,5.0,10
"""


def test_a_resumed_run_recalls_the_episodes_of_before_but_for_undone_ones(small, tmp_path):
    """It was resumed at about 250 env steps once, and is now at 400."""
    (tmp_path / "episodes.csv").write_text(EPISODES)
    history = RunHistory(tmp_path, small(), {"env_steps": 400, "episodes": 3})
    history.read_back(tmp_path, 400)
    assert history.returns.summary()["count"] == 3
    assert history.returns.summary()["mean"] == pytest.approx((1 + 2 + 4) / 3)
    assert history.returns.newest() == [1.0, 2.0, 4.0]
    episodes = history.document()["episodes"]
    assert (episodes["env_steps"], episodes["return"]) == ([100, 200, 250], [1.0, 2.0, 4.0])
    history.close()


def test_rows_that_a_resume_undid_are_neither_series_nor_best(small, tmp_path):
    def row(time_s: float, env_steps: int, mean: float, count: int) -> str:
        returns = {"train": {"mean": mean, "count": count}}
        progress = {"env_steps": env_steps}
        return json.dumps({"time_s": time_s, "progress": progress, "returns": returns}) + "\n"

    rows = row(1, 100, 99.0, 40), row(2, 200, 5.0, 150), row(3, 300, 50.0, 200)
    (tmp_path / "metrics.jsonl").write_text("".join((*rows, row(4, 220, 6.0, 160))))
    history = RunHistory(tmp_path, small(), {"env_steps": 400, "episodes": 160})
    history.read_back(tmp_path, 400)
    assert history.document()["series"]["env_steps"] == [100, 200, 220]
    best = history.told(status_of(history, 400))["best"]
    assert best["train"] == {"mean": 6.0, "env_steps": 220, "time_s": 4}, "of 100 episodes or more"
    assert best["greedy"] is None
    history.close()
