"""Does aa2c still learn? One run of each mode, with its recipe, from the start to a result.

The task is `cartpole-quick` of tools/learning/tasks.toml: a mean return of 100 over 100 episodes of CartPole
(random play has 22) within 100,000 env steps. A budget of env steps depends on no machine's speed. Chance
fails each mode about once in ten thousand times: tools/LOG.md has the distribution of env steps that this
margin is from. A run ends as soon as it is there, so that only one that fails costs its whole budget.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import aa2c
from aa2c.modes.mode import MODES
from aa2c.report.reading import read_runs

TOOLS = Path(__file__).parent.parent / "tools"
ENOUGH = 1.1  # times the threshold: episodes are in another order in the run's file

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


@pytest.mark.parametrize("mode", MODES)
def test_a_run_learns_cartpole_within_its_budget(mode, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    from bench_learning import score
    from learning.runs import TASKS

    task = TASKS["cartpole-quick"]

    def goes_on(_event, status, _run):
        train = status["returns"]["train"]
        return train["count"] < 100 or train["mean"] < ENOUGH * task["threshold"]

    config = aa2c.recipe(
        task["env"], mode=mode, total_env_steps=task["env_steps"], eval_interval_s=0.0,
        runs_dir=str(tmp_path),
    )  # fmt: skip
    status = aa2c.train(config, callback=goes_on)
    (run,) = read_runs([Path(status["run"]["dir"])])
    learned = score(run, task["threshold"])
    assert learned.steps_to < np.inf, learned.curve
