"""Where action masks come from, and what is said of those that are none."""

from __future__ import annotations

import multiprocessing.forkserver

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from aa2c.config.config import Config
from aa2c.envs.actions import action_spec, random_actions
from aa2c.envs.failure import Unusable
from aa2c.envs.game import make_game
from aa2c.envs.masks import to_mask
from aa2c.envs.spec import Discrete, Joint
from aa2c.envs.vector import make_envs
from aa2c.errors import Aa2cError, RunFailed, StartError
from tests.envs.masked_env import ACTIONS, LENGTH, SIZES, Masked, Strange

SOURCES = ("info", "obs", "method")
KINDS = ("one", "two", "tuple")
TWO = action_spec(gym.spaces.MultiDiscrete(SIZES))


def config_of(env, source, **options):
    module = "" if ":" in str(env) or callable(env) else "tests.envs.masked_env:"
    return Config(env=module + env if module else env, action_mask=source, **options)


def walk(envs, steps, seed=0):
    """Masks before each of some random legal steps, and where rows reset."""
    rng = np.random.default_rng(seed)
    masks, resets = [], []
    for _ in range(steps):
        masks.append(envs.mask)
        step = envs.step(random_actions(envs.spec.actions, envs.num_envs, rng, envs.mask))
        resets.append(step["is_reset"])
    return np.array(masks), np.array(resets)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_tells_what_is_legal_now(source, kind):
    envs = make_envs(config_of(f"Masked-{source}-{kind}-v0", source), 3, 0)
    width = ACTIONS if kind == "one" else sum(SIZES)
    assert envs.spec.has_mask
    assert envs.spec.mask_leaf.shape == (width,)
    assert envs.spec.obs_shape == (width + 1,)  # without the mask
    assert envs.spec.obs is None
    first = envs.reset()
    np.testing.assert_array_equal(envs.mask, first[:, :width])
    masks, resets = walk(envs, 4 * LENGTH)  # an illegal action would raise
    assert masks.dtype == np.bool_
    assert resets.sum() >= 6
    assert masks[np.where(resets)].all()  # their actions are ignored, whatever they are
    assert not masks[~resets].all()
    envs.close()


@pytest.mark.parametrize("source", SOURCES)
def test_vector_environments_tell_it_too(source):
    envs = make_envs(config_of(f"MaskedVector-{source}-v0", source), 3, 0)
    first = envs.reset()
    assert first.shape == (3, ACTIONS + 1)
    np.testing.assert_array_equal(envs.mask, first[:, :ACTIONS])
    masks, resets = walk(envs, 4 * LENGTH)
    assert resets.sum() >= 6
    assert masks[np.where(resets)].all()
    assert not masks[~resets].all()
    envs.close()


@pytest.mark.parametrize("mode", ["SAME_STEP", "DISABLED"])
@pytest.mark.parametrize("source", SOURCES)
def test_masks_of_environments_that_are_reset_at_once_are_those_of_what_is_shown(source, mode):
    kwargs = {"where": source, "mode": mode}
    vector = "tests.envs.masked_env:make_vector"
    envs = make_envs(Config(vector=vector, env_kwargs=kwargs, action_mask=source), 3, 0)
    obs = envs.reset()
    rng = np.random.default_rng(0)
    for t in range(1, 4 * LENGTH):
        np.testing.assert_array_equal(envs.mask, obs[:, :ACTIONS])
        step = envs.step(random_actions(envs.spec.actions, 3, rng, envs.mask))
        obs = step["obs"]
        assert step.ended.all() == (t % LENGTH == 0)
        if step["truncated"].any():
            assert step.final_obs[:, :-1].tolist() == [[0] * ACTIONS] * 3
    envs.close()


class Parted(Masked):
    """Its actions are a Dict, and so are its masks; beside a mask in it, it shows a Discrete."""

    def __init__(self, where):
        super().__init__(where, "two")
        choices = [gym.spaces.Discrete(size) for size in SIZES]
        self.action_space = gym.spaces.Dict(dict(zip("ab", choices, strict=True)))
        self.observation_space = gym.spaces.Discrete(3)
        if where == "obs":
            mask = gym.spaces.MultiBinary(sum(SIZES))
            self.observation_space = gym.spaces.Dict(action_mask=mask, kind=gym.spaces.Discrete(3))

    def step(self, action):
        return super().step([action["a"], action["b"]])

    def told(self):
        if self.where == "obs":
            return {"action_mask": np.concatenate(self.legal), "kind": self.t % 3}, {}
        mask = dict(zip("ab", self.legal, strict=True))
        return self.t % 3, {"action_mask": mask} if self.where == "info" else {}

    def action_masks(self):
        return np.concatenate(self.legal)


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("source", SOURCES)
def test_gymnasium_s_vectors_of_parts_tell_what_each_of_them_tells(source, mode):
    def make(num_envs):
        return SyncVectorEnv([lambda: Parted(source)] * num_envs, autoreset_mode=mode)

    envs = make_envs(Config(vector=make, action_mask=source), 3, 0)
    assert envs.reset().tolist() == [[1, 0, 0]] * 3
    walk(envs, 4 * LENGTH)  # an illegal action would raise
    envs.close()


