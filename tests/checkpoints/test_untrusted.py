"""A checkpoint from anywhere: nothing in it is executed, imported or followed."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from aa2c import ConfigError
from aa2c.checkpoints.tensors import CheckpointError, load_checkpoint, save
from aa2c.checkpoints.trained import load_policy
from aa2c.cli import main as cli
from aa2c.config.toml import to_toml
from aa2c.policy.network import make_policy
from tests.checkpoints.written import CONFIG, FILES, GOOD_COUNTS, SPEC, replace, write


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
    own = "tests.checkpoints.test_untrusted:own_trunk"
    config = dataclasses.replace(CONFIG, network=own)
    network = make_policy(config, SPEC)
    save(
        tmp_path, network=network, optimizer={}, config=config, spec=SPEC, counts=GOOD_COUNTS,
        rng=torch.get_rng_state(), score=None, keep=1, worker_states={},
    )  # fmt: skip
    policy = load_policy(tmp_path, network=own)
    assert torch.equal(policy.network.policy.weight, network.policy.weight)


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
