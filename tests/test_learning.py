"""Does aa2c still learn? One run of each mode, with its recipe, from the start to a result.

The task is `cartpole-quick` of tools/learning/tasks.toml: a mean return of 100 over 100 episodes of CartPole
(random play has 22) within 100,000 env steps, so many that chance alone fails a mode once in ten thousand times or
less. tools/LOG.md has the runs that the numbers are from. Budgets of env steps depend on no machine's speed.
A run is stopped as soon as it is there.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import aa2c
from aa2c.modes.mode import MODES
from aa2c.report.reading import read_runs

TOOLS = Path(__file__).parent.parent / "tools"
ENOUGH = 1.1  # times the threshold: in the run's file episodes are in another order

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.mark.parametrize("mode", MODES)
def test_a_run_learns_cartpole_within_its_budget(mode, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    from bench_learning import score
    from learning.runs import TASKS

    task = TASKS["cartpole-quick"]

    def goes_on(_event, status, _run):
        train, env_steps = status["returns"]["train"], status["progress"]["env_steps"]
        is_there = train["count"] >= 100 and train["mean"] >= ENOUGH * task["threshold"]
        return not is_there and env_steps < task["env_steps"]

    config = aa2c.recipe(
        task["env"], mode=mode, total_env_steps=task["env_steps"], eval_interval_s=0.0,
        runs_dir=str(tmp_path),
    )  # fmt: skip
    status = aa2c.train(config, callback=goes_on)
    (run,) = read_runs([Path(status["run"]["dir"])])
    learned = score(run, task["threshold"])
    assert learned.steps_to <= task["env_steps"], learned.curve