@pytest.mark.long
def test_masks_come_from_processes_of_their_own():
    near, far = (
        make_envs(config_of("Masked-info-two-v0", "info", vectorization=how), 2, 0)
        for how in ("sync", "async")
    )
    near.reset()
    far.reset()
    for found, expected in zip(walk(far, 2 * LENGTH), walk(near, 2 * LENGTH), strict=True):
        np.testing.assert_array_equal(found, expected)
    near.close()
    far.close()
    multiprocessing.forkserver._forkserver._stop()


def test_several_parts_beside_the_mask_stay_a_dict():
    class Wide(Masked):
        def __init__(self):
            super().__init__("obs")
            self.observation_space["kind"] = gym.spaces.Discrete(3)

        def told(self):
            obs, info = super().told()
            return obs | {"kind": 1}, info

    envs = make_envs(config_of(Wide, "obs"), 2, 0)
    assert envs.spec.obs_shape == (ACTIONS + 1 + 3,)
    assert envs.reset()[:, :3].tolist() == [[0, 1, 0]] * 2
    walk(envs, 2 * LENGTH)
    envs.close()


@pytest.mark.parametrize("source", SOURCES)
def test_a_game_tells_it_and_takes_no_other_actions(source):
    game = make_game(config_of(f"Masked-{source}-two-v0", source))
    obs = game.start(3)
    is_over, rng = False, np.random.default_rng(0)
    while not is_over:
        np.testing.assert_array_equal(game.mask, obs[: sum(SIZES)])
        action = random_actions(game.spec.actions, 1, rng, game.mask[None])[0]
        obs, _, is_over = game.step(action)
    game.start(3)
    illegal = [np.flatnonzero(~own)[:1] for own in np.split(game.mask, [SIZES[0]])]
    wrong = [int(own[0]) if len(own) else 0 for own in illegal]
    assert any(len(own) for own in illegal)
    with pytest.raises(RunFailed, match="Illegal"):
        game.step(np.array(wrong))
    game.close()


def test_masks_of_running_environments_are_part_of_their_state():
    envs = make_envs(config_of("Masked-info-two-v0", "info"), 3, 0)
    envs.reset()
    walk(envs, 5)
    saved, before = envs.state(), envs.mask
    walk(envs, LENGTH)
    envs.load_state(saved)
    np.testing.assert_array_equal(envs.mask, before)
    envs.close()


def test_without_the_option_nothing_is_masked():
    envs = make_envs(Config(env="Taxi-v4"), 2, 0)
    envs.reset()
    assert not envs.spec.has_mask
    assert envs.mask is None
    envs.close()


def test_taxi_tells_in_its_info():
    envs = make_envs(Config(env="Taxi-v4", action_mask="info"), 2, 0)
    envs.reset()
    assert envs.mask.shape == (2, 6)
    assert not envs.mask.all()
    envs.close()


STRANGE = [
    (None, "one", r'no info\["action_mask"\]: give it every time, or see --action-mask'),
    ([1, 0, 1], "one", r"the action mask \[1, 0, 1\] of shape \(3,\).*needs \(5,\)"),
    (np.ones((1, 5)), "one", r"of shape \(1, 5\), and its action_space needs \(5,\)"),
    (None, "two", "no info"),
    (([1, 1, 1],), "two", r"needs \(7,\)"),
    (([1, 1], [1, 1, 1, 1, 1]), "two", r"of shape \(2,\), and its action_space needs \(3,\)"),
    ([0, 0, 0.5, 1, 1], "one", "give 1 for each legal action and 0 for the others"),
    ([0, -1, 1, 1, 1], "one", "give 1 for each legal action and 0 for the others"),
    (["a"] * 5, "one", "give 1 for each legal action and 0 for the others"),
    ([np.nan] * 5, "one", "give 1 for each legal action and 0 for the others"),
    ([0] * 5, "one", r"\[0, 0, 0, 0, 0\], which leaves no legal action: end the episode"),
    ([1, 1, 1, 0, 0, 0, 0], "two", r"\[0, 0, 0, 0\], which leaves no legal action"),
    (([0, 0, 0], [1, 1, 1, 1]), "two", r"\[0, 0, 0\], which leaves no legal action"),
]


@pytest.mark.parametrize(("mask", "kind", "says"), STRANGE, ids=str)
def test_a_mask_that_is_none_is_named_with_the_environment_and_a_remedy(mask, kind, says):
    envs = make_envs(config_of(lambda: Strange(mask, kind=kind), "info"), 1, 0)
    with pytest.raises(RunFailed, match=rf"^--env \S+: reset\(\) gave .*{says}"):
        envs.reset()
    envs.close()


