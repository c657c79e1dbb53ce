"""What the id of an Atari game asks for is used, or refused in a sentence."""

from __future__ import annotations

import numpy as np
import pytest

from aa2c.config.config import Config
from aa2c.envs.find import is_atari
from aa2c.envs.game import make_game
from aa2c.envs.vector import make_envs
from aa2c.errors import StartError

HERE = "tests.envs.atari_ids"


def config(name: str, **options) -> Config:
    return Config(env=f"{HERE}:{name}-v0", **options)


def test_all_buttons_are_used_in_training_and_in_games():
    for made in (make_envs(config("AllButtons"), 1, 0), make_game(config("AllButtons"))):
        assert made.spec.actions.n == 18
        made.close()


def test_sticky_actions_and_frame_skip_of_an_id_must_agree_with_the_flags():
    make_envs(config("Sticky", sticky_action_prob=0.25), 1, 0).close()
    make_envs(config("EachFrame", frame_skip=1), 1, 0).close()


def test_a_limit_of_steps_is_kept():
    envs = make_envs(config("Limited", noop_max=0), 1, 0)
    envs.reset()
    ends = [bool(envs.step(np.array([0]))["truncated"][0]) for _ in range(11)]
    assert ends.index(True) == 9
    envs.close()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Sticky", "repeat_action_probability 0.25, and --sticky-action-prob is 0.0"),
        ("EachFrame", "frameskip 1, and --frame-skip is 4"),
        ("OtherMode", "mode=1"),
        (
            "Harder",
            "full_action_space=True, difficulty=1, and .* cannot give difficulty=1: do without",
        ),
        ("Bytes", "obs_type='ram'"),
        ("Joystick", "continuous=True"),
    ],
)
def test_what_cannot_be_given_is_refused_by_its_name(name, words):
    for make in (lambda config: make_envs(config, 1, 0), make_game):
        with pytest.raises(StartError, match=f"--env {HERE}:{name}-v0 asks for {words}"):
            make(config(name))


def test_a_game_with_wrappers_of_its_own_is_an_environment_like_any_other():
    envs = make_envs(config("Wrapped"), 1, 0)
    assert envs.spec.obs_shape == (210, 160, 3)
    assert not envs.spec.is_stacked
    assert not is_atari(f"{HERE}:Wrapped-v0")
    envs.close()
