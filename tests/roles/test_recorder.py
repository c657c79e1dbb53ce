"""The evaluator's camera on a port of lists: each request once, within its bounds, or why not."""

from __future__ import annotations

import itertools
import re
import subprocess
from types import SimpleNamespace

import imageio_ffmpeg
import pytest

from aa2c import Config
from aa2c.learn.play import games_for
from aa2c.roles import recorder
from aa2c.roles.evaluator import Evaluator
from tests.envs.endless_env import Endless
from tests.roles.test_evaluator_loop import EvaluatorPort

CARTPOLE = Config(
    env="CartPole-v1", hidden_sizes=(8,), eval_interval_s=3600.0, eval_episodes=1, eval_max_steps=30
)


class AskingPort(EvaluatorPort):
    """The evaluator's port of a run whose owner asks for a video at these beats."""

    def __init__(self, config, *, asked_at, **options):
        super().__init__(config, **options)
        self._asked_at = asked_at

    def beat(self):
        if self._beats - self.beats_left in self._asked_at:
            self.add("videos_wanted", 1)
        return super().beat()


def told_by(config, run_dir, port):
    with games_for(config, config.eval_episodes) as games:
        Evaluator(config, run_dir, games, lambda: port).run()
    return [fields for kind, fields in port.reports if kind == "video"]


def seconds_of(path):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path]
    says = subprocess.run(command, capture_output=True, check=False).stderr.decode()
    minutes, seconds = re.search(r"Duration: 00:(\d+):([\d.]+)", says).groups()
    return 60 * int(minutes) + float(seconds)


def test_each_request_is_one_episode_of_the_newest_policy(tmp_path):
    port = AskingPort(CARTPOLE, asked_at=(50, 150), versions=(1, 2, 3))
    first, second = told_by(CARTPOLE, tmp_path, port)
    assert [(it["wanted"], it["policy_version"]) for it in (first, second)] == [(1, 2), (2, 3)]
    assert second["env_steps"] == 300
    assert 1 <= second["length"] <= 30
    assert second["episode_return"] == second["length"]
    assert second["is_cut"] == (second["length"] == 30)
    path = tmp_path / "video.mp4"
    assert second["path"] == str(path)
    assert second["bytes"] == path.stat().st_size
    assert seconds_of(path) == pytest.approx(second["duration_s"], abs=0.05)
    assert [it.name for it in tmp_path.iterdir()] == ["video.mp4"]


def test_it_does_not_wait_for_an_evaluation_and_does_not_change_it(tmp_path):
    """Which goes on after it, with its own parameters, and finds what it would have found."""
    alone = AskingPort(CARTPOLE, asked_at=(), versions=(1, 2))
    told_by(CARTPOLE, tmp_path, alone)
    port = AskingPort(CARTPOLE, asked_at=(5,), versions=(1, 2))
    (told,) = told_by(CARTPOLE, tmp_path, port)
    assert told["policy_version"] == 2
    assert port.reports[0][0] == "ready"
    assert port.reports[1][0] == "video", "before the evaluation's end"
    assert [it for it in port.reports if it[0] == "evaluated"] == [
        it for it in alone.reports if it[0] == "evaluated"
    ]


def test_a_video_is_bounded_in_the_time_it_takes(tmp_path, monkeypatch):
    """A second for each step: it is cut in the middle of its episode."""
    monkeypatch.setattr(recorder, "RECORD_S", 5.0)
    monkeypatch.setattr(recorder, "time", SimpleNamespace(monotonic=itertools.count().__next__))
    (told,) = told_by(CARTPOLE, tmp_path, AskingPort(CARTPOLE, asked_at=(5,)))
    assert told["is_cut"]
    assert told["length"] == 4


def test_a_video_is_bounded_in_length(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "MOST_S", 0.04)
    config = Config(env="CartPole-v1", eval_interval_s=3600.0, eval_episodes=1)
    (told,) = told_by(config, tmp_path, AskingPort(config, asked_at=(5,)))
    assert told["is_cut"]
    assert told["length"] <= 2
    assert seconds_of(tmp_path / "video.mp4") == pytest.approx(told["duration_s"], abs=0.05)


def test_an_environment_that_cannot_be_drawn_says_so_and_the_evaluator_lives_on(tmp_path):
    config = Config(
        env=Endless, hidden_sizes=(8,), eval_interval_s=3600.0, eval_episodes=1, eval_max_steps=5
    )
    port = AskingPort(config, asked_at=(20, 40))
    first, second = told_by(config, tmp_path, port)
    assert first["error"].endswith("cannot be drawn: it has no render mode rgb_array")
    assert not first["error"].startswith("-")
    assert second["wanted"] == 2
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_be_written_is_said(tmp_path):
    (told,) = told_by(CARTPOLE, tmp_path / "video.mp4", AskingPort(CARTPOLE, asked_at=(50,)))
    assert told["path"]
    (tmp_path / "file").touch()
    (told,) = told_by(CARTPOLE, tmp_path / "file", AskingPort(CARTPOLE, asked_at=(50,)))
    assert "cannot be written: " in told["error"]


def test_a_run_that_ends_does_not_wait_for_its_video(tmp_path):
    config = Config(env="CartPole-v1", eval_interval_s=3600.0, eval_episodes=1)
    port = AskingPort(config, asked_at=(395,), beats=400)
    (told,) = told_by(config, tmp_path, port)
    assert told["error"] == "the run ended before it was recorded."
    assert list(tmp_path.iterdir()) == []
