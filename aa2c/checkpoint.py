"""Checkpoints: atomic, verified, and without pickle.

A checkpoint is a directory, written under another name, synced, and renamed when it is whole:

    step-000000123456/ model.safetensors  optimizer.safetensors  state.json  MANIFEST.json

It counts only if every file has the size and SHA-256 that the manifest says; otherwise the one
before it is taken.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from safetensors.torch import save as to_bytes
from torch import Tensor

from aa2c.config import Config
from aa2c.config_file import structure
from aa2c.errors import Aa2cError
from aa2c.rl.envs import EnvSpec
from aa2c.rl.network import ActorCritic, make_network

FORMAT = 1
_MANIFEST = "MANIFEST.json"
_FILES = ("model.safetensors", "optimizer.safetensors", "state.json")


class CheckpointError(Aa2cError):
    """There is no checkpoint that verifies."""


@dataclass(frozen=True)
class Checkpoint:
    """What was read back; `counts` are env_steps, updates, policy_version and records."""

    path: Path
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    config: Config
    spec: EnvSpec
    counts: dict[str, int]


def save(
    directory: Path,
    *,
    network: ActorCritic,
    optimizer: Mapping[str, Tensor],
    config: Config,
    spec: EnvSpec,
    counts: Mapping[str, int],
    rng: Tensor,
    keep: int,
) -> Path:
    """Write a checkpoint under `directory` and remove all but the `keep` newest."""
    state = {
        "format": FORMAT,
        "config": dataclasses.asdict(config),
        "spec": dataclasses.asdict(spec),
        "counts": dict(counts),
    }
    model = {name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()}
    files = {
        "model.safetensors": to_bytes(model),
        "optimizer.safetensors": to_bytes({**optimizer, "rng": rng}),
        "state.json": json.dumps(state, indent=1).encode(),
    }
    final = directory / f"step-{counts['env_steps']:012d}"
    partial = directory / f".partial-{final.name}"
    for leftover in directory.glob(".partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, data in files.items():
        _write(partial / name, data)
    manifest = {name: {"bytes": len(d), "sha256": _sha256(d)} for name, d in files.items()}
    _write(partial / _MANIFEST, json.dumps(manifest, indent=1).encode())
    _sync_directory(partial)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    _sync_directory(directory)
    for old in _newest_first(directory)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _newest_first(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*"), reverse=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, or the newest good one of a run. Raises `CheckpointError`."""
    candidates = [path]
    for directory in (path / "checkpoints", path):
        candidates += _newest_first(directory)
    reasons = []
    for candidate in candidates:
        if (candidate / _MANIFEST).is_file():
            try:
                return _load(candidate)
            except Exception as error:  # whatever a damaged file leads to, the next may be good
                reasons.append(f"{candidate.name}: {error}")
    detail = f" ({'; '.join(reasons)})" if reasons else ""
    raise CheckpointError(f"{path} holds no checkpoint that verifies{detail}.")


def _load(path: Path) -> Checkpoint:
    manifest = json.loads((path / _MANIFEST).read_bytes())
    files = {}
    for name in _FILES:
        data = (path / name).read_bytes()
        if manifest[name] != {"bytes": len(data), "sha256": _sha256(data)}:
            raise ValueError(f"{name} does not match the manifest")
        files[name] = data
    state = json.loads(files["state.json"])
    if state["format"] != FORMAT:
        raise ValueError(f"format {state['format']} is not {FORMAT}")
    spec = state["spec"]
    return Checkpoint(
        path=path,
        model=_tensors(files["model.safetensors"]),
        optimizer=_tensors(files["optimizer.safetensors"]),
        config=Config(**structure(state["config"], str(path))),
        spec=EnvSpec(**{**spec, "obs_shape": tuple(spec["obs_shape"])}),
        counts=state["counts"],
    )


def _tensors(data: bytes) -> dict[str, Tensor]:
    try:
        return load(data)
    except Exception as error:  # safetensors raises its own kinds
        raise ValueError(f"not safetensors: {error}") from None


class Policy:
    """A trained policy: call it with observations [N, …], get actions [N]."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._network = make_network(checkpoint.config, checkpoint.spec)
        try:
            self._network.load_state_dict(checkpoint.model)
        except RuntimeError as error:
            raise CheckpointError(f"{checkpoint.path} does not fit its network: {error}") from None

    def __call__(self, obs: NDArray[Any]) -> NDArray[np.int64]:
        """The most probable action of each observation."""
        with torch.inference_mode():
            logits, _ = self._network(torch.from_numpy(np.array(obs)))
            actions: NDArray[np.int64] = logits.argmax(-1).numpy()
            return actions


def load_policy(path: str | Path) -> Policy:
    """The policy of a run or of one of its checkpoints. Raises `CheckpointError`."""
    return Policy(load_checkpoint(Path(path)))
