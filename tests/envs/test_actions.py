"""Actions at the border: every kind of space, there and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from gymnasium import spaces

from aa2c.envs.actions import action_spec, check_actions, random_actions, to_space
from aa2c.envs.spec import Continuous, Discrete
from aa2c.envs.written import plain_actions, read_actions
from aa2c.errors import StartError
from aa2c.policy.actions import action_type

BOX = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 5.0], np.float32))
SPACES = [
    spaces.Discrete(4),
    spaces.Discrete(3, start=-1),
    spaces.MultiBinary(5),
    spaces.MultiBinary((2, 3)),
    spaces.MultiDiscrete([3, 2, 4]),
    spaces.MultiDiscrete([[3, 2], [4, 5]]),
    spaces.MultiDiscrete([3, 2], start=[1, -2]),
    BOX,
    spaces.Box(-1, 1, (2, 3), np.float64),
    spaces.Box(-np.inf, np.inf, (3,), np.float32),
    spaces.Discrete(300, start=7, dtype=np.int16),
    spaces.Discrete(3, dtype=">i4"),
    spaces.MultiDiscrete([[3, 2], [4, 5]], np.int32),
    spaces.MultiDiscrete([3, 2], ">u2", start=[1, 2]),
    spaces.Box(-1, 1, (2,), ">f4"),
    spaces.Box(-1, 1, (), np.float16),
    spaces.Box(-1, 1, (2,), np.longdouble),
    spaces.Box(0, 9, (2,), np.int64),
    spaces.Box(np.array([[-2, 0]], np.int8), np.array([[1, 7]], np.int8), dtype=np.int8),
    spaces.Tuple((spaces.Discrete(2), BOX)),
    spaces.Dict({2: spaces.Discrete(3), 1: spaces.Discrete(2)}),
    spaces.Dict(
        move=BOX,
        buttons=spaces.MultiBinary(3),
        deep=spaces.Dict(tool=spaces.Discrete(5, start=1), pair=spaces.MultiDiscrete([2, 2])),
    ),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_policy_s_actions_are_members_of_the_space(space):
    spec = action_spec(space)
    rng = np.random.default_rng(0)
    kind = action_type(spec)
    outputs = torch.zeros(50, kind.num_outputs + kind.num_free)
    sampled = kind.distribution(outputs).sample(torch.Generator().manual_seed(0)).numpy()
    for actions in (sampled, random_actions(spec, 50, rng)):
        check_actions(spec, actions)
        assert actions.dtype.str == spec.leaf.dtype
        taken = [to_space(spec, row) for row in actions]
        assert all(action in space for action in taken)
        assert len({str(action) for action in taken}) > 1


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_spec_goes_through_json(space):
    spec = action_spec(space)
    plain = json.loads(json.dumps(plain_actions(spec), allow_nan=False))
    assert read_actions(plain) == spec


def test_discrete_actions_of_older_checkpoints_have_gymnasium_s_dtype():
    assert read_actions({"kind": "Discrete", "n": 3, "start": 1}) == Discrete(3, 1, "int64")


def test_a_gaussian_s_actions_are_clipped_and_a_squashed_one_s_span_the_bounds():
    rows = np.array([[-9.0, 9.0], [0.0, 2.5], [9.0, -9.0]], np.float32)
    clipped = [to_space(action_spec(BOX), row).tolist() for row in rows]
    assert clipped == [[-2.0, 5.0], [0.0, 2.5], [2.0, 0.0]]
    squashed = action_spec(BOX, is_squashed=True)
    middle = to_space(squashed, np.zeros(2, np.float32))
    assert middle.tolist() == [0.0, 2.5]
    ends = to_space(squashed, np.array([-20.0, 20.0], np.float32))
    assert ends.tolist() == [-2.0, 5.0]


@pytest.mark.parametrize(
    ("space", "word"),
    [
        (spaces.Text(3), "Text"),
        (spaces.Sequence(spaces.Discrete(2)), "Sequence"),
        (spaces.Box(0, 1024, (2,), np.int64), "Box"),
        (spaces.Box(-(2**63), 2**63 - 1, (2,), np.int64), "Box"),
        (spaces.Tuple(()), "Tuple"),
        (spaces.Box(-1, 1, (0,)), "Box"),
    ],
)
def test_spaces_that_no_policy_acts_in_are_refused_with_a_remedy(space, word):
    with pytest.raises(StartError, match=f"{word}.*TransformAction"):
        action_spec(space)


def test_tanh_needs_bounds():
    with pytest.raises(StartError, match="--action-bounds tanh needs bounds"):
        action_spec(spaces.Box(-np.inf, 1, (2,)), is_squashed=True)


@pytest.mark.parametrize(
    ("space", "wrong"),
    [
        (spaces.Discrete(3), np.array([0, 3])),
        (spaces.Discrete(3), np.array([-1, 0])),
        (spaces.MultiBinary(2), np.array([[0, 2]])),
        (BOX, np.array([[0.0, np.nan]], np.float32)),
        (BOX, np.zeros((1, 3), np.float32)),
        (spaces.MultiDiscrete([2, 3]), np.array([[1, 3]])),
    ],
)
def test_actions_that_are_none_are_refused(space, wrong):
    with pytest.raises(ValueError, match="actions must be"):
        check_actions(action_spec(space), wrong)


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"kind": "Continuous", "shape": [2], "low": [0], "high": [1, 1], "dtype": "float32",
         "is_squashed": False},
        {"kind": "Continuous", "shape": [1], "low": [0], "high": [1], "dtype": "object",
         "is_squashed": False},
        {"kind": "Joint", "parts": [], "shape": [], "names": []},
        {"kind": "Discrete", "n": True, "start": 0},
        {"kind": "Discrete", "n": 2, "start": 0, "dtype": "float32"},
    ],
    ids=str,
)  # fmt: skip
def test_a_spec_that_is_none_is_refused(plain):
    with pytest.raises((ValueError, KeyError, TypeError)):
        read_actions(plain)


def test_continuous_actions_have_as_many_numbers_as_their_shape():
    assert Continuous((2, 3), (0.0,) * 6, (1.0,) * 6).n == 6
