"""A rollback where options were set live: the port of lists stands for the orchestrator, too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aa2c.checkpoints.tensors import load_checkpoint
from aa2c.config.config import Config
from tests.modes.test_traj import produce
from tests.roles.test_updater import ListPort, of_version, updater_of, with_rewards

CONFIG = Config(
    mode="traj", num_envs=3, num_steps=20, workers=2, hidden_sizes=(16,), ring_slots=8,
    nonfinite_limit=2,
)  # fmt: skip


class ObeyingPort(ListPort):
    """Has the options of before some beats after it is told to."""

    told = None
    beats_until_heard = 3

    def report(self, kind, **fields):
        super().report(kind, **fields)
        if kind == "options_undone":
            self.told = fields["options"]

    def wait(self):
        self.beats_until_heard -= 1
        if not self.beats_until_heard:
            self.config = replace(self.config, **self.told)


@pytest.fixture
def good():
    return produce(CONFIG, count=6)[0].records


@pytest.fixture
def updater(tmp_path, good):
    """One that has learned and saved, with the option set live as `saved_with` before."""

    def make(saved_with=0.0, **options):
        port = ObeyingPort(replace(CONFIG, **options), good[:2])
        made = updater_of(CONFIG, port, tmp_path, lambda: path)
        port.config = replace(port.config, ent_coef=saved_with)
        assert made.take_and_learn()
        path = made.save()
        return made, port

    return make


def fail(updater, port, good, records=2):
    port.waiting = of_version(port, [with_rewards(good[2], np.inf) for _ in range(records)])
    assert updater.take_and_learn()


@pytest.mark.parametrize("saved_with", [0.0, 0.25])
def test_a_rollback_undoes_what_was_set_since_the_checkpoint_and_halves_nothing(
    updater, good, saved_with
):
    made, port = updater(saved_with)
    port.config = replace(port.config, ent_coef=1.0)
    fail(made, port, good)
    assert port.told == {"ent_coef": (saved_with,)}
    assert port.config.ent_coef == (saved_with,)
    assert (port.count("rollbacks"), port.count("halvings")) == (1, 0)
    made.consumer.close()


def test_what_is_set_back_and_still_fails_was_set_before_the_checkpoint_and_is_undone_too(
    updater, good
):
    made, port = updater(0.25)
    fail(made, port, good)
    assert port.told == {"ent_coef": (0.0,)}
    assert port.count("halvings") == 0
    fail(made, port, good)
    assert port.count("halvings") == 1, "there is nothing left to undo"
    assert port.config == CONFIG
    made.consumer.close()


def test_a_checkpoint_that_is_written_while_it_fails_has_the_options_of_the_one_before(
    updater, good
):
    made, port = updater(0.25)
    port.config = replace(port.config, ent_coef=1.0, learning_rate=0.5)
    fail(made, port, good, records=1)
    saved = load_checkpoint(made.save()).config
    assert (saved.ent_coef, saved.learning_rate) == ((0.25,), CONFIG.learning_rate)
    port.waiting = of_version(port, good[3:5])
    assert made.take_and_learn()
    saved = load_checkpoint(made.save()).config
    assert (saved.ent_coef, saved.learning_rate) == ((1.0,), 0.5)
    made.consumer.close()


def test_a_run_that_ends_for_it_is_saved_with_the_options_of_its_start(tmp_path, good):
    port = ObeyingPort(CONFIG, good[:2])
    made = updater_of(replace(CONFIG, nonfinite_action="stop"), port, tmp_path)
    assert made.take_and_learn()
    port.config = replace(port.config, ent_coef=1.0)
    made.save()
    fail(made, port, good)
    assert [kind for kind, _ in port.reports] == ["rejected", "fatal"]
    assert load_checkpoint(made.save()).config.ent_coef == (0.0,)
    made.consumer.close()


def test_what_a_rollback_gives_back_unlearned_is_counted(updater, good):
    made, port = updater()
    port.waiting = of_version(port, good[2:4])
    made.intake.take()
    made.intake.undo(port.count("policy_version"))
    port.waiting = of_version(port, good[4:5])
    made.intake.take()
    assert (port.count("discarded"), len(port.released)) == (3, 5)
    made.consumer.close()
