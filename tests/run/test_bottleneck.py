"""Who waits for whom, in words: the sentence on the page, in top and in /status."""

from __future__ import annotations

import pytest

from aa2c.modes.mode import MODES
from aa2c.run.bottleneck import NOT_TRAINING, Down, advise, find_bottleneck
from aa2c.run.status import RUN_STATES, TRAINING_STATES


@pytest.mark.parametrize(
    ("mode", "updater_waits", "workers_wait", "expected"),
    [
        ("grad", 0.62, 0.0, "workers"),
        ("grad", 0.1, 0.4, "updater"),
        ("traj", 0.1, 0.15, "balanced"),
        ("model", 0.99, 0.0, "balanced"),
        ("model", 0.99, 0.3, "updater"),
    ],
)
def test_the_bottleneck_is_what_the_others_wait_for(mode, updater_waits, workers_wait, expected):
    assert find_bottleneck(MODES[mode], updater_waits, workers_wait) == expected


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("waits", [(0.0, 0.0), (0.62, 0.0), (0.0, 0.62)])
def test_there_is_a_sentence_for_every_case_and_it_names_the_share(mode, waits):
    bottleneck, advice = advise(MODES[mode], "running", *waits, [])
    assert advice.endswith(".")
    assert ("62%" in advice) == (bottleneck != "balanced")


def test_in_mode_model_who_waits_waits_for_the_lock():
    assert "for the lock" in advise(MODES["model"], "running", 0.99, 0.5, [])[1]


def test_children_that_are_down_come_before_everything_else():
    down = [Down("worker 2", "starting", last_exit="SIGKILL"), Down("worker 3", "abandoned")]
    _, advice = advise(MODES["traj"], "running", 0.9, 0.0, down)
    assert advice.startswith("Worker 2 is starting (last: SIGKILL), worker 3 is abandoned: see")


def test_only_children_that_have_failed_have_a_reason_in_the_log():
    down = [Down("the updater", "at last starting")]
    assert advise(MODES["traj"], "running", 0.9, 0.0, down)[1] == "The updater is at last starting."


@pytest.mark.parametrize("state", [it for it in RUN_STATES if it not in TRAINING_STATES])
def test_a_run_that_does_not_train_is_given_no_advice(state):
    bottleneck, advice = advise(MODES["grad"], state, 1.0, 0.0, [Down("worker 0", "stopped")])
    assert (bottleneck, advice) == ("balanced", NOT_TRAINING[state])
    assert "--" not in advice


def test_advice_names_options_that_exist():
    from aa2c.config.config import Config, flag

    known = {flag(name) for name in Config.__dataclass_fields__}
    words = {
        word.strip(".,")
        for mode in MODES.values()
        for text in mode.advice.values()
        for word in text.split()
    }
    assert {word for word in words if word.startswith("--")} <= known
