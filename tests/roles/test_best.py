"""The best checkpoint: when one more is written, and that a run ends with it where that is asked for."""

from __future__ import annotations

import errno
import time
from types import SimpleNamespace

import pytest
import torch

from aa2c.checkpoints.files import best_score, read_checkpoint
from aa2c.checkpoints.tensors import load_checkpoint
from aa2c.config.config import Config
from aa2c.errors import ConfigError
from tests.roles.test_updater import ListPort, updater_of

BUDGET = 10_000


class Run:
    """An updater whose run is told scores, and that is asked for checkpoints now and then."""

    def __init__(self, tmp_path, **options):
        options = {"total_env_steps": BUDGET, "hidden_sizes": (8,), **options}
        config = Config(**options)
        self.run_dir = tmp_path
        self.numbers = {"episodes": 0, "train_return_mean": 0.0, "episodes_in_mean": 0}
        self.port = ListPort(config, [])
        self.port.run = SimpleNamespace(
            count=lambda name: int(self.numbers.get(name, 0)), value=self.numbers.get
        )
        self.updater = updater_of(config, self.port, tmp_path)

    @property
    def vector(self):
        return self.updater._params.vector

    @property
    def parameters(self):
        """Copies of what is learned."""
        state = self.updater._policy.state_dict()
        return {name: tensor.clone() for name, tensor in state.items()}

    def learn(self, env_steps, episodes, mean):
        """Other parameters, and what the run is told of them."""
        self.vector.add_(torch.randn_like(self.vector))
        self.port.add("env_steps", env_steps)
        self.numbers["episodes"] += episodes
        self.numbers |= {"train_return_mean": mean, "episodes_in_mean": 100}

    def saved(self):
        """How many checkpoints were written."""
        self.updater.save_if_due()
        return len(list((self.run_dir / "checkpoints").glob("step-*")))


@pytest.mark.parametrize("mode", ["grad", "traj"])
@pytest.mark.parametrize("kept", [1, 3])
def test_a_run_that_became_worse_ends_with_its_best_checkpoint_as_the_newest(mode, kept, tmp_path):
    run = Run(tmp_path, mode=mode, keep_best=True, checkpoints_kept=kept)
    run.learn(1000, 200, -3.5)
    best = run.parameters
    path = run.updater.save()
    for _ in range(4):
        run.learn(1000, 200, -20.0)
        run.updater.save()
    last = run.updater.save_last()
    assert all(torch.equal(tensor, best[name]) for name, tensor in run.parameters.items())
    newest = load_checkpoint(tmp_path)
    assert newest.path == last != path
    assert newest.score == best_score(tmp_path / "checkpoints") == -3.5
    assert newest.counts["env_steps"] == 5000, "it is resumed from where the run is"
    assert read_checkpoint(tmp_path, lambda files: files.path, best=True) == last
    assert all(torch.equal(newest.model[name], best[name]) for name in best)
    ((_, told),) = run.port.reports
    assert told == {"name": path.name, "score": -3.5}


def test_a_full_disk_leaves_a_run_with_its_last_checkpoint_rather_than_its_best(
    tmp_path, monkeypatch
):
    run = Run(tmp_path, keep_best=True)
    run.learn(1000, 200, -3.5)
    run.updater.save()
    run.learn(1000, 200, -20.0)
    save, saves = run.updater.save, []

    def once(*states, **told):
        saves.append(told)
        if len(saves) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(*states, **told)

    monkeypatch.setattr(run.updater, "save", once)
    last = run.updater.save_last()
    assert load_checkpoint(tmp_path).path == last
    ((kind, told),) = run.port.reports
    assert kind == "unsaved"
    assert "No space left" in told["reason"]


@pytest.mark.parametrize("keep_best", [True, False])
def test_the_last_checkpoint_stays_where_it_is_the_best_or_nothing_is_asked_for(
    keep_best, tmp_path
):
    run = Run(tmp_path, keep_best=keep_best)
    run.learn(1000, 200, 10.0)
    run.updater.save()
    run.learn(1000, 200, 10.0 if keep_best else 5.0)
    now = run.vector.clone()
    path = run.updater.save_last()
    assert torch.equal(run.vector, now)
    assert load_checkpoint(tmp_path).path == path
    assert run.port.reports == []


def test_without_enough_episodes_for_a_mean_there_is_no_best_to_return_to(tmp_path):
    run = Run(tmp_path, keep_best=True)
    run.vector[:] = 1
    run.updater.save()
    run.vector[:] = 2
    run.updater.save_last()
    assert run.vector[0] == 2
    assert load_checkpoint(tmp_path).score is None


def test_a_new_best_is_saved_after_a_hundred_episodes_and_a_hundredth_of_the_budget(tmp_path):
    run = Run(tmp_path, keep_best=True, checkpoints_kept=100, checkpoint_interval_s=10_000)
    run.updater._saved_at = time.monotonic()
    assert run.saved() == 0, "there is no mean yet"
    run.learn(100, 99, 10.0)
    assert run.saved() == 0
    run.learn(0, 1, 10.0)
    assert run.saved() == 1
    for env_steps, episodes, mean, count in [
        (100, 100, 10.0, 1),  # no better
        (0, 0, 10.5, 2),
        (99, 500, 12.0, 2),
        (1, 0, 12.0, 3),
        (1000, 500, 11.0, 3),
    ]:
        run.learn(env_steps, episodes, mean)
        assert run.saved() == count
    again = Run(tmp_path, keep_best=True, checkpoint_interval_s=10_000)
    again.updater._saved_at = time.monotonic()
    again.learn(5000, 500, 11.9)
    assert again.saved() == 3, "a resumed run knows the best of before"


def test_where_nothing_is_asked_for_no_further_checkpoints_are_written(tmp_path):
    run = Run(tmp_path, checkpoint_interval_s=10_000)
    run.updater._saved_at = time.monotonic()
    run.learn(5000, 500, 10.0)
    assert run.saved() == 0


def test_what_goes_by_returns_is_not_deterministic():
    with pytest.raises(ConfigError, match=r"--keep-best .* not with --deterministic"):
        Config(keep_best=True, deterministic=True)
