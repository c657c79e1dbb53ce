"""`train` and callbacks, with real processes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import aa2c
from aa2c.checkpoints.tensors import load_checkpoint
from aa2c.run import words


def test_a_callback_sees_the_run_sets_options_and_stops_it(small, capsys, monkeypatch):
    monkeypatch.setattr("aa2c.training.PLAIN_S", 0.0)
    events = []

    def callback(event, status, run):
        events.append(event)
        if event == "second" and status["run"]["state"] == "running" and "set" not in events:
            run.controls.set({"learning_rate": 1e-5})
            events.append("set")
        return not (event == "evaluation" and "set" in events)

    config = small(
        total_env_steps=10**9, eval_interval_s=0.5, eval_episodes=1, checkpoint_interval_s=1
    )
    status = aa2c.train(config, progress=True, callback=callback)
    assert status["run"]["state"] == "stopped"
    assert status["settings"]["learning_rate"]["value"] == 1e-5
    assert events.count("end") == 1
    assert events[-1] == "end"
    assert {"second", "evaluation", "checkpoint"} <= set(events)
    assert events.index("set") < len(events) - 1 - events[::-1].index("evaluation")
    *_, last = capsys.readouterr().out.splitlines()
    assert last == words.progress_line(status)
    metrics = aa2c.load_metrics(status["run"]["dir"])
    assert metrics["env_steps"].iloc[-1] == status["progress"]["env_steps"]


def test_what_a_callback_raises_ends_the_run_in_order_and_is_raised(small):
    seen = {}

    def callback(event, status, run):
        if status["progress"]["updates"]:
            seen["status"], seen["run"] = status, run
            raise LookupError("as planned")

    with pytest.raises(LookupError, match="as planned"):
        aa2c.train(small(total_env_steps=10**9), callback=callback)
    run = seen["run"]
    assert run.state == "failed"
    assert re.search("the callback raised LookupError", run.status()["run"]["error"])
    assert load_checkpoint(Path(run.dir)).counts["updates"] >= 1
