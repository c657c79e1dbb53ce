from __future__ import annotations

import functools
import sys
from types import SimpleNamespace
from typing import NamedTuple

import ale_py
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

from aa2c.config.config import Config
from aa2c.envs.find import MAX_FRAMES_PER_GAME
from aa2c.envs.spec import STEP_LEAVES, Discrete, EnvSpec
from aa2c.envs.vector import AtariEnvs, Envs, GymnasiumEnvs, Step, env_spec, make_envs
from aa2c.errors import StartError
from tests.envs.custom_env import FIRST_ACTION, TERMINATES_AFTER, TRUNCATED_AFTER


class Played(NamedTuple):
    """What some steps gave; arrays are [T, B]."""

    steps: list[Step]
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    is_reset: np.ndarray

    @property
    def episodes(self):
        return [episode for step in self.steps for episode in step.episodes]


def play(envs: Envs, count: int, policy=None) -> Played:
    """Step with a policy on observations, by default random actions."""
    rng = np.random.default_rng(0)
    obs = envs.reset()
    assert obs.shape == (envs.num_envs, *envs.spec.obs_shape)
    steps, actions = [], []
    for _ in range(count):
        chosen = policy(obs) if policy else rng.integers(envs.spec.actions.n, size=envs.num_envs)
        steps.append(envs.step(np.asarray(chosen, np.int64)))
        actions.append(chosen)
        obs = steps[-1]["obs"]
        assert obs.shape == (envs.num_envs, *envs.spec.obs_shape)
        assert str(obs.dtype) == envs.spec.obs_dtype
    envs.close()
    columns = [np.array([s[leaf.name] for s in steps]) for leaf in STEP_LEAVES]
    return Played(steps, np.array(actions), *columns)


def made(env: str, num_envs: int = 2, **options) -> Envs:
    return make_envs(Config(env=env, **options), num_envs, 7)


def counted_episodes(played: Played, ends: np.ndarray) -> list[tuple[float, int]]:
    """Raw return and length of each game, counted from rewards up to the rows that end one."""
    found = []
    for b in range(ends.shape[1]):
        start = 0
        for end in np.flatnonzero(ends[:-1, b]):
            rows = slice(start, end + 1)
            length = int((~played.is_reset[rows, b]).sum())
            found.append((end + 1, b, float(played.rewards[rows, b].sum()), length))
            start = end + 1
    return [(total, length) for _, _, total, length in sorted(found)]


def check_autoreset(played: Played, ends: np.ndarray) -> None:
    """Reset rows follow exactly the rows that end a game, and hold neither reward nor end."""
    assert ends.any(), "the test must see an episode end"
    assert not played.is_reset[0].any()
    np.testing.assert_array_equal(played.is_reset[1:], ends[:-1])
    assert not played.rewards[played.is_reset].any()
    assert not (played.terminated | played.truncated)[played.is_reset].any()
    assert played.rewards.dtype == np.float32
    assert [tuple(e) for e in played.episodes] == counted_episodes(played, ends)


@pytest.mark.parametrize(
    ("env", "steps"),
    [("CartPole-v1", 200), ("Acrobot-v1", 1100), ("tests.envs.custom_env:Counter-v0", 60)],
)
def test_a_reset_row_follows_exactly_each_ended_row_and_episodes_are_counted_right(env, steps):
    envs = made(env, 3)
    assert isinstance(envs, GymnasiumEnvs)
    played = play(envs, steps)
    check_autoreset(played, played.terminated | played.truncated)


def test_cartpole_is_truncated_at_500_steps_and_not_terminated():
    played = play(made("CartPole-v1", 2), 503, lambda obs: obs[:, 2] + obs[:, 3] > 0)
    assert np.argwhere(played.truncated).tolist() == [[499, 0], [499, 1]]
    assert not played.terminated.any()
    assert [tuple(e) for e in played.episodes] == [(500.0, 500)] * 2


def test_acrobot_is_truncated_at_500_steps():
    played = play(made("Acrobot-v1", 2), 501, lambda obs: np.ones(2))
    assert np.argwhere(played.truncated).tolist() == [[499, 0], [499, 1]]
    assert not played.terminated.any()


