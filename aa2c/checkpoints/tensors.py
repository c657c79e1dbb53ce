"""Checkpoints as tensors: what the updater saves and resumes from.

Without pickle: safetensors and JSON, in files that `checkpoint_files` writes and verifies.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
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
from aa2c.envs.observations import layout_of, plain_obs, read_obs
from aa2c.envs.spec import ActionSpec, EnvSpec, plain_actions, read_actions
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


def plain_spec(spec: EnvSpec) -> dict[str, Any]:
    """For JSON and msgpack."""
    obs = spec.obs and plain_obs(spec.obs)
    return vars(spec) | {"actions": plain_actions(spec.actions), "obs": obs}


def read_spec(plain: dict[str, Any]) -> EnvSpec:
    """What `plain_spec` gave. Raises `ValueError`, `KeyError` or `TypeError` for anything else."""
    return _spec(**plain)


def _spec(
    obs_shape: Any,
    obs_dtype: Any,
    actions: Any,
    is_stacked: Any,
    obs_scale: Any,
    obs: Any,
    has_mask: Any,
    resets_at_once: Any = False,
) -> EnvSpec:
    """Raises `ValueError`, `KeyError` or `TypeError` for what is none."""
    if not all(type(size) is int and size > 0 for size in obs_shape):
        raise ValueError(f"its observations are none: {obs_shape}")
    if not 0 <= float(obs_scale) < math.inf:
        raise ValueError(f"its observations have no scale: {obs_scale}")
    dtype = str(np.dtype(obs_dtype))
    rows = None if obs is None else read_obs(obs)
    if rows is not None and (layout_of(rows).shape, layout_of(rows).dtype) != (
        tuple(obs_shape),
        dtype,
    ):
        raise ValueError(f"its observations are no rows of {obs_shape}")
    return EnvSpec(
        tuple(obs_shape),
        dtype,
        read_actions(actions),
        bool(is_stacked),
        float(obs_scale),
        rows,
        _is_maskable(read_actions(actions), bool(has_mask)),
        bool(resets_at_once),
    )


def _is_maskable(actions: ActionSpec, has_mask: bool) -> bool:
    if has_mask and not actions.num_mask:
        raise ValueError("its actions take no mask")
    return has_mask


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