def test_a_mask_may_fail_later():
    made = []

    def make():
        made.append(Strange([1] * ACTIONS))
        return made[0]

    envs = make_envs(config_of(make, "info"), 1, 0)
    envs.reset()
    envs.step(np.array([int(np.flatnonzero(made[0].legal[0])[0])]))
    made[0].mask = [0] * ACTIONS
    with pytest.raises(RunFailed, match=r"step\(\) gave the action mask .* leaves no legal action"):
        envs.step(np.array([int(np.flatnonzero(made[0].legal[0])[0])]))
    envs.close()


@pytest.mark.parametrize(
    ("env", "source", "says"),
    [
        ("Pendulum-v1", "info", r"needs Discrete or MultiDiscrete actions.*Pendulum-v1 has Box"),
        ("CartPole-v1", "obs", 'needs a Dict with "action_mask" and something to see'),
        ("CartPole-v1", "method", r"needs a method action_masks\(\) of --env CartPole-v1"),
        ("ALE/Pong-v5", "info", "no Atari game has: use --action-mask none"),
    ],
)
def test_an_environment_without_masks_cannot_be_started_so(env, source, says):
    with pytest.raises(StartError, match=says):
        make_envs(Config(env=env, action_mask=source), 1, 0)


def test_a_vector_environment_that_leaves_one_out_is_named():
    for num_envs in (1, 2):  # the last of them tells nothing
        envs = make_envs(config_of("MaskedVector-some-v0", "info"), num_envs, 0)
        with pytest.raises(Aa2cError, match=r'gave no info\["action_mask"\]'):
            envs.reset()
        envs.close()


def test_masks_are_rows_or_one_of_each_part():
    row = [0, 1, 1, 1, 0, 0, 0]
    apart = ([0, 1, 1], np.array([True, False, False, False]))
    for given in (row, np.array(row, np.int8), apart, list(apart)):
        assert to_mask(TWO, given).tolist() == [bool(x) for x in row]
    same = Joint((Discrete(2), Discrete(2)), (2,))
    for given in ([1, 0, 0, 1], np.eye(2), ([1, 0], [0, 1])):
        assert to_mask(same, given).tolist() == [True, False, False, True]
    space = gym.spaces.Dict(
        a=gym.spaces.Discrete(2), b=gym.spaces.Tuple([gym.spaces.Discrete(3)] * 2)
    )
    given = {"a": [1, 1], "b": ([0, 0, 1], [1, 1, 1])}
    assert to_mask(action_spec(space), given).tolist() == [True, True, False, False, *[True] * 4]


DISCRETE = gym.spaces.Discrete(2)
NESTED = [  # and one mask of each, as the space's own `sample` takes it
    (gym.spaces.MultiDiscrete([[2, 3], [1, 2]]), (([1, 0], [0, 1, 1]), ([1], [0, 1]))),
    (gym.spaces.MultiDiscrete([[2], [3]]), (([1, 0],), ([0, 1, 1],))),
    (gym.spaces.Tuple([gym.spaces.Dict(a=DISCRETE), DISCRETE]), ({"a": [1, 0]}, [0, 1])),
    (gym.spaces.Tuple([gym.spaces.MultiDiscrete([2, 3])] * 2), (([0, 1], [0, 1, 1]),) * 2),
]


@pytest.mark.parametrize(("space", "given"), NESTED, ids=str)
def test_masks_may_be_nested_as_the_space_is(space, given):
    space.sample(mask=_arrays(given))
    mask = to_mask(action_spec(space), given)
    assert mask.tolist() == [bool(x) for x in _numbers(given)]


def _arrays(given):
    if isinstance(given, list):
        return np.array(given, np.int8)
    if isinstance(given, dict):
        return {name: _arrays(own) for name, own in given.items()}
    return tuple(map(_arrays, given))


def _numbers(given):
    if isinstance(given, int):
        return [given]
    parts = given.values() if isinstance(given, dict) else given
    return [number for part in parts for number in _numbers(part)]


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.MultiBinary(3),
        gym.spaces.Box(-1, 1, (2,)),
        gym.spaces.Tuple([gym.spaces.Discrete(2), gym.spaces.Box(-1, 1, (2,))]),
    ],
    ids=str,
)
def test_other_actions_take_no_mask(space):
    spec = action_spec(space)
    assert spec.num_mask == 0
    with pytest.raises(Unusable, match=r"needs \(0,\)"):
        to_mask(spec, [1, 1])


def test_random_actions_are_legal_and_all_of_those():
    rng = np.random.default_rng(0)
    mask = np.tile(np.array([0, 1, 1, 1, 0, 0, 1], np.bool_), (500, 1))
    actions = random_actions(TWO, 500, rng, mask)
    assert set(actions[:, 0]) == {1, 2}
    assert set(actions[:, 1]) == {0, 3}
