"""Other people's environments: what can be borne is borne, the rest is one sentence."""

from __future__ import annotations

import inspect
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from aa2c.checkpoints.tensors import Checkpoint
from aa2c.checkpoints.trained import TrainedPolicy
from aa2c.config.config import Config
from aa2c.envs import plain
from aa2c.envs.game import make_game
from aa2c.envs.spec import Discrete, EnvSpec
from aa2c.envs.vector import make_envs
from aa2c.errors import RunFailed, StartError
from aa2c.learn.rollout import Rollout, collect
from aa2c.policy.network import make_policy
from tests.envs import strange_env
from tests.envs.custom_env import FIRST_ACTION

HERE = "tests.envs.strange_env"
STEPS = 8  # six of an episode, its reset row, and one of the next


def made(name: str, num_envs: int = 2, **options):
    return make_envs(Config(env=f"{HERE}:{name}-v0", **options), num_envs, 7)


def play(name: str, count: int = STEPS):
    envs = made(name)
    first = envs.reset()
    steps = [envs.step(np.array([0, 1])) for _ in range(count)]
    envs.close()
    return first, steps


def test_a_run_of_one_environment_makes_it_once():
    before = next(strange_env.made)
    make_envs(Config(env=f"{HERE}:Plain-v0"), 1, 0).close()
    assert next(strange_env.made) == before + 2


def test_each_that_is_made_or_reset_is_a_sign_of_life():
    signs = []
    envs = make_envs(Config(env=f"{HERE}:Plain-v0"), 3, 0, lambda: signs.append(0))
    assert len(signs) == 3
    envs.reset()
    assert len(signs) == 6
    for _ in range(STEPS):
        envs.step(np.zeros(3, np.int64))
    assert len(signs) == 9
    envs.close()


@pytest.mark.parametrize("name", ["Infos", "Rewards", "Lists"])
def test_infos_rewards_and_lists_of_every_kind_give_what_plain_ones_give(name):
    first, steps = play(name)
    expected_first, expected = play("Plain")
    np.testing.assert_array_equal(first, expected_first)
    for step, wanted in zip(steps, expected, strict=True):
        for leaf in ("obs", "rewards", "terminated", "truncated", "is_reset"):
            np.testing.assert_array_equal(step[leaf], wanted[leaf])
    assert [tuple(e) for step in steps for e in step.episodes] == [(0.0, 6), (6.0, 6)]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("float64", "float64"),
        ("float32Swapped", "float32"),
        ("float64Swapped", "float64"),
        ("float16", "float32"),
        ("int64", "int64"),
        ("int32Swapped", "int32"),
        ("int16", "float32"),
        ("uint16", "float32"),
        ("uint32", "float32"),
        ("bool", "bool"),
        ("uint8", "uint8"),
        ("int8", "int8"),
    ],
)
def test_observations_of_any_dtype_in_a_buffer_used_again_are_learned_from(name, dtype):
    envs = made(f"Dtype{name}")
    assert envs.spec == EnvSpec((4,), dtype, Discrete(2), obs_scale=1.0)
    config = Config(env="CartPole-v1", num_steps=5, num_envs=envs.num_envs)
    policy = make_policy(config, envs.spec)
    rollout = Rollout(envs, config)
    collect(envs, policy, rollout, torch.Generator().manual_seed(0))
    assert rollout["obs"].dtype == dtype
    np.testing.assert_array_equal(rollout["obs"][:, 0, 0], [0, 1, 0, 1, 0, 1])
    envs.close()


@pytest.mark.parametrize(
    ("low", "high", "dtype", "scale"),
    [
        (0, 255, np.uint8, 255), (0, 1, np.uint8, 1), (0, 10, np.uint8, 10), (-5, 3, np.int8, 5),
        (0, 1000, np.int64, 1000), (0, 2**40, np.int64, 1), (0, 65535, np.uint16, 65535),
        (-9, 9, np.float32, 1), (0, 0, np.uint8, 1),
    ],
)  # fmt: skip
def test_integers_are_scaled_by_the_bounds_of_their_space(low, high, dtype, scale):
    space = plain.gym.spaces.Box(low, high, (3,), dtype)
    spec = plain.spec_of(space, plain.gym.spaces.Discrete(2))
    assert spec.obs_scale == scale
    config = Config(env="CartPole-v1")
    obs = torch.tensor(np.full((2, 3), high, spec.obs_dtype))
    wanted = make_policy(config, EnvSpec((3,), "float32", Discrete(2)))
    ours = make_policy(config, spec)
    ours.load_state_dict(wanted.state_dict())
    torch.testing.assert_close(ours(obs)[0], wanted(obs.float() / scale)[0])


