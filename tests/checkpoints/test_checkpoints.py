"""Saving and loading; which checkpoints are kept, and which counts."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import aa2c
from aa2c import failpoint
from aa2c.checkpoints import files
from aa2c.checkpoints.files import CheckpointError, last_sequence
from aa2c.checkpoints.resume import newest_after
from aa2c.checkpoints.tensors import load_checkpoint
from aa2c.checkpoints.trained import load_policy
from tests.checkpoints.written import CONFIG, SPEC, network_of, replace, write

ROOT = Path(__file__).parents[2]


def test_what_is_saved_is_what_is_loaded(tmp_path):
    path = write(tmp_path, 123456, seed=4)
    assert path == tmp_path / "step-000000123456"
    loaded = load_checkpoint(tmp_path)
    assert (loaded.path, loaded.config, loaded.spec) == (path, CONFIG, SPEC)
    assert loaded.counts == {
        "env_steps": 123456,
        "updates": 2,
        "policy_version": 3,
        "records": 4,
        "episodes": 5,
    }
    expected = network_of(4).state_dict()
    assert loaded.model.keys() == expected.keys()
    assert all(torch.equal(loaded.model[name], expected[name]) for name in expected)
    assert torch.equal(loaded.optimizer["exp_avg"], torch.full((128,), 4.0))
    assert loaded.optimizer["step"].item() == 3
    assert loaded.optimizer["rng"].dtype == torch.uint8


def test_a_run_its_checkpoints_directory_and_a_checkpoint_may_all_be_named(tmp_path):
    older = write(tmp_path / "checkpoints", 5, seed=1)
    newer = write(tmp_path / "checkpoints", 60, seed=2)
    assert load_checkpoint(tmp_path).path == newer
    assert load_checkpoint(tmp_path / "checkpoints").path == newer
    assert load_checkpoint(older).path == older
    assert load_policy(str(tmp_path)).checkpoint.path == newer


def test_a_loaded_policy_takes_the_most_probable_action_and_only_that(tmp_path):
    write(tmp_path, 1, seed=3)
    policy = aa2c.load_policy(tmp_path)
    obs = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    with torch.no_grad():
        expected = network_of(3)(torch.from_numpy(obs))[0].argmax(1).numpy()
    actions = policy(obs)
    assert actions.dtype == np.int64
    assert len(set(actions)) > 1
    for _ in range(2):
        np.testing.assert_array_equal(policy(obs), expected)
    np.testing.assert_array_equal(policy(obs[:1]), expected[:1])


def test_the_newest_and_the_best_are_kept(tmp_path):
    scores = [None, 5.0, 9.5, 9.5, float("nan"), 3.0, None]
    for i, score in enumerate(scores, 1):
        write(tmp_path, i, seed=i, keep=2, score=score)
    kept = sorted(path.name[-1] for path in tmp_path.iterdir())
    assert kept == ["4", "6", "7"]
    assert load_checkpoint(tmp_path).path.name[-1] == "7"
    best = load_checkpoint(tmp_path, best=True)
    assert (best.path.name[-1], best.score) == ("4", 9.5)
    assert load_policy(tmp_path, best=True).checkpoint.path == best.path
    (best.path / "state.json").write_text("{}")
    assert load_checkpoint(tmp_path, best=True).path.name[-1] == "6"


@pytest.mark.parametrize(("keep", "left"), [(1, [5]), (2, [4, 5]), (9, [1, 2, 3, 4, 5])])
def test_the_newest_checkpoints_are_kept(tmp_path, keep, left):
    for env_steps in range(1, 6):
        write(tmp_path, env_steps, keep=keep)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"step-{i:012d}" for i in left]


def test_a_checkpoint_of_the_same_step_never_takes_the_place_of_the_one_before(tmp_path):
    before, after = write(tmp_path, 7, seed=1), write(tmp_path, 7, seed=2)
    assert before != after
    assert load_checkpoint(tmp_path).path == after
    assert load_checkpoint(before).optimizer["exp_avg"][0] == 1
    write(tmp_path, 7, seed=3, keep=1)
    assert not before.exists()
    assert load_checkpoint(tmp_path).optimizer["exp_avg"][0] == 3


def test_what_is_added_to_a_state_is_there_and_the_checkpoint_verifies_at_any_instant(
    tmp_path, monkeypatch
):
    path, whole = write(tmp_path, 7, score=2.5), files._replace

    def fails_at_the_state(path, data):
        if path.name == "state.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, data)

    monkeypatch.setattr(files, "_replace", fails_at_the_state)
    with pytest.raises(OSError, match="No space"):
        files.add_to_state(path, {"test_returns": {"greedy": [1.0]}})
    assert load_checkpoint(path).score == 2.5
    monkeypatch.undo()
    for returns in ([1.0, 2.0], [3.0, float("nan")]):
        files.add_to_state(path, {"test_returns": {"greedy": returns}})
        assert load_checkpoint(path).score == 2.5
    state = json.loads((path / "state.json").read_text())
    assert state["test_returns"] == {"greedy": [3.0, None]}
    (path / "state.json").write_text(json.dumps(state | {"score": 99.0}))
    with pytest.raises(CheckpointError, match=r"state\.json"):
        load_checkpoint(path)


KILLED_SAVE = """
import sys
from pathlib import Path
from aa2c import failpoint
from tests.checkpoints.written import write

