"""What --env-kwargs and --wrapper make of an environment, in workers and games alike."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import GrayscaleObservation

from aa2c.config.config import Config
from aa2c.envs.game import make_game
from aa2c.envs.plain import PlainVector
from aa2c.envs.single import make_single
from aa2c.envs.vector import AtariEnvs, make_envs
from aa2c.errors import StartError
from aa2c.host.env_processes import _is_foreign
from tests.envs.asked_env import Plus, Scripted, twice

HERE = "tests.envs.asked_env"
ENV = f"{HERE}:Scripted-v0"
NOTHING = np.zeros(2, np.int64)


def rewards(config):
    """Of the first step: of two environments, of a game, and of a single environment."""
    envs, game, single = make_envs(config, 2, 0), make_game(config), make_single(config)
    envs.reset()
    game.start(0)
    single.reset(seed=0)
    made = [*envs.step(NOTHING)["rewards"], game.step(np.array(0)).reward, single.step(0)[1]]
    for each in (envs, game, single):
        each.close()
    return made


@pytest.mark.parametrize(
    ("wrappers", "wanted"),
    [
        ((f"{HERE}:twice", f"{HERE}:Plus"), 21),
        ((f"{HERE}:Plus", f"{HERE}:twice"), 22),
        ([twice, Plus], 21),
        ((), 10),
    ],
)
def test_wrappers_are_applied_in_their_order_to_what_the_arguments_make(wrappers, wanted):
    assert rewards(Config(env=ENV, env_kwargs={"scale": 10}, wrapper=wrappers)) == [wanted] * 4


def test_a_function_of_the_program_gets_the_arguments_as_well():
    assert rewards(Config(env=Scripted, env_kwargs={"scale": 10})) == [10] * 4


def test_gymnasiums_own_arguments_and_wrappers_are_taken():
    flat = "gymnasium.wrappers:FlattenObservation"
    config = Config(env=ENV, env_kwargs={"kind": "dict", "max_episode_steps": 1}, wrapper=flat)
    envs = make_envs(config, 2, 0)
    assert envs.spec.obs_shape == (4,)
    envs.reset()
    assert envs.step(NOTHING)["truncated"].all()
    envs.close()


def test_an_id_with_a_vector_of_its_own_is_made_singly_if_more_is_asked():
    envs = make_envs(Config(env="CartPole-v1", env_kwargs={"max_episode_steps": 3}), 2, 0)
    assert isinstance(envs._envs, PlainVector)
    envs.reset()
    assert [bool(envs.step(NOTHING)["truncated"].all()) for _ in range(3)] == [False, False, True]
    envs.close()


class NoEnvOfGymnasium:
    """What PettingZoo's wrappers are around."""


class Foreign(gym.Env):
    """As PettingZoo's tutorial makes one seat of a game an environment of Gymnasium's."""

    observation_space, action_space = gym.spaces.Box(0, 1, (2,)), gym.spaces.Discrete(3)
    unwrapped = NoEnvOfGymnasium()

    def reset(self, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), float(action), False, False, {}

    def action_masks(self):
        return [0, 0, 1]


gym.register("Foreign-v0", Foreign)


@pytest.mark.parametrize("env", [Foreign, lambda: Foreign(), "Foreign-v0"])
def test_an_environment_may_be_a_wrapper_of_what_gymnasium_does_not_know(env):
    config = Config(env=env, action_mask="method")
    for make in (lambda config: make_envs(config, 1, 0), make_game, make_single):
        env = make(config)
        assert make is make_single or env.spec.actions.n == 3
        env.close()
    envs = make_envs(config, 1, 0)
    envs.reset()
    assert envs.mask.tolist() == [[False, False, True]]
    assert envs.step(np.array([2]))["rewards"] == [2.0]
    envs.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"env_kwargs": {"no": 1}},
            f"--env {ENV} --env-kwargs no=1 cannot be made: TypeError: .*'no'",
        ),
        ({"wrapper": f"{HERE}:absent"}, f"--wrapper {HERE}:absent cannot be made: AttributeError"),
        (
            {"wrapper": "gymnasium.wrappers:FilterObservation"},
            "'filter_keys'. Name a function of your",
        ),
        ({"wrapper": "no_module:x"}, "--wrapper no_module:x cannot be made: ModuleNotFoundError"),
        ({"wrapper": f"{HERE}:nothing"}, f"--wrapper {HERE}:nothing returned None: return an env"),
    ],
)
def test_what_cannot_be_made_names_what_was_asked(options, words):
    for make in (lambda config: make_envs(config, 1, 0), make_game, make_single):
        with pytest.raises(StartError, match=words):
            make(Config(env=ENV, **options))


def test_atari_games_take_what_their_vector_knows_and_refuse_the_rest_by_name():
    asked = {"full_action_space": True, "max_num_frames_per_episode": 40}
    envs = make_envs(Config(env="ALE/Pong-v5", env_kwargs=asked, noop_max=0), 1, 0)
    assert isinstance(envs, AtariEnvs)
    assert envs.spec.actions.n == 18
    envs.reset()
    steps = [envs.step(np.zeros(1, np.int64)) for _ in range(10)]
    assert [bool(step["truncated"][0]) for step in steps].index(True) <= 9
    envs.close()
    with pytest.raises(StartError, match=r"frameskip 2, and --frame-skip is 4: make them agree"):
        make_envs(Config(env="ALE/Pong-v5", env_kwargs={"frameskip": 2}), 1, 0)
    with pytest.raises(
        StartError, match=r"env-kwargs mode=1 asks .*cannot give mode=1: .*--wrapper"
    ):
        make_envs(Config(env="ALE/Pong-v5", env_kwargs={"mode": 1}), 1, 0)


def test_a_wrapped_atari_game_is_an_environment_like_any_other():
    config = Config(
        env="ALE/Pong-v5",
        env_kwargs={"frameskip": 1, "difficulty": 1},
        wrapper=GrayscaleObservation,
    )
    envs = make_envs(config, 1, 0)
    assert isinstance(envs._envs, PlainVector)
    assert envs.spec.obs_shape == (210, 160)
    envs.close()


@pytest.mark.parametrize(
    ("options", "is_foreign"),
    [
        ({}, False),
        ({"wrapper": "gymnasium.wrappers:FlattenObservation"}, False),
        ({"wrapper": f"{HERE}:Plus"}, True),
        ({"vectorization": "async"}, True),
    ],
)
def test_what_may_start_processes_is_watched(options, is_foreign):
    assert _is_foreign(Config(env="CartPole-v1", **options)) == is_foreign


def test_a_vector_may_start_processes():
    assert _is_foreign(Config(vector=f"{HERE}:make_vector"))
