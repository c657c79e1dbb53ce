"""A damaged checkpoint is passed over, and what was wrong with it is said."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from aa2c.checkpoints.tensors import CheckpointError, load_checkpoint
from aa2c.checkpoints.trained import load_policy
from aa2c.config.config import Config
from aa2c.errors import Aa2cError
from tests.checkpoints.written import FILES, GOOD_COUNTS, replace, write


@pytest.mark.parametrize("name", [*FILES, "MANIFEST.json"])
@pytest.mark.parametrize("damage", ["truncated", "emptied", "garbled", "removed", "longer"])
def test_a_damaged_newest_checkpoint_makes_the_one_before_count(tmp_path, two, name, damage):
    older, newer = two
    file = newer / name
    data = file.read_bytes()
    middle = len(data) // 2
    garbled = data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]
    others = {
        "truncated": data[:middle], "emptied": b"", "garbled": garbled, "longer": data + b"\0"
    }  # fmt: skip
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(others[damage])
    loaded = load_checkpoint(tmp_path)
    assert loaded.path == older
    assert torch.equal(loaded.optimizer["exp_avg"], torch.full((128,), 1.0))


@pytest.mark.parametrize(
    "manifest",
    [b"[]", b"null", b"7", b'"x"', b"{}", b'{"state.json": 3}', b"\xff\xfe", b"[" * 100_000],
    ids=lambda data: repr(data[:12]),
)
def test_a_manifest_that_is_none_makes_the_one_before_count(tmp_path, two, manifest):
    (two[1] / "MANIFEST.json").write_bytes(manifest)
    assert load_checkpoint(tmp_path).path == two[0]


GOOD_SPEC = {
    "obs_shape": [4],
    "obs_dtype": "float32",
    "actions": {"kind": "Discrete", "n": 3, "start": 0},
    "is_stacked": False,
    "obs_scale": 1.0,
    "obs": None,
    "has_mask": False,
    "resets_at_once": False,
}

WRONG_SPECS = (
    {"actions": {"kind": "MultiBinary", "shape": [3]}, "has_mask": True},
    {"obs_shape": ["sh", "-c", "touch pwned"]},
    {"obs_shape": [-4]},
    {"obs_shape": [True]},
    {"actions": "3"},
    {"actions": {"kind": "Discrete", "n": 0, "start": 0}},
    {"actions": {"kind": "Sequence", "n": 3}},
    {"actions": []},
    {"obs_dtype": "no such"},
    {"more": 1},
)


def test_the_changes_below_are_of_a_state_that_would_be_good(two, tmp_path):
    state = json.loads((two[1] / "state.json").read_text())
    good = state | {"spec": GOOD_SPEC, "counts": GOOD_COUNTS}
    replace(two[1], "state.json", json.dumps(good).encode())
    assert load_checkpoint(tmp_path).path == two[1]


@pytest.mark.parametrize(
    "change",
    [
        {"format": 1},
        {"format": None},
        {"config": {"no_such_option": 1}},
        {"config": {"num_envs": -1}},
        {"config": {"num_envs": "three"}},
        {"config": []},
        {"config": None},
        {"spec": None},
        {"spec": {}},
        {
            "spec": {
                "obs_shape": 3,
                "obs_dtype": "float32",
                "actions": {"kind": "Discrete", "n": 2, "start": 0},
            }
        },
        *({"spec": GOOD_SPEC | wrong} for wrong in WRONG_SPECS),
        *({"counts": GOOD_COUNTS | {"env_steps": wrong}} for wrong in (-1, "3", None, 2**60, 1.5)),
        {"counts": {"env_steps": 2000}},
    ],
    ids=str,
)
def test_a_state_of_another_making_makes_the_one_before_count(tmp_path, two, change):
    state = json.loads((two[1] / "state.json").read_text())
    replace(two[1], "state.json", json.dumps(state | change).encode())
    assert load_checkpoint(tmp_path).path == two[0]


@pytest.mark.parametrize("state", [b"[]", b"null", b"{}", b"x", b"[" * 100_000])
def test_a_state_that_is_no_object_makes_the_one_before_count(tmp_path, two, state):
    replace(two[1], "state.json", state)
    assert load_checkpoint(tmp_path).path == two[0]


def test_without_any_good_checkpoint_the_error_says_what_was_wrong_with_each(tmp_path, two):
    for checkpoint in two:
        (checkpoint / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path)
    for word in (str(tmp_path), two[0].name, two[1].name, "model.safetensors"):
        assert word in str(caught.value)
    assert issubclass(CheckpointError, Aa2cError)


@pytest.mark.parametrize("name", ["", "nowhere", "a-file"])
def test_where_no_checkpoint_is_the_error_says_so(tmp_path, name):
    (tmp_path / "a-file").write_text("x")
    with pytest.raises(CheckpointError, match="holds no checkpoint that verifies"):
        load_policy(tmp_path / name)


def test_a_model_that_does_not_fit_its_own_configuration_is_a_checkpoint_error(tmp_path):
    checkpoint = write(tmp_path, 1)
    state = json.loads((checkpoint / "state.json").read_text())
    state["config"] = dataclasses.asdict(Config(hidden_sizes=(16,)))
    replace(checkpoint, "state.json", json.dumps(state).encode())
    with pytest.raises(CheckpointError):
        load_policy(tmp_path)
