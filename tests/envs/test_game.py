from __future__ import annotations

import numpy as np
import pytest

from aa2c.config.config import Config
from aa2c.envs.game import AtariGame, Game, make_game
from aa2c.envs.spec import Discrete, EnvSpec
from aa2c.envs.vector import make_envs
from aa2c.errors import ConfigError, RunFailed, StartError

BREAKOUT = Config(env="ALE/Breakout-v5")
FIRE, RIGHT = 1, 2


def play(game: Game, seed: int, actions):
    """First observation, and the steps up to the game's end; with no seed the game goes on."""
    first, steps = None if seed is None else game.start(seed), []
    for action in actions:
        steps.append(game.step(int(action)))
        if steps[-1].is_over:
            break
    return first, steps


def random_actions(game: Game, count: int):
    return np.random.default_rng(0).integers(game.spec.actions.n, size=count)


@pytest.mark.parametrize(
    ("env", "count"), [("ALE/Pong-v5", 100), ("ALE/Breakout-v5", 15), ("CartPole-v1", 30)]
)
def test_a_game_shows_what_the_environments_of_a_worker_show(env, count):
    config = Config(env=env)
    game, envs = make_game(config), make_envs(config, 1, 7)
    assert game.spec == envs.spec
    first, steps = play(game, 7, random_actions(game, count))
    np.testing.assert_array_equal(first, envs.reset()[0])
    for action, step in zip(random_actions(game, count), steps, strict=False):
        expected = envs.step(np.array([action]))
        np.testing.assert_array_equal(step.obs, expected["obs"][0])
        assert step.reward == expected["rewards"][0]
        assert step.is_over == bool(expected["terminated"][0])
    game.close()
    envs.close()


@pytest.mark.parametrize("env", ["ALE/Breakout-v5", "CartPole-v1", "Acrobot-v1"])
def test_a_game_starts_anew_from_its_seed_wherever_the_one_before_was_left(env):
    config = Config(env=env, sticky_action_prob=0.25)
    game, fresh = make_game(config), make_game(config)
    actions = random_actions(game, 300)
    first, steps = play(fresh, 5, actions)
    play(game, 1, actions[:20])
    for _ in range(2):
        again, same = play(game, 5, actions)
        np.testing.assert_array_equal(again, first)
        assert [(s.reward, s.is_over) for s in same] == [(s.reward, s.is_over) for s in steps]
        np.testing.assert_array_equal(same[-1].obs, steps[-1].obs)
    game.close()
    fresh.close()


def test_games_of_two_seeds_differ_by_their_no_ops_and_without_no_ops_do_not():
    for noop_max, are_same in ((30, False), (0, True)):
        game = make_game(Config(env="ALE/Breakout-v5", noop_max=noop_max))
        assert np.array_equal(game.start(1), game.start(2)) is are_same
        game.close()


def test_cartpole_is_over_after_500_steps():
    game = make_game(Config(env="CartPole-v1"))
    obs, length, is_over = game.start(7), 0, False
    while not is_over:
        obs, _, is_over = game.step(int(obs[2] + obs[3] > 0))
        length += 1
    assert length == 500
    game.close()


def test_fire_is_pressed_once_after_each_lost_life_and_only_then():
    game = make_game(BREAKOUT)
    assert isinstance(game, AtariGame)
    vector, pressed, lives = game._envs, [], []

    class Watched:
        def reset(self, **options):
            return vector.reset(**options)

        def step(self, actions):
            pressed.append(int(actions[0]))
            result = vector.step(actions)
            lives.append(int(result[-1]["lives"][0]))
            return result

        def close(self):
            vector.close()

    game._envs = Watched()
    _, steps = play(game, 3, [RIGHT] * 400)
    assert steps[-1].is_over
    assert set(pressed) == {FIRE, RIGHT}
    assert lives[-1] == 0
    losses = 1 + np.flatnonzero(np.diff([5, *lives]) < 0)
    assert np.flatnonzero(np.array(pressed) == FIRE).tolist() == losses[:-1].tolist()
    assert len(losses) == 5
    game.close()


@pytest.mark.parametrize("env", ["ALE/Freeway-v5", "ALE/Pong-v5"])
def test_games_without_fire_or_without_lives_are_played_as_they_are(env):
    game = make_game(Config(env=env))
    _, steps = play(game, 0, random_actions(game, 40))
    assert len(steps) == 40
    game.close()


@pytest.mark.parametrize("env", ["CartPole-v1", "ALE/Pong-v5"])
@pytest.mark.parametrize("wrong", [-1, 18])
def test_an_invalid_action_raises_value_error_and_the_game_can_go_on(env, wrong):
    game = make_game(Config(env=env))
    game.start(0)
    with pytest.raises(ValueError, match="actions must be in 0"):
        game.step(wrong)
    assert not game.step(0).is_over
    game.close()


