"""Observations of any space as one row, beside Gymnasium's own flattening."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces.utils import flatten

from aa2c.config.config import Config
from aa2c.envs.failure import Unusable
from aa2c.envs.observations import obs_spec, to_row
from aa2c.envs.plain import spec_of
from aa2c.envs.shown import from_row
from aa2c.envs.vector import make_envs
from aa2c.envs.written import plain_obs, read_obs
from aa2c.errors import StartError

SPACES = [
    spaces.Discrete(4),
    spaces.Discrete(5, start=-2),
    spaces.MultiDiscrete([3, 2, 4]),
    spaces.MultiBinary(5),
    spaces.MultiBinary((2, 3)),
    spaces.Box(-1, 1, (2, 3), np.float32),
    spaces.Tuple((spaces.Discrete(32), spaces.Discrete(11), spaces.Discrete(2))),
    spaces.Dict(
        place=spaces.Box(-1, 1, (2,), np.float64),
        deep=spaces.Tuple((spaces.Discrete(3, start=1), spaces.MultiBinary(2))),
        kind=spaces.Discrete(2),
    ),
]


def plain(seen):
    """As JSON has it, and arrays flat."""
    if isinstance(seen, dict):
        return {name: plain(part) for name, part in seen.items()}
    if isinstance(seen, tuple):
        return tuple(plain(part) for part in seen)
    return seen.flatten().tolist() if np.ndim(seen) else seen.item()


@pytest.mark.parametrize("space", [*SPACES, spaces.Box(-9, 9, (3,), np.int32)], ids=str)
def test_of_a_row_a_person_is_shown_the_observation(space):
    spec = obs_spec(space)
    space.seed(0)
    for _ in range(30):
        seen = space.sample()
        shown, wanted = from_row(spec, to_row(spec, seen), 64), plain(seen)
        if not isinstance(seen, dict | tuple):
            wanted = pytest.approx(wanted)
        elif isinstance(seen, dict):
            wanted["place"] = pytest.approx(wanted["place"])
        assert shown == wanted
        json.dumps(shown)


def test_of_a_large_array_a_person_is_shown_the_first_numbers():
    space = spaces.Dict(screen=spaces.Box(0, 255, (9, 9), np.uint8), at=spaces.Discrete(99))
    spec = obs_spec(space)
    shown = from_row(spec, to_row(spec, space.sample()), 5)
    assert (len(shown["screen"]), set(shown)) == (5, {"screen", "at"})


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_row_is_what_gymnasium_flattens_to(space):
    spec = obs_spec(space)
    space.seed(0)
    for _ in range(30):
        seen = space.sample()
        row = to_row(spec, seen)
        assert row.dtype == np.float32
        np.testing.assert_allclose(row, flatten(space, seen).astype(np.float32), rtol=1e-6)


NUMBERED = spaces.Dict({1: spaces.Box(-1, 1, (2,)), 0: spaces.Discrete(3, start=1)})
EMPTY = spaces.Dict(a=spaces.Box(0, 1, (0,)), b=spaces.Discrete(2))


def test_parts_may_have_numbers_for_names_and_nothing_in_them():
    row = to_row(obs_spec(NUMBERED), {0: 3, 1: [0.25, 0.5]})
    assert row.tolist() == flatten(NUMBERED, {0: 3, 1: np.float32([0.25, 0.5])}).tolist()
    assert from_row(obs_spec(NUMBERED), row, 9) == {"0": 3, "1": [0.25, 0.5]}
    assert to_row(obs_spec(EMPTY), {"a": [], "b": 1}).tolist() == [0, 1]


@pytest.mark.parametrize(
    "space", [spaces.Box(0, 1, (0,)), spaces.Tuple([spaces.Box(0, 1, (3, 0))])]
)
def test_observations_of_no_numbers_at_all_are_refused(space):
    with pytest.raises(StartError, match="in which there is nothing to see"):
        spec_of(space, spaces.Discrete(2))


@pytest.mark.parametrize("space", [*SPACES, NUMBERED, EMPTY], ids=str)
def test_a_spec_goes_through_json(space):
    spec = obs_spec(space)
    assert read_obs(json.loads(json.dumps(plain_obs(spec), allow_nan=False))) == spec


def test_integers_are_scaled_by_their_own_bounds():
    spec = obs_spec(spaces.Tuple((spaces.Box(0, 10, (2,), np.int64), spaces.Box(0, 9, (1,)))))
    assert to_row(spec, ([5, 10], [9.0])).tolist() == [0.5, 1.0, 9.0]


@pytest.mark.parametrize(
    ("space", "seen", "says"),
    [
        (spaces.Discrete(4), 4, "an integer in 0 … 3"),
        (spaces.Discrete(4), 1.5, "an integer in 0 … 3"),
        (spaces.MultiDiscrete([2, 2]), [1], "2 integers"),
        (spaces.Dict(a=spaces.Discrete(2)), {"b": 1}, "a mapping of a"),
        (spaces.Tuple((spaces.Discrete(2),)), 1, "1 parts"),
        (spaces.MultiBinary(3), [1, 0], r"numbers of shape \(3,\)"),
        (
            spaces.Tuple([spaces.Box(0, 1, (2, 3))]),
            (np.ones((3, 2)),),
            r"numbers of shape \(2, 3\)",
        ),
        (spaces.Dict({2: spaces.Discrete(2)}), {"2": 1}, "a mapping of 2"),
    ],
)
def test_an_observation_of_another_kind_is_named(space, seen, says):
    with pytest.raises(Unusable, match=says):
        to_row(obs_spec(space), seen)


@pytest.mark.parametrize("space", [spaces.Text(3), spaces.Sequence(spaces.Discrete(2))], ids=str)
def test_spaces_that_no_network_sees_are_refused_with_a_remedy(space):
    with pytest.raises(StartError, match="TransformObservation"):
        obs_spec(space)


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"kind": "Numbers", "shape": [2], "scale": 0},
        {"kind": "Numbers", "shape": [-1], "scale": 1},
        {"kind": "OneHot", "sizes": [2], "starts": []},
        {"kind": "Several", "parts": [], "names": []},
        {"kind": "Graph"},
    ],
    ids=str,
)
def test_a_spec_that_is_none_is_refused(plain):
    with pytest.raises((ValueError, KeyError, TypeError)):
        read_obs(plain)


@pytest.mark.parametrize(
    ("env", "width"), [("FrozenLake-v1", 16), ("Blackjack-v1", 45), ("Taxi-v4", 500)]
)
def test_gymnasium_s_tables_are_one_hot(env, width):
    envs = make_envs(Config(env=env, num_envs=3), 3, 0)
    assert envs.spec.obs_shape == (width,)
    first = envs.reset()
    assert first.shape == (3, width)
    assert set(np.unique(first)) == {0, 1}
    step = envs.step(np.zeros(3, np.int64))
    assert step["obs"].sum(1).tolist() == first.sum(1).tolist()
    envs.close()
