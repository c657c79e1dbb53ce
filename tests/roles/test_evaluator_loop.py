"""The evaluator's loop on a port of lists: what it evaluates, when it stops, and what it reports."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from aa2c import Config
from aa2c.checkpoints.tensors import save
from aa2c.learn.play import games_for
from aa2c.policy.network import make_policy
from aa2c.roles.evaluator import Evaluator
from tests.envs.endless_env import Endless, NotFinite
from tests.modes.fake_port import FakePort

SMALL = {"hidden_sizes": (8,), "eval_episodes": 3, "eval_max_steps": 20, "eval_interval_s": 0.001}
COUNTS = {"env_steps": 700, "updates": 9, "policy_version": 8, "records": 7, "episodes": 6}


class EvaluatorPort(FakePort):
    """Parameters come from `versions`, the newest of which is pulled again once there are no more.

    The checkpoint is asked for at beat `asks_at`, and the end of the run is at beat `beats`.
    """

    def __init__(self, config, *, versions=(1,), beats=400, checkpoint=None, asks_at=0):
        super().__init__(config, [], [])
        self.updater = self
        self.beats_left, self._beats = beats, beats
        self._versions, self._checkpoint, self._asks_at = list(versions), checkpoint, asks_at

    @property
    def last_checkpoint(self):
        return self._checkpoint if self._beats - self.beats_left >= self._asks_at else None

    def pull(self, out):
        version = self._versions.pop(0) if len(self._versions) > 1 else self._versions[0]
        out[:] = 0.01 * version
        self.set("env_steps", 100 * version)
        return version

    def wait(self): ...


def evaluate(config, port, run_dir=Path("nowhere")):
    with games_for(config, config.eval_episodes) as games:
        evaluator = Evaluator(config, run_dir, games, lambda: port)
        evaluator.run()
        spec = games[0].spec
    return [fields for kind, fields in port.reports if kind == "evaluated"], spec


def checkpoint_of(config, directory):
    torch.manual_seed(3)
    with games_for(config, 1) as games:
        spec = games[0].spec
    policy = make_policy(config, spec)
    path = save(
        directory, network=policy, optimizer={}, config=config, spec=spec, counts=COUNTS,
        rng=torch.get_rng_state(), score=4.5, keep=1, worker_states={},
    )  # fmt: skip
    return path, policy.state_dict()


def test_episodes_that_never_end_are_cut_and_the_same_parameters_are_evaluated_once():
    config = Config(env=Endless, **SMALL)
    port = EvaluatorPort(config, versions=(1, 2))
    told, _ = evaluate(config, port)
    assert [(one["policy"], one["env_steps"], one["policy_version"]) for one in told] == [
        ("greedy", 100, 1), ("sampled", 100, 1), ("greedy", 200, 2), ("sampled", 200, 2)
    ]  # fmt: skip
    assert all(one["episodes"] == [(20.0, 20)] * 3 for one in told)
    assert port.count("records") == 2


def test_an_endless_evaluation_ends_when_the_run_does():
    config = Config(env=Endless, **SMALL | {"eval_max_steps": 10**9})
    told, _ = evaluate(config, EvaluatorPort(config, beats=50))
    assert told == []


def test_the_last_checkpoint_is_evaluated_at_once_as_it_was_saved(tmp_path):
    """In the middle of an evaluation that would never end, which is abandoned."""
    config = Config(env="CartPole-v1", **SMALL | {"eval_max_steps": 30})
    path, saved = checkpoint_of(config, tmp_path)
    port = EvaluatorPort(config, checkpoint=path, asks_at=5)
    with games_for(config, config.eval_episodes) as games:
        evaluator = Evaluator(config, tmp_path, games, lambda: port)
        evaluator.run()
        played = evaluator._policy.state_dict()
    assert all(torch.equal(played[name], tensor) for name, tensor in saved.items())
    told = [fields for kind, fields in port.reports if kind == "evaluated"]
    assert [(one["policy"], one["env_steps"], one["is_last"]) for one in told] == [
        ("greedy", 700, True), ("sampled", 700, True)
    ]  # fmt: skip
    state = json.loads((path / "state.json").read_text())
    assert state["score"] == 4.5
    for one in told:
        assert state["test_returns"][one["policy"]] == [r for r, _ in one["episodes"]]
    again, _ = evaluate(config, EvaluatorPort(config, checkpoint=path))
    assert again == told, "the same parameters play the same games"


def test_rewards_that_are_not_finite_are_told_as_they_are_and_null_in_the_checkpoint(tmp_path):
    config = Config(env=NotFinite, **SMALL)
    path, _ = checkpoint_of(config, tmp_path)
    told, _ = evaluate(config, EvaluatorPort(config, checkpoint=path))
    assert [math.isnan(r) for one in told for r, _ in one["episodes"]] == 6 * [True]
    state = json.loads((path / "state.json").read_text())
    assert state["test_returns"] == {"greedy": [None] * 3, "sampled": [None] * 3}


def test_a_full_disk_costs_the_note_in_the_checkpoint_and_no_score(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    config = Config(env=Endless, **SMALL)
    path, _ = checkpoint_of(config, tmp_path)
    monkeypatch.setattr("aa2c.roles.evaluator.add_to_state", full)
    port = EvaluatorPort(config, checkpoint=path)
    told, _ = evaluate(config, port)
    assert len(told) == 2
    assert [fields["reason"] for kind, fields in port.reports if kind == "unsaved"] == [
        "[Errno 28] No space left on device"
    ]


@pytest.mark.parametrize("interval_s", [0.0, 3600.0])
def test_the_last_evaluation_does_not_wait_for_its_time(tmp_path, interval_s):
    config = Config(env=Endless, **SMALL)
    path, _ = checkpoint_of(config, tmp_path)
    port = EvaluatorPort(config, checkpoint=path, asks_at=100)
    port.config_now = lambda: SimpleNamespace(eval_interval_s=interval_s)
    told, _ = evaluate(config, port)
    assert told[-1]["is_last"]