def test_a_first_action_that_is_not_0_is_added():
    game = make_game(Config(env="tests.envs.custom_env:Counter-v0"))
    assert game.spec == EnvSpec((3,), "float32", Discrete(4, start=3))
    _, steps = play(game, 0, [0, 1, 3])
    assert [step.reward for step in steps] == [3, 4, 6]
    game.close()


@pytest.mark.parametrize(
    ("env", "word"),
    [
        ("NoSuchGame-v0", "NoSuchGame"),
        ("no_such_module:CartPole-v1", "no_such_module"),
        ("tests.envs.custom_env:Broken-v0", "no licence found"),
    ],
)
def test_what_cannot_be_made_is_a_start_error_that_names_the_option_and_the_cause(env, word):
    for with_pictures in (False, True):
        with pytest.raises(StartError, match=f"--env.*{word}"):
            make_game(Config(env=env), with_pictures=with_pictures)


@pytest.mark.parametrize("sticky", [0.0, 0.25])
def test_the_picture_of_an_atari_game_shows_in_colour_what_the_observation_shows_in_grey(sticky):
    config = Config(env="ALE/MsPacman-v5", sticky_action_prob=sticky)
    game, plain = make_game(config, with_pictures=True), make_game(config)
    obs, steps = game.start(9), []
    actions = random_actions(game, 120)
    check_shows_same(game.picture(), obs)
    for action in actions:
        steps.append(game.step(int(action)))
        check_shows_same(game.picture(), steps[-1].obs)
    _, expected = play(plain, 9, actions)
    assert [s.reward for s in steps] == [s.reward for s in expected]
    assert sum(s.reward for s in steps) > 0
    game.close()
    plain.close()


def check_shows_same(picture, obs) -> None:
    assert picture.shape == (210, 160, 3)
    assert picture.dtype == np.uint8
    assert (picture.max(axis=2) != picture.min(axis=2)).mean() > 0.2, "colours"
    grey = picture @ np.array([0.299, 0.587, 0.114])
    shrunk = grey.repeat(2, axis=0).repeat(21, axis=1).reshape(84, 5, 84, 40).mean(axis=(1, 3))
    assert np.abs(shrunk - obs[-1]).mean() < 0.3, "a step earlier or later it is 0.6"


def test_an_emulator_in_colour_that_goes_another_way_is_an_error_and_not_a_wrong_video():
    game = make_game(Config(env="ALE/Pong-v5"), with_pictures=True)
    game.start(0)
    game._screen.step(np.array([RIGHT]))
    with pytest.raises(RunFailed, match="--video"):
        play(game, None, [RIGHT] * 200)
    game.close()


def test_pictures_of_classic_control_follow_the_game():
    game = make_game(Config(env="CartPole-v1"), with_pictures=True)
    game.start(0)
    before = game.picture()
    for _ in range(5):
        game.step(1)
    assert before.shape == game.picture().shape == (400, 600, 3)
    assert (before != game.picture()).any()
    assert game.pictures_per_s == 50
    game.close()


@pytest.mark.parametrize(("frame_skip", "pictures_per_s"), [(1, 60), (4, 15), (5, 12)])
def test_atari_pictures_go_at_the_speed_of_the_console(frame_skip, pictures_per_s):
    game = make_game(Config(env="ALE/Pong-v5", frame_skip=frame_skip))
    assert game.pictures_per_s == pictures_per_s
    game.close()


def test_an_environment_without_pictures_is_a_config_error():
    with pytest.raises(ConfigError, match=r"--video: .*Seeded-v0 cannot be drawn.*rgb_array"):
        make_game(Config(env="tests.envs.seeded_env:Seeded-v0"), with_pictures=True)


@pytest.mark.filterwarnings("ignore:.*RGB-array rendering should:UserWarning")
def test_a_picture_that_is_none_in_colour_is_a_config_error():
    game = make_game(Config(env="tests.envs.seeded_env:Drawn-v0"), with_pictures=True)
    game.start(0)
    assert game.pictures_per_s == 7
    with pytest.raises(ConfigError, match=r"--video: .*Drawn-v0.*\(32, 32\)"):
        game.picture()
    game.close()


@pytest.mark.parametrize("env", ["CartPole-v1", "Acrobot-v1"])
def test_without_pygame_a_picture_is_a_config_error_that_says_what_to_install(monkeypatch, env):
    monkeypatch.setitem(__import__("sys").modules, "pygame", None)
    game = make_game(Config(env=env), with_pictures=True)
    game.start(0)
    with pytest.raises(ConfigError, match=r"--video: .*pip install .gymnasium\[classic") as caught:
        game.picture()
    assert "\n" not in str(caught.value)
    game.close()
