"""`bench` as a user runs it: processes for its stages, and a real run."""

from __future__ import annotations

import json

import pytest

from aa2c.modes.mode import MODES

pytestmark = pytest.mark.long


@pytest.mark.parametrize("mode", MODES)
def test_every_stage_and_the_whole_run_are_measured(mode, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    options = ("--mode", mode, "--workers", "1", "--num-envs", "4", "--num-steps", "8")
    options += ("--preset", "none")  # without normalization records of mode model have no arrays
    ran = command("bench", *options, "--rounds", "1", "--seconds", "0.2", "--json")
    assert ran.returncode == 0, ran.stderr
    assert "round 1 of 1" in ran.stderr
    document = json.loads(ran.stdout)
    medians = document["medians"]
    assert {"env", "act", "learn", "whole", "act_8", "act_128", "board"} <= medians.keys()
    assert min(medians.values()) > 0
    assert medians["whole"] < medians["env"]
    assert ("ring" in medians) == (mode != "model")
    assert document["config"]["mode"] == mode
    assert document["every_round"]["whole"] == [medians["whole"]]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--rounds", "0"), "--rounds"),
        (("--seconds", "-1"), "--seconds"),
        (("--sec", "1"), "--sec"),
    ],
)
def test_wrong_options_are_named(options, named, command):
    ran = command("bench", *options)
    assert ran.returncode == 2
    assert named in ran.stderr


def test_an_environment_that_does_not_work_is_one_sentence(command):
    ran = command("bench", "--env", "Nope-v0")
    assert ran.returncode == 3
    assert "--env Nope-v0 cannot be made" in ran.stderr
