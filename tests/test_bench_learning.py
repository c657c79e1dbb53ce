"""tools/bench_learning.py: its table is of the runs' own files, and says what became worse, and only that."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.report.written_run import episode_row, metrics_row, write_run

TOOLS = Path(__file__).parent.parent / "tools"
SHORT = {"env": "CartPole-v1", "env_steps": 2000, "threshold": 150.0}


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import bench_learning

    return bench_learning


@pytest.fixture
def comparison(tool):
    from learning import comparison

    return comparison


@pytest.fixture
def runs(tool):
    from learning import runs

    return runs


def written(directory, returns, **options):
    """A run whose episodes had these returns, one every 10 env steps and every minute."""
    total = len(returns) * 10
    episodes = [
        episode_row(60.0 * (i + 1), 10 * (i + 1), "train", value) for i, value in enumerate(returns)
    ]
    metrics = [metrics_row(0.0, 0), metrics_row(60.0 * len(returns), total)]
    return write_run(directory, metrics, episodes, total_env_steps=total, **options)


def test_the_table_is_of_the_files_of_any_runs(tool, tmp_path, capsys):
    learned = written(tmp_path / "a", [0.0] * 100 + [20.0] * 300, mode="traj")
    lost = written(tmp_path / "b", [0.0] * 150 + [20.0] * 100 + [0.0] * 150, mode="traj")
    never = written(tmp_path / "c", [1.0] * 400, mode="grad", workers=1)
    out = tmp_path / "out"
    given = ["--of", str(learned), str(lost), str(never), "--threshold", "10", "--out", str(out)]
    assert tool.main(given) == 0
    two, one = json.loads((out / "results.json").read_text())
    assert (two["mode"], two["condition"], two["seeds"]) == ("traj", "workers-3", 2)
    assert (two["median"], two["worst"], two["reached"], two["ended"]) == (10.0, 0.0, 2, 1)
    # Half of the last 100 are at 20 from then on; in the other run for 100 episodes of 160.
    assert [s["steps_to"] for s in two["scores"]] == [1500.0, 2000.0]
    assert [s["minutes_to"] for s in two["scores"]] == [150.0, 200.0]
    assert [s["late_share"] for s in two["scores"]] == [1.0, 0.35]
    assert (one["mode"], one["condition"], one["reached"]) == ("grad", "workers-1", 0)
    assert (one["steps_to"], one["scores"][0]["steps_to"]) == (None, None)
    table = (out / "results.md").read_text()
    assert table in capsys.readouterr().out
    assert "| 2 of 2 | 1 of 2 | 68% | 1,750 | 175.0 | – |" in table
    assert (out / "CartPole-v1-workers-3.png").stat().st_size > 1000


def row(finals, steps, **other):
    scores = [
        {"final": float(final), "steps_to": step} for final, step in zip(finals, steps, strict=True)
    ]
    cell = {"task": "t", "env_steps": 5, "threshold": 1.0, "mode": "grad", "condition": "usual"}
    return cell | {"iqm": 0.0, "steps_to": 0.0, "scores": scores} | other


GOOD = [490.0, 500.0, 480.0, 495.0, 499.0, 470.0, 500.0, 488.0]
STEPS = [1e5, 2e5, 1.5e5, 1.2e5, 1.3e5, 1.8e5, 1.1e5, 1.7e5]


@pytest.mark.parametrize(
    ("finals", "steps", "what"),
    [
        (GOOD, STEPS, []),
        ([final + 5 for final in GOOD], [step / 9 for step in STEPS], []),
        ([final - 9 for final in GOOD], [step * 1.1 for step in STEPS], []),
        ([final / 2 for final in GOOD], STEPS, ["iqm"]),
        (GOOD, [step * 2 for step in STEPS], ["steps_to"]),
        (GOOD, [None] * 6 + STEPS[6:], ["steps_to"]),
        ([20.0] * 8, [None] * 8, ["iqm", "steps_to"]),
    ],
    ids=["same", "better", "by chance", "lower", "later", "never", "nothing learned"],
)
def test_what_became_worse_beyond_chance_is_found(comparison, finals, steps, what):
    found = comparison.found_worse([row(finals, steps)], [row(GOOD, STEPS)])
    assert sorted(change.what for change in found) == what


def test_a_single_run_is_not_compared(comparison):
    assert not comparison.found_worse([row([0.0], [None])], [row(GOOD, STEPS)])


@pytest.mark.parametrize(
    "other", [{"condition": "pinned"}, {"mode": "traj"}, {"env_steps": 6}, {"threshold": 2.0}]
)
def test_only_what_was_measured_in_the_same_way_is_compared(comparison, other):
    assert comparison.found_worse([row([0.0] * 8, STEPS, **other)], [row(GOOD, STEPS)]) == []


def test_a_table_of_many_cells_without_a_change_rarely_says_worse(comparison, monkeypatch):
    """12 cells of 6 seeds: tests that know nothing of each other would find something in 7 of 10."""
    monkeypatch.setattr(comparison, "RESAMPLES", 1000)
    rng, alarms = np.random.default_rng(1), 0
    for _ in range(10):
        sides = [
            [
                row(rng.normal(size=6), list(rng.exponential(size=6)), condition=str(cell))
                for cell in range(12)
            ]
            for _ in range(2)
        ]
        alarms += bool(comparison.found_worse(*sides))
    assert alarms <= 2


WORKER = """
import setproctitle
setproctitle.setproctitle("aa2c-worker-{}")
while True: pass
"""
SERVER = """
import subprocess, sys
workers = [subprocess.Popen([sys.executable, "-c", {!r}.format(i)]) for i in range(2)]
print(*[worker.pid for worker in workers], flush=True)
sys.stdin.read()
for worker in workers:
    worker.kill()
    worker.wait()