def test_an_environment_of_a_module_is_imported_and_its_first_action_may_not_be_0():
    envs = made("tests.envs.custom_env:Counter-v0", 2)
    assert envs.spec == EnvSpec((3,), "float32", Discrete(4, start=FIRST_ACTION))
    played = play(envs, 30)
    raw = played.actions + FIRST_ACTION
    np.testing.assert_array_equal(played.rewards, np.where(played.is_reset, 0, raw))
    assert np.argwhere(played.truncated[:, 0])[0] == TRUNCATED_AFTER - 1
    assert np.argwhere(played.terminated[:, 0])[0] == TRUNCATED_AFTER + TERMINATES_AFTER


def test_the_observation_of_an_ended_row_is_the_true_last_one():
    played = play(made("tests.envs.custom_env:Counter-v0", 1), 10)
    counts = [int(step["obs"][0, 0]) for step in played.steps]
    assert counts == [1, 2, 3, 4, 5, 6, 7, 0, 1, 2]


def test_a_vector_environment_with_another_autoreset_is_replaced_by_single_ones():
    played = play(made("tests.envs.custom_env:SameStep-v0", 2), 30)
    check_autoreset(played, played.terminated | played.truncated)


@pytest.mark.parametrize("env", ["CartPole-v1", "Acrobot-v1", "ALE/Breakout-v5"])
def test_the_same_seed_gives_the_same_experience_and_another_does_not(env):
    config = Config(env=env)
    one, same, other = (play(make_envs(config, 2, seed), 25) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.steps[-1]["obs"], same.steps[-1]["obs"])
    assert (one.steps[-1]["obs"] != other.steps[-1]["obs"]).any()
    assert (one.steps[-1]["obs"][0] != one.steps[-1]["obs"][1]).any()


def test_breakout_marks_lost_lives_as_terminated_and_reports_whole_games():
    played = play(made("ALE/Breakout-v5", 2), 450)
    game_over = np.roll(played.is_reset, -1, axis=0)
    game_over[-1] = False
    lives_lost = played.terminated & ~game_over
    assert lives_lost.sum() > 2 * game_over.sum()
    assert not played.truncated.any()
    assert (played.terminated | ~game_over).all(), "the last life is terminated too"
    for b in range(2):
        ends = np.flatnonzero(game_over[:, b])
        games = np.split(played.terminated[:, b], ends + 1)[:-1]
        assert games
        assert [int(game.sum()) for game in games] == [5] * len(games)
    check_autoreset(played, game_over)
    assert any(episode.episode_return > 0 for episode in played.episodes)


def test_breakout_without_terminal_on_life_loss_terminates_only_whole_games():
    options = {"terminal_on_life_loss": False}
    played = play(made("ALE/Breakout-v5", 2, **options), 400)
    check_autoreset(played, played.terminated)
    lives = play(made("ALE/Breakout-v5", 2), 400)
    np.testing.assert_array_equal(played.is_reset, lives.is_reset)
    np.testing.assert_array_equal(played.rewards, lives.rewards)


def test_pong_games_end_at_21_points_and_their_score_is_raw():
    played = play(made("ALE/Pong-v5", 2, frame_skip=20), 220)
    check_autoreset(played, played.terminated)
    assert played.rewards[played.rewards != 0].size
    assert all(min(e.episode_return, -e.episode_return) >= -21 for e in played.episodes)
    score = played.rewards[: np.flatnonzero(played.terminated[:, 0])[0] + 1, 0]
    assert (score < 0).sum() <= 21 <= -score[score < 0].sum()


def test_atari_rewards_are_raw():
    played = play(made("ALE/Seaquest-v5", 4), 200)
    assert set(np.unique(played.rewards)) == {0.0, 20.0}


def test_an_atari_game_that_never_ends_is_truncated_after_so_many_frames():
    assert MAX_FRAMES_PER_GAME == 108_000
    env = "tests.envs.atari_ids:ShortBreakout-v0"
    envs = made(env, 1, frame_skip=50, noop_max=0)  # one life, then it waits for FIRE
    played = play(envs, 85, lambda obs: np.zeros(1))
    assert np.flatnonzero(played.truncated[:, 0]).tolist() == [39, 80]
    check_autoreset(played, played.truncated)


@pytest.mark.parametrize(
    ("env", "actions"),
    [("ALE/Seaquest-v5", 18), ("PongNoFrameskip-v4", 6), ("ALE/Freeway-v5", 3)],
)
def test_other_atari_games_and_older_ids_work(env, actions):
    envs = made(env, 2)
    assert isinstance(envs, AtariEnvs)
    assert envs.spec == EnvSpec((4, 84, 84), "uint8", Discrete(actions), is_stacked=True)
    play(envs, 5)


