"""What the run tells of a video, whatever becomes of the evaluator."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from aa2c.errors import ControlRefused
from aa2c.run.videos import Videos

PID = 77


class Row(Counter):
    def count(self, name):
        return self[name]

    def set(self, name, value):
        self[name] = value


@pytest.fixture
def world():
    evaluator, row = SimpleNamespace(state="running", pid=PID), Row()
    engine = SimpleNamespace(
        control=Row(), evaluator=evaluator, telemetry=SimpleNamespace(evaluator=row)
    )
    here = SimpleNamespace(evaluator=evaluator, row=row, control=engine.control, is_training=True)
    here.videos = Videos(engine, has_evaluator=True, is_training=lambda: here.is_training)
    return here


def take(world):
    world.row.set("recorder_pid", world.evaluator.pid)
    world.row.set("videos_taken", world.control.count("videos_wanted"))


def test_from_the_request_to_the_file(world, tmp_path):
    videos = world.videos
    assert videos.document() is None
    with pytest.raises(ControlRefused, match="there is no video"):
        videos.file()
    videos.ask()
    assert videos.document()["state"] == "requested"
    take(world)
    assert videos.document()["state"] == "recording"
    with pytest.raises(ControlRefused, match="wait for it"):
        videos.ask()
    videos.hear({"wanted": 1, "path": str(tmp_path), "env_steps": 30, "episode_return": 2.0})
    told = videos.document()
    assert (told["number"], told["state"], told["env_steps"]) == (1, "ready", 30)
    assert told["error"] is None
    assert videos.file() == tmp_path
    videos.ask()
    assert videos.document() == dict.fromkeys(told) | {"number": 2, "state": "requested"}


def test_what_the_evaluator_could_not_do_is_said(world):
    world.videos.ask()
    take(world)
    world.videos.hear({"wanted": 1, "error": "it cannot be drawn"})
    told = world.videos.document()
    assert (told["state"], told["error"]) == ("failed", "it cannot be drawn")
    with pytest.raises(ControlRefused):
        world.videos.file()
    assert world.videos.ask()


def test_an_evaluator_that_dies_while_it_records_fails_and_may_be_asked_again(world):
    world.videos.ask()
    take(world)
    world.evaluator.pid = PID + 1
    told = world.videos.document()
    assert (told["state"], told["error"][-23:]) == ("failed", "before it was recorded.")
    assert world.videos.ask()
    take(world)
    world.videos.hear({"wanted": 1, "path": "late"})
    assert world.videos.document()["state"] == "recording", "an answer to the request before"


def test_an_evaluator_that_is_restarted_takes_the_request_when_it_is_back(world):
    world.evaluator.state, world.evaluator.pid = "stopped", None
    world.videos.ask()
    assert world.videos.document()["state"] == "requested"
    world.evaluator.state = "abandoned"
    assert world.videos.document()["state"] == "failed"
    with pytest.raises(ControlRefused, match="abandoned: python -m aa2c eval"):
        world.videos.ask()


def test_a_run_that_has_ended_takes_no_request(world):
    world.videos.ask()
    world.is_training = False
    assert world.videos.document()["state"] == "failed"


def test_who_has_no_evaluator_is_told_of_another_way(world):
    videos = Videos(world.videos._engine, has_evaluator=False, is_training=lambda: True)
    with pytest.raises(ControlRefused, match=r"off .*: python -m aa2c eval RUN --video"):
        videos.ask()
