"""Options that have no effect in a run are told by name, and no others."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from aa2c.config.config import Config
from aa2c.config.toml import load_config, preset_names
from aa2c.ports import Report
from aa2c.run.ignored import tell_of_ignored, without_effect
from aa2c.run.reports import log_report
from tests.conftest import not_checked
from tests.run.test_diagnosis import Log


@pytest.mark.parametrize(
    ("options", "need"),
    [
        ({"frame_skip": 2}, "an Atari game"),
        ({"noop_max": 0}, "an Atari game"),
        ({"sticky_action_prob": 0.25}, "an Atari game"),
        ({"terminal_on_life_loss": False}, "an Atari game"),
        ({"frame_skip": 2, "env": "ALE/Pong-v5", "wrapper": ("a:b",)}, "an Atari game"),
        ({"eval_video": True, "eval_interval_s": 0}, "--eval-interval-s"),
        (
            {"minibatches": 33, "mode": "traj", "memory": "gru", "workers": 2, "num_envs": 16},
            "a batch of as many sequences: a smaller --sequence-length",
        ),
        ({"memory_size": 3}, "--memory"),
        ({"sequence_length": 4, "mode": "traj"}, "--memory"),
        ({"eval_episodes": 3, "eval_interval_s": 0}, "--eval-interval-s"),
        ({"eval_max_steps": 3, "eval_interval_s": 0}, "--eval-interval-s"),
        ({"adam_beta1": 0.5, "optimizer": "rmsprop"}, "--optimizer adam"),
        ({"nonfinite_action": "stop", "nonfinite_limit": 0}, "--nonfinite-limit"),
    ],
)
def test_what_has_no_effect_is_told_with_what_it_needs(options, need):
    name = next(iter(options))
    assert without_effect(Config(**options)) == {name: need}
    log = Log()
    tell_of_ignored(log, without_effect(Config(**options)))
    ((_, told),) = log.lines
    assert told["options"] == f"--{name.replace('_', '-')} needs {need}"


@pytest.mark.parametrize("preset", preset_names())
def test_no_recipe_sets_what_its_task_does_not_use(preset):
    if find_spec("ale_py") is None:
        not_checked("what recipes set", "ale_py is not installed")
    log = Log()
    tell_of_ignored(log, without_effect(load_config(preset=preset)))
    assert log.lines == []


def test_what_the_updater_knows_of_is_told_alike():
    log = Log()
    log_report(log, {"kind": Report.IGNORED, "options": {}})
    log_report(log, {"kind": Report.IGNORED, "options": {"action_bounds": "actions of a Box"}})
    told = {"options": "--action-bounds needs actions of a Box"}
    assert log.lines == [("options without effect", told)]


def test_what_is_needed_makes_an_option_have_its_effect():
    for options in ({"memory": "gru", "memory_size": 3}, {"env": "ALE/Pong-v5", "frame_skip": 2}):
        assert without_effect(Config(**options)) == {}
