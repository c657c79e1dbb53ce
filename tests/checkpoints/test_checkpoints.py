from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import aa2c
from aa2c import ConfigError, failpoint
from aa2c.checkpoints.files import last_sequence
from aa2c.checkpoints.resume import newest_after
from aa2c.checkpoints.tensors import CheckpointError, load_checkpoint, save
from aa2c.checkpoints.trained import load_policy
from aa2c.cli import main as cli
from aa2c.config.config import Config
from aa2c.config.toml import to_toml
from aa2c.envs.spec import Discrete, EnvSpec
from aa2c.errors import Aa2cError
from aa2c.policy.flat import FlatParameters
from aa2c.policy.network import make_policy

SPEC = EnvSpec((4,), "float32", Discrete(3))
CONFIG = Config(ent_coef=(0.1, 0.2), workers=2, hidden_sizes=(8, 5), name='q"uo\nte ü')
ROOT = Path(__file__).parents[2]
FILES = ("model.safetensors", "optimizer.safetensors", "state.json")


def network_of(seed):
    torch.manual_seed(seed)
    network = make_policy(CONFIG, SPEC)
    FlatParameters(network)
    network.policy[-1].weight.data.mul_(100)
    return network


def write(directory, env_steps, seed=0, keep=10, score=None):
    return save(
        directory,
        network=network_of(seed),
        optimizer={"exp_avg": torch.full((128,), float(seed)), "step": torch.tensor(3.0)},
        config=CONFIG,
        spec=SPEC,
        counts={
            "env_steps": env_steps,
            "updates": 2,
            "policy_version": 3,
            "records": 4,
            "episodes": 5,
        },
        rng=torch.get_rng_state(),
        score=score,
        keep=keep,
        worker_states={},
    )


@pytest.fixture
def two(tmp_path):
    """A directory with an older (seed 1) and a newer (seed 2) checkpoint."""
    return write(tmp_path, 100, seed=1), write(tmp_path, 2000, seed=2)


def replace(checkpoint, name, data):
    """Put other bytes in a checkpoint, with a manifest that agrees."""
    (checkpoint / name).write_bytes(data)
    path = checkpoint / "MANIFEST.json"
    manifest = json.loads(path.read_text())
    manifest[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    path.write_text(json.dumps(manifest))


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
}
GOOD_COUNTS = dict.fromkeys(("env_steps", "updates", "policy_version", "records", "episodes"), 2000)
WRONG_SPECS = (
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
        {"config": {"num_envs": 0}},
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


KILLED_SAVE = """
import sys
from pathlib import Path
from aa2c import failpoint
from tests.checkpoints.test_checkpoints import write

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


class Touch:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", FILES)
def test_pickles_are_refused_and_not_run(tmp_path, two, name):
    marker = tmp_path / "pwned"
    for data in (pickle.dumps(Touch(marker)), torch_bytes(tmp_path, {"x": Touch(marker)})):
        replace(two[1], name, data)
        assert load_checkpoint(tmp_path).path == two[0]
        with pytest.raises(CheckpointError):
            load_checkpoint(two[1])
        assert not marker.exists()


def torch_bytes(tmp_path, value):
    path = tmp_path / "saved.pt"
    torch.save(value, path)
    return path.read_bytes()


def test_a_leftover_of_an_interrupted_save_is_ignored_and_in_nobodys_way(tmp_path, two):
    partial = tmp_path / ".partial-step-000000009999"
    two[1].rename(partial)
    assert load_checkpoint(tmp_path).path == two[0]
    assert write(tmp_path, 9999, seed=3) == tmp_path / "step-000000009999"
    assert load_checkpoint(tmp_path).optimizer["exp_avg"][0] == 3
    assert not partial.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "state.json"])
@pytest.mark.parametrize("what", ["fifo", "/dev/zero"])
def test_what_is_no_file_is_not_waited_for_nor_read_without_end(tmp_path, two, name, what):
    (two[1] / name).unlink()
    if what == "fifo":
        os.mkfifo(two[1] / name)
    else:
        (two[1] / name).symlink_to(what)
    assert load_checkpoint(tmp_path).path == two[0]


@pytest.mark.parametrize(
    ("option", "value"), [("network", "subprocess:check_call"), ("env", "pwned_module:Env-v0")]
)
def test_a_checkpoint_does_not_decide_what_is_imported(tmp_path, option, value, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pwned_module.py").write_text("raise SystemExit('imported')")
    checkpoint = write(tmp_path / "checkpoints", 1)
    state = json.loads((checkpoint / "state.json").read_text())
    state["config"][option] = value
    replace(checkpoint, "state.json", json.dumps(state).encode())
    config = dataclasses.replace(CONFIG, **{option: value})
    (tmp_path / "config.toml").write_text(to_toml(config))
    with pytest.raises(ConfigError, match=f"if you trust it, repeat --{option} {value}"):
        load_policy(tmp_path)
    with pytest.raises(ConfigError, match=f"repeat --{option} {value}"):
        load_policy(tmp_path, **{option: "another:name"})
    for command in ("eval", "serve"):
        named = [str(tmp_path)] if command == "eval" else ["--resume", str(tmp_path)]
        assert cli.main([command, *named]) == 2


def own_trunk(shape):
    return torch.nn.Linear(*shape, 6)


def test_a_network_of_ones_own_is_loaded_once_its_name_is_repeated(tmp_path):
    own = "tests.checkpoints.test_checkpoints:own_trunk"
    config = dataclasses.replace(CONFIG, network=own)
    network = make_policy(config, SPEC)
    save(
        tmp_path, network=network, optimizer={}, config=config, spec=SPEC, counts=GOOD_COUNTS,
        rng=torch.get_rng_state(), score=None, keep=1, worker_states={},
    )  # fmt: skip
    policy = load_policy(tmp_path, network=own)
    assert torch.equal(policy.network.policy.weight, network.policy.weight)


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


def test_paths_in_a_manifest_lead_nowhere(tmp_path):
    checkpoint = write(tmp_path / "checkpoints", 1)
    secret = tmp_path / "secret"
    secret.write_text("kept")
    path = checkpoint / "MANIFEST.json"
    manifest = json.loads(path.read_text())
    entry = manifest["model.safetensors"]
    tricks = {"../../secret": entry, "/etc/passwd": entry, "": entry, "..": {"bytes": -1}}
    path.write_text(json.dumps(manifest | tricks))
    for name, entry in tricks.items():
        path.write_text(json.dumps(manifest | {name: entry}))
        with pytest.raises(CheckpointError):
            load_checkpoint(tmp_path)
    path.write_text(json.dumps(manifest))
    assert load_checkpoint(tmp_path).path == checkpoint
    assert secret.read_text() == "kept"
    assert sorted(p.name for p in checkpoint.iterdir()) == sorted([*FILES, "MANIFEST.json"])


def test_a_model_that_does_not_fit_its_own_configuration_is_a_checkpoint_error(tmp_path):
    checkpoint = write(tmp_path, 1)
    state = json.loads((checkpoint / "state.json").read_text())
    state["config"] = dataclasses.asdict(Config(hidden_sizes=(16,)))
    replace(checkpoint, "state.json", json.dumps(state).encode())
    with pytest.raises(CheckpointError):
        load_policy(tmp_path)
