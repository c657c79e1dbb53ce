"""Checkpoints as tensors: what the updater saves and resumes from.

Without pickle: safetensors and JSON, in files that `checkpoints.files` writes and verifies.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load
from safetensors.torch import save as to_bytes
from torch import Tensor

from aa2c.checkpoints.files import (
    CheckpointError,
    CheckpointFiles,
    read_checkpoint,
    worker_file,
    write_checkpoint,
)
from aa2c.config.config import Config
from aa2c.envs.spec import EnvSpec
from aa2c.envs.written import plain_spec, read_spec
from aa2c.policy.policy import Policy

_MODEL, _OPTIMIZER = "model.safetensors", "optimizer.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """What was read back; `counts` are env_steps, updates, policy_version, records and episodes.

    `score` is the mean return of the last 100 training episodes, None before there were so many.
    """

    path: Path
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    config: Config
    spec: EnvSpec
    counts: dict[str, int]
    score: float | None


def save(
    directory: Path,
    *,
    network: Policy,
    optimizer: Mapping[str, Tensor],
    config: Config,
    spec: EnvSpec,
    counts: Mapping[str, int],
    rng: Tensor,
    score: float | None,
    keep: int,
    worker_states: Mapping[int, bytes],
) -> Path:
    """Write a checkpoint under `directory`; remove all but the `keep` newest and the best."""
    state = {
        "config": dataclasses.asdict(config),
        "spec": plain_spec(spec),
        "counts": dict(counts),
        "score": score,
    }
    model = {name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()}
    files = {_MODEL: to_bytes(model), _OPTIMIZER: to_bytes({**optimizer, "rng": rng})}
    files |= {worker_file(worker): data for worker, data in worker_states.items()}
    return write_checkpoint(directory, state, files, keep)


def load_checkpoint(path: Path, *, best: bool = False) -> Checkpoint:
    """Read a checkpoint, or the newest or best good one of a run. Raises `CheckpointError`."""
    return read_checkpoint(path, _parse, best=best)


def _parse(files: CheckpointFiles) -> Checkpoint:
    return Checkpoint(
        path=files.path,
        model=_tensors(files.data[_MODEL]),
        optimizer=_tensors(files.data[_OPTIMIZER]),
        config=files.config,
        spec=read_spec(files.state["spec"]),
        counts=files.counts,
        score=_finite(files.state["score"]),
    )


def _finite(score: Any) -> float | None:
    """A mean of returns, of which one was NaN or infinite, is none."""
    return float(score) if score is not None and math.isfinite(score) else None


def _tensors(data: bytes) -> dict[str, Tensor]:
    try:
        return load(data)
    except Exception as error:  # safetensors raises its own kinds
        raise ValueError(f"not safetensors: {error}") from None


def load_network(checkpoint: Checkpoint, network: Policy) -> None:
    """Put a checkpoint's parameters into a network. Raises `CheckpointError`."""
    try:
        network.load_state_dict(checkpoint.model)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{checkpoint.path} does not fit its network: {reason}") from None