failpoint.arm("saver", 0)
write(Path(sys.argv[1]), 200, seed=2, keep=1)
"""


@pytest.mark.parametrize("place", [p for p in failpoint.PLACES if p.startswith("checkpoint.")])
def test_a_kill_while_one_is_written_leaves_a_whole_one(tmp_path, place):
    write(tmp_path, 100, seed=1)
    environment = os.environ | {failpoint.VARIABLE: f"saver:{place}=kill", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED_SAVE, tmp_path]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    is_there = place == "checkpoint.after_rename"
    assert load_checkpoint(tmp_path).counts["env_steps"] == (200 if is_there else 100)
    write(tmp_path, 300, seed=3, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000300"]


def test_a_leftover_of_an_interrupted_save_is_ignored_and_in_nobodys_way(tmp_path, two):
    partial = tmp_path / ".partial-step-000000009999"
    two[1].rename(partial)
    assert load_checkpoint(tmp_path).path == two[0]
    assert write(tmp_path, 9999, seed=3) == tmp_path / "step-000000009999"
    assert load_checkpoint(tmp_path).optimizer["exp_avg"][0] == 3
    assert not partial.exists()


def test_a_save_that_finds_no_room_leaves_nothing_in_its_way(tmp_path, two, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("aa2c.checkpoints.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, 9000)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(p.name for p in two)


def test_a_clock_that_was_set_back_changes_nothing(tmp_path, monkeypatch):
    before = write(tmp_path / "checkpoints", 1)
    monkeypatch.setattr("aa2c.checkpoints.files.time.time", lambda: 5.0)
    os.utime(before, (2**33, 2**33))
    for env_steps in range(2, 6):
        newest = write(tmp_path / "checkpoints", env_steps, keep=2)
        assert newest_after(tmp_path, CONFIG, 1, before) == newest
    kept = sorted(path.name[-1] for path in newest.parent.iterdir())
    assert kept == ["4", "5"]
    assert load_checkpoint(tmp_path).path == newest


def test_the_newest_is_the_last_that_was_written_though_an_abandoned_one_has_more_env_steps(
    tmp_path,
):
    resumed_from, abandoned = (write(tmp_path / "checkpoints", n) for n in (100, 900))
    assert (
        newest_after(tmp_path, CONFIG, last_sequence(abandoned.parent), resumed_from)
        == resumed_from
    )
    newest = write(tmp_path / "checkpoints", 200, keep=1)
    assert load_checkpoint(tmp_path).path == newest
    assert newest_after(tmp_path, CONFIG, 2, resumed_from) == newest
    assert not abandoned.exists()


def test_checkpoints_from_before_there_were_sequence_numbers_go_by_env_steps(tmp_path):
    older, newer = (write(tmp_path, n) for n in (900, 1000))
    for saved_at, path in enumerate((newer, older)):
        state = json.loads((path / "state.json").read_text())
        del state["sequence"]
        replace(path, "state.json", json.dumps(state | {"saved_at": saved_at}).encode())
    assert load_checkpoint(tmp_path).path == newer
    assert load_checkpoint(write(tmp_path, 5).parent).counts["env_steps"] == 5


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_null_on_disk_and_none_when_it_is_read(tmp_path, score):
    path = write(tmp_path, 1, score=score)
    state = json.loads((path / "state.json").read_text(), parse_constant=pytest.fail)
    assert state["score"] is None
    assert load_checkpoint(path).score is None
    replace(path, "state.json", json.dumps(state | {"score": score}).encode())
    assert load_checkpoint(path).score is None