def line_of(kind, text: str) -> str:
    """file:line of the first line with this text in a class's source."""
    lines, start = inspect.getsourcelines(kind)
    offset = next(i for i, line in enumerate(lines) if text in line)
    return f"{inspect.getsourcefile(kind)}:{start + offset}"


@pytest.mark.parametrize(
    ("kind", "words", "line"),
    [
        (strange_env.Raises, ["step() raised IndexError", "in step"], "random.choice"),
        (strange_env.Exits, ["step() raised SystemExit: the licence has expired"], "sys.exit"),
        (strange_env.NoReward, ["the reward None", "one number"], None),
        (strange_env.FourValues, ["returned 4 values", "terminated, truncated"], "def step"),
        (strange_env.OldReset, ["reset() returned array(", "return obs, info"], "def reset"),
        (strange_env.WrongShape, ["(1,)", "observation_space has (4,)"], None),
        (strange_env.Fractions, ["0.5", "uint8", "cannot hold"], None),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_cannot_be_borne_is_one_sentence_with_the_environment_and_the_line(kind, words, line):
    with pytest.raises(RunFailed) as caught:
        play(kind.__name__)
    message = str(caught.value)
    assert "\n" not in message
    for word in (f"--env {HERE}:{kind.__name__}-v0", *words):
        assert word in message
    assert re.search(r"strange_env\.py:\d+", message)
    assert line is None or line_of(kind, line) in message


def test_an_exit_while_it_is_made_and_spaces_that_differ_are_start_errors():
    with pytest.raises(StartError, match=r"ExitsAtOnce-v0.*SystemExit: no display.*py:\d+"):
        made("ExitsAtOnce")
    with pytest.raises(StartError, match="Different-v0 makes environments of different spaces"):
        made("Different")


def test_a_close_that_raises_exits_or_never_returns_keeps_nobody_from_being_closed(
    capfd, monkeypatch
):
    monkeypatch.setattr(plain, "CLOSE_S", 0.5)
    monkeypatch.setattr(strange_env.BadClose, "closed", [])
    envs = made("BadClose", 5)
    envs.reset()
    envs.close()
    assert strange_env.BadClose.closed == [-1, -1, -1, 3, 4]
    said = capfd.readouterr().err
    for words in ("AttributeError: viewer", "SystemExit: 1", "takes too long"):
        assert words in said


def test_an_environment_that_tells_no_speed_is_shown_at_a_usual_one():
    game = make_game(Config(env=f"{HERE}:NoSpeed-v0"), with_pictures=True)
    game.start(0)
    assert game.pictures_per_s == 30
    assert game.picture().shape == (32, 32, 3)
    game.close()


def test_global_random_numbers_are_seeded_and_saved_with_deterministic():
    envs = made("GlobalChance", deterministic=True)
    first = envs.reset()
    random.seed(1)
    np.testing.assert_array_equal(envs.reset(), first)
    saved = envs.state()
    wanted = envs.step(np.array([0, 0]))["obs"]
    envs.reset()
    envs.load_state(saved)
    np.testing.assert_array_equal(envs.step(np.array([0, 0]))["obs"], wanted)
    envs.close()


def test_a_trained_policy_gives_the_numbers_of_the_environments_own_actions():
    config = Config(env="tests.envs.custom_env:Counter-v0")
    envs = make_envs(config, 1, 0)
    network = make_policy(config, envs.spec)
    saved = Checkpoint(Path(), network.state_dict(), {}, config, envs.spec, {}, None)
    obs = np.random.default_rng(0).normal(size=(200, 3)).astype(">f8")
    actions = TrainedPolicy(saved)(obs)
    assert actions.dtype == np.int64
    assert set(actions) <= set(range(FIRST_ACTION, FIRST_ACTION + 4))
    greedy = network.evaluate(torch.from_numpy(obs.astype(np.float32)))[0].mode()
    np.testing.assert_array_equal(actions - FIRST_ACTION, greedy)
    envs.close()
