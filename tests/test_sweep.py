"""The callback of examples/sweep.py, with Optuna and without a run."""

from __future__ import annotations

import runpy
from pathlib import Path

import optuna
import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "sweep.py"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.setattr("sys.argv", [EXAMPLE.name, "1000"])
    return runpy.run_path(str(EXAMPLE))


def status(env_steps, mean):
    return {"progress": {"env_steps": env_steps}, "returns": {"train": {"mean": mean}}}


def test_a_poor_run_is_stopped_and_a_good_one_is_not(example):
    pruner = optuna.pruners.MedianPruner(n_startup_trials=0)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for means, answer in (((10, 20), True), ((1, 2), False), ((30, 40), True)):
        trial = study.ask()
        pruning = example["Pruning"](trial, [])
        assert pruning("second", status(100, None), None), "no episode has ended yet"
        assert pruning("evaluation", status(100, means[0]), None), "told each second"
        assert not study.trials[-1].intermediate_values
        assert pruning("second", status(100, means[0]), None) is answer
        pruning("second", status(199, means[1]), None)
        assert study.trials[-1].intermediate_values == {1: means[0]}, "once for each part"
        study.tell(trial, means[1])


def test_seeds_are_repetitions_whose_mean_counts(example):
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    example["Pruning"](trial, [10.0, 20.0])("second", status(500, 30.0), None)
    assert study.trials[0].intermediate_values == {25: 20.0}