@pytest.mark.parametrize("env", ["CartPole-v1", "tests.envs.custom_env:Counter-v0", "ALE/Pong-v5"])
@pytest.mark.parametrize("wrong", [-1, 18, 2**40])
def test_an_invalid_action_raises_value_error_and_the_environment_can_go_on(env, wrong):
    envs = made(env, 2)
    envs.reset()
    with pytest.raises(ValueError, match="actions must be in 0"):
        envs.step(np.array([0, wrong]))
    envs.step(np.array([0, 1]))
    envs.close()


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ("NoSuchGame-v0", ["NoSuchGame"]),
        ("CartPole-v77", ["v77", "v1"]),
        ("ALE/NoSuchGame-v5", ["NoSuchGame"]),
        ("no_such_module:CartPole-v1", ["no_such_module"]),
        ("tests.envs.custom_env:NoSuchGame-v0", ["NoSuchGame"]),
        ("tests.envs.custom_env:Broken-v0", ["RuntimeError", "no licence found"]),
        ("not an id", ["not an id"]),
        (":", []),
    ],
)
def test_what_cannot_be_made_is_a_start_error_that_names_the_option_and_the_cause(env, words):
    with pytest.raises(StartError) as caught:
        env_spec(Config(env=env))
    message = str(caught.value)
    assert "\n" not in message
    for word in ["--env", *words]:
        assert word in message


@functools.cache
def area_weights(inputs: int, outputs: int) -> np.ndarray:
    borders = np.linspace(0, inputs, outputs + 1)
    starts, ends, pixels = borders[:-1, None], borders[1:, None], np.arange(inputs)
    overlap = np.minimum(ends, pixels + 1) - np.maximum(starts, pixels)
    return np.clip(overlap, 0, None) * outputs / inputs


def area_resize(image: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    """OpenCV's INTER_AREA, literally: each pixel is the mean of the area it covers."""
    height, width = image.shape
    shrunk = area_weights(height, size[1]) @ image @ area_weights(width, size[0]).T
    return np.rint(shrunk).astype(np.uint8)


class FireAtStart(gym.Wrapper):
    """AtariEnvs presses FIRE for one frame at a game's start; Gymnasium has no such wrapper."""

    def reset(self, **options):
        self.env.reset(**options)
        obs, _, _, _, info = self.env.step(1)
        return obs, info


@pytest.mark.parametrize(
    ("game", "frame_skip", "steps"),
    [
        ("ALE/Pong-v5", 4, 100),
        pytest.param("ALE/Pong-v5", 20, 170, marks=pytest.mark.long),
        pytest.param("ALE/Breakout-v5", 4, 230, marks=pytest.mark.long),
    ],
)
def test_atari_frames_are_those_of_gymnasiums_preprocessing(monkeypatch, game, frame_skip, steps):
    """Through resets. Pixels may differ by 1, for `area_resize` rounds what OpenCV rounds."""
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(INTER_AREA=3, resize=area_resize))
    gym.register_envs(ale_py)
    plain = gym.make(game, frameskip=1, obs_type="grayscale", repeat_action_probability=0.0)
    assert plain.unwrapped.get_action_meanings()[1] == "FIRE"
    theirs = AtariPreprocessing(FireAtStart(plain), noop_max=0, frame_skip=frame_skip)
    theirs = FrameStackObservation(theirs, 4, padding_type="zero")
    ours = made(game, 1, frame_skip=frame_skip, noop_max=0, terminal_on_life_loss=False)
    expected, ended, resets = theirs.reset()[0], False, 0
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(ours.reset()[0].astype(int), expected, atol=1)
    for _ in range(steps):
        action = int(rng.integers(ours.spec.actions.n))
        step = ours.step(np.array([action]))
        assert step["is_reset"][0] == ended
        if ended:
            expected, reward, ended = theirs.reset()[0], 0.0, False
            resets += 1
        else:
            expected, reward, terminated, truncated, _ = theirs.step(action)
            ended = terminated or truncated
        np.testing.assert_allclose(step["obs"][0].astype(int), expected, atol=1)
        assert step["rewards"][0] == reward
        assert (step["terminated"] | step["truncated"])[0] == ended
    assert resets or steps == 100
    ours.close()
    theirs.close()