"""


def test_one_worker_is_stopped_again_and_again_and_runs_on_at_the_end(runs):
    command, has_ended = [sys.executable, "-c", SERVER.format(WORKER)], threading.Event()
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as server:
        slow, other = (psutil.Process(int(pid)) for pid in server.stdout.readline().split())
        thread = threading.Thread(target=runs.slow_down, args=(server.pid, has_ended))
        thread.start()
        try:
            for state in ["stopped", "running"] * 5:
                deadline = time.monotonic() + 60
                while slow.status() != state:
                    assert time.monotonic() < deadline
                    assert other.status() != "stopped"
        finally:
            has_ended.set()
            thread.join()
        assert slow.status() != "stopped"
        server.communicate("")


def test_the_conditions_of_a_run_are_in_its_command_and_its_directory(runs, tmp_path):
    usual = runs.Case("cartpole", "grad", 3)
    eight = runs.Case("cartpole", "grad", 3, runs.CONDITIONS["workers-8"])
    assert eight.command(tmp_path)[-2:] == ["--workers", "8"]
    assert "--workers" not in usual.command(tmp_path)
    cases = [runs.Case("cartpole", "grad", 3, each) for each in runs.CONDITIONS.values()]
    assert len({case.directory for case in cases}) == len(cases)


def test_a_run_that_is_being_trained_is_left_alone(runs, tmp_path):
    case = runs.Case("cartpole", "grad", 3)
    place = written(tmp_path / case.directory, [1.0])
    (place / "metrics.jsonl").unlink()
    with (place / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert runs.Maker(tmp_path, nice=0).make(case) == "it is already being trained"
    assert [path.name for path in tmp_path.iterdir()] == [case.directory]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_runs_are_made_once_on_one_core_and_compared_with_the_earlier_table(
    tool, runs, tmp_path, monkeypatch, capsys
):
    """The wrapper is the witness of a pinned run: it has no more than one core."""
    monkeypatch.setitem(runs.TASKS, "short", SHORT | {"flags": "--wrapper one_core:Checked"})
    (tmp_path / "one_core.py").write_text(
        "import os\n"
        "def Checked(env):\n"
        "    assert len(os.sched_getaffinity(0)) == 1\n"
        "    return env\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{TOOLS.parent}")
    places = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--nice", "0"]
    before = tmp_path / "before.json"
    before.write_text("[]")
    given = [*places, "--before", str(before), "--tasks", "short", "--modes", "traj"]
    given += ["--conditions", "pinned", "--seeds"]
    written(tmp_path / "runs" / "short-traj-pinned-0", [1.0] * 9).joinpath("metrics.jsonl").unlink()
    assert tool.main([*given, "1"]) == 0
    assert "short-traj-pinned-0: done" in capsys.readouterr().err
    first = tmp_path / "runs" / "short-traj-pinned-0"
    assert (first.with_name(f"{first.name}.failed-1") / "episodes.csv").exists(), "not overwritten"
    made = (first / "config.toml").stat().st_mtime_ns
    shutil.copytree(first, first.with_name("short-traj-pinned-1"))

    (now,) = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (now["seeds"], now["condition"], now["reached"]) == (1, "pinned", 0)
    now["scores"] = [score | {"final": 500.0, "steps_to": 10.0} for score in now["scores"] * 60]
    before.write_text(json.dumps([now]))
    assert tool.main([*given, "2"]) == 1
    said = capsys.readouterr().out
    assert "Worse than before, beyond chance: short traj pinned: IQM " in said
    assert "1 of 1 rows compared" in said
    assert (first / "config.toml").stat().st_mtime_ns == made
