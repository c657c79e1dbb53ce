"""Which recipe a task gets, without one environment being made."""

from __future__ import annotations

import warnings

import gymnasium as gym
import pytest

import aa2c
from aa2c import Config, ConfigError, NoRecipeWarning, Orchestrator
from aa2c.cli.flags import Nothing, resolve
from aa2c.config.toml import load_config, preset_names
from aa2c.envs import recipes
from aa2c.modes.mode import MODES

KINDS = {
    "ALE/Pong-v5": "atari",
    "PongNoFrameskip-v4": "atari",
    "ale_py:ALE/Pong-v5": "atari",
    "HalfCheetah-v5": "continuous",
    "Pendulum-v1": "continuous",
    "MountainCarContinuous-v0": "continuous",
    "BipedalWalker-v3": "continuous",
    "LunarLanderContinuous-v3": "continuous",
    "gymnasium_robotics:FetchReach-v4": "continuous",
    "LunarLander-v3": "vector",
    "MountainCar-v0": "vector",
    "Acrobot-v1": "vector",
    "CartPole-v1": "vector",
    "FrozenLake-v1": "vector",
    "minigrid:MiniGrid-Empty-5x5-v0": "grid",
    "Nope-v3": "vector",
}
EVERY = [f"traj/{kind}" for kind in recipes.KINDS]


@pytest.fixture
def nothing_is_made(monkeypatch):
    def refuse(*_, **__):
        pytest.fail("an environment was made")

    monkeypatch.setattr(gym, "make", refuse)
    monkeypatch.setattr(gym, "make_vec", refuse)


@pytest.fixture
def every_kind(monkeypatch, nothing_is_made):
    monkeypatch.setattr(recipes, "preset_names", lambda: EVERY)


def kind(env, env_kwargs=(), memory="none"):
    return recipes.preset_for("traj", env, dict(env_kwargs), memory).partition("/")[2]


@pytest.mark.parametrize("env", KINDS)
def test_the_kind_of_a_task_is_known_from_where_its_environment_comes_from(env, every_kind):
    assert kind(env) == KINDS[env]


def test_a_keyword_argument_decides_over_the_module(every_kind):
    assert kind("LunarLander-v3", {"continuous": True}) == "continuous"
    assert kind("LunarLanderContinuous-v3", {"continuous": False}) == "vector"


def test_memory_is_a_kind_of_its_own_where_the_task_has_none(every_kind):
    assert kind("CartPole-v1", memory="lstm") == "memory"
    assert kind("Pendulum-v1", memory="lstm") == "continuous"


def test_a_class_is_known_by_its_module(every_kind):
    from gymnasium.envs.classic_control import PendulumEnv

    assert kind(Config(env=PendulumEnv).env) == "continuous"
    assert kind(Config(env=lambda: None).env) == "vector"


def test_the_class_of_a_registered_id_is_known_by_its_module(every_kind, monkeypatch):
    from gymnasium.envs.classic_control import PendulumEnv

    spec = gym.envs.registration.EnvSpec("Swing-v0", PendulumEnv)
    monkeypatch.setitem(gym.registry, "Swing-v0", spec)
    assert kind("Swing-v0") == "continuous"


def test_a_kind_without_a_preset_has_the_recipe_of_all_others(monkeypatch):
    monkeypatch.setattr(recipes, "preset_names", lambda: ["traj/vector", "traj/memory"])
    assert kind("Pendulum-v1") == "vector"
    assert kind("Pendulum-v1", memory="gru") == "memory"
    assert recipes.preset_for("other", "Acrobot-v1", {}, "none") == "none"


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_has_a_recipe_for_continuous_actions_and_for_memory(mode, nothing_is_made):
    assert recipes.preset_for(mode, "Pendulum-v1", {}, "none") == f"{mode}/continuous"
    assert recipes.preset_for(mode, "CartPole-v1", {}, "gru") == f"{mode}/memory"


@pytest.mark.parametrize("mode", MODES)
def test_memory_that_is_asked_for_overrides_that_of_its_recipe(mode, nothing_is_made):
    config = aa2c.recipe("CartPole-v1", mode=mode, memory="lstm")
    assert (config.memory, config.memory_size) == ("lstm", 64)
    assert load_config(preset=f"{mode}/memory").memory == "gru"


@pytest.mark.parametrize("mode", MODES)
def test_recipe_is_what_serve_would_train_with(mode, nothing_is_made):
    for env in ("ALE/Pong-v5", "Pendulum-v1", "CartPole-v1"):
        resolved = resolve("config", "", ["--env", env, "--mode", mode], Nothing)
        assert aa2c.recipe(env, mode=mode) == resolved.config
        assert resolved.preset in preset_names()
    assert (
        resolve("config", "", ["--env", "ALE/Pong-v5", "--mode", mode], Nothing).preset
        == f"{mode}/atari"
    )


def test_options_override_a_recipe_and_are_checked():
    config = aa2c.recipe("ALE/Pong-v5", mode="traj", workers=7, env_kwargs={"difficulty": 0})
    assert (config.workers, config.env_kwargs) == (7, {"difficulty": 0})
    assert (
        config.norm_returns
        == load_config(preset="traj/atari").norm_returns
        != Config().norm_returns
    )
    with pytest.raises(ConfigError, match="--mode"):
        aa2c.recipe("ALE/Pong-v5", mode="nope")
    with pytest.raises(ConfigError, match="wrokers"):
        aa2c.recipe("ALE/Pong-v5", wrokers=2)


def test_the_command_line_takes_the_recipe_of_its_keyword_arguments(tmp_path):
    line = ["--mode", "traj", "--env", "LunarLander-v3", "--env-kwargs"]
    assert resolve("config", "", [*line, "continuous=true"], Nothing).preset == "traj/continuous"
    assert resolve("config", "", [*line, "continuous=false"], Nothing).preset == "traj/vector"
    file = tmp_path / "my.toml"
    file.write_text('mode = "traj"\nenv = "LunarLander-v3"\nenv_kwargs = {continuous = true}')
    assert resolve("config", "", ["--config", str(file)], Nothing).preset == "traj/continuous"
    replaced = resolve("config", "", ["--config", str(file), "--env-kwargs", "gravity=-9"], Nothing)
    assert replaced.preset == "traj/vector"
    assert replaced.config.env_kwargs == {"gravity": -9}


def test_bare_defaults_where_there_is_a_recipe_are_warned_of_once(tmp_path):
    with pytest.warns(NoRecipeWarning, match=r"aa2c.recipe\(env, mode='grad'\)") as warned:
        Orchestrator(Config(env="ALE/Pong-v5", workers=4, total_env_steps=100))
    assert len(warned) == 1
    assert warned[0].filename == __file__
    with pytest.warns(NoRecipeWarning, match="the recipe traj/continuous"):
        Orchestrator(Config(env="Pendulum-v1", mode="traj"))
    with pytest.warns(NoRecipeWarning, match=r"CartPole-v1 .* the recipe grad/vector"):
        Orchestrator(Config())


@pytest.mark.parametrize(
    "config",
    [
        Config(env="ALE/Pong-v5", network="nature", reward_clip=1),
        Config(gamma=0.9),
        aa2c.recipe("ALE/Pong-v5"),
        aa2c.recipe(),
    ],
    ids=["atari", "tuned", "recipe", "default recipe"],
)
def test_nothing_is_said_where_something_is_tuned(config):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Orchestrator(config)
