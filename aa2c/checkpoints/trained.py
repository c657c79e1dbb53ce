"""Trained policies in a user's program: read from a checkpoint, asked for actions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aa2c.checkpoints.tensors import Checkpoint, load_checkpoint, load_network
from aa2c.config.config import require_consent
from aa2c.envs.actions import to_space
from aa2c.envs.observations import ObsSpec, Several, to_row
from aa2c.envs.single import Env, make_single
from aa2c.policy.memory import State
from aa2c.policy.network import make_policy


class TrainedPolicy:
    """A trained policy: `predict` gives actions of the environment's space for its observations.

    Both are single, as an environment has them, or batched, as Gymnasium's vector environments have
    them: arrays [N, …], or a mapping or tuple of these. A list is a batch, too.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.network = make_policy(checkpoint.config, checkpoint.spec)
        load_network(checkpoint, self.network)

    def predict(
        self,
        obs: Any,
        state: State | None = None,
        deterministic: bool = False,
        action_mask: Any = None,
        episode_start: Any = None,
    ) -> tuple[Any, State]:
        """Actions for raw observations, and the state to give with those that follow.

        Actions are sampled with torch's default generator, or, if `deterministic`, the most probable
        ones; a batch of them is an array [N, …], or a list where the space is a Tuple or a Dict.
        `state` is None at first, and only a policy with memory has one. `episode_start` [N] is true
        where the memory is to be forgotten, and `action_mask` [N, A] is false or 0 where an action is
        illegal. Raises `ValueError` for what does not fit the spaces.
        """
        rows, is_single = self.rows(obs)
        begins = np.zeros(len(rows), np.bool_)
        if episode_start is not None:
            begins |= np.asarray(episode_start, np.bool_)
        with torch.inference_mode():
            before = self.network.initial_state(len(rows)) if state is None else state
            mask = self._mask(action_mask, len(rows))
            distribution, _, after = self.network.evaluate(
                torch.from_numpy(rows), before, torch.from_numpy(begins).unsqueeze(0), mask
            )
            chosen = (
                distribution.mode()
                if deterministic
                else distribution.sample(torch.default_generator)
            ).numpy()
        actions = [to_space(self.checkpoint.spec.actions, row) for row in chosen]
        if is_single:
            return actions[0], after
        is_array = isinstance(actions[0], np.ndarray | np.generic)
        return (np.stack(actions) if is_array else actions), after

    def rows(self, obs: Any) -> tuple[NDArray[Any], bool]:
        """Observations as the network takes them, [N, …], and whether it was a single one.

        Raises `ValueError` for what does not fit the space.
        """
        spec = self.checkpoint.spec
        if spec.obs is None:
            rows = np.array(obs, spec.obs_dtype)
            is_single = rows.shape == spec.obs_shape
            rows = rows[None] if is_single else rows
        else:
            is_single = not is_batch(spec.obs, obs)
            each = [obs] if is_single else unbatched(spec.obs, obs)
            rows = np.stack([to_row(spec.obs, one) for one in each])
        if rows.shape[1:] != spec.obs_shape or not len(rows):
            raise ValueError(f"observations are of shape {spec.obs_shape}, got {rows.shape}")
        return rows, is_single

    def _mask(self, given: Any, rows: int) -> Tensor | None:
        """Raises `ValueError` for a mask that does not fit the actions, or leaves none."""
        if given is None:
            return None
        mask, width = np.asarray(given), self.network.actions.num_mask
        if not width or mask.size != rows * width:
            wanted = f"{width} columns" if width else "no columns: its actions cannot be masked"
            raise ValueError(f"action_mask is of shape {mask.shape}, and the policy has {wanted}")
        return torch.from_numpy(mask.reshape(rows, width).astype(np.bool_))

    def __call__(self, obs: Any) -> Any:
        """The most probable actions, without memory or masks: `predict(obs, deterministic=True)[0]`.

        Raises `ValueError` for a policy with memory, which needs its state.
        """
        if self.network.memory is not None:
            raise ValueError("this policy has a memory: call predict(obs, state)")
        return self.predict(obs, deterministic=True)[0]

    def make_env(self, render_mode: str | None = None) -> Env:
        """One environment as it was trained on, preprocessing and stacked frames included.

        Raises `StartError` if it cannot be made.
        """
        return make_single(self.checkpoint.config, render_mode)


def is_batch(spec: ObsSpec, obs: Any) -> bool:
    """Whether these are several observations: of a list, or with a leading dimension more."""
    if isinstance(spec, Several):
        if spec.names and isinstance(obs, Mapping):
            return is_batch(spec.parts[0], obs[spec.names[0]])
        return not isinstance(obs, tuple) or is_batch(spec.parts[0], obs[0])
    return np.ndim(obs) > len(spec.shape)


def unbatched(spec: ObsSpec, obs: Any) -> list[Any]:
    """The single observations of a batch."""
    if not isinstance(spec, Several) or isinstance(obs, list):
        return list(obs)
    if isinstance(obs, Mapping):
        columns = [
            unbatched(part, obs[name]) for name, part in zip(spec.names, spec.parts, strict=True)
        ]
        return [dict(zip(spec.names, row, strict=True)) for row in zip(*columns, strict=True)]
    columns = [unbatched(part, own) for part, own in zip(spec.parts, obs, strict=True)]
    return list(zip(*columns, strict=True))


def load_policy(
    path: str | Path,
    *,
    best: bool = False,
    env: str | Callable[..., Any] = "",
    network: str | Callable[..., Any] = "",
) -> TrainedPolicy:
    """The policy of a run's newest or best checkpoint, or of one checkpoint.

    Where its run had an environment or a network of your own, as `package.module:name`, repeat the
    name: a checkpoint does not decide what is imported; where it was a class or a function, pass it
    again. Raises `CheckpointError`, and `ConfigError` for a name that is not repeated.
    """
    checkpoint = load_checkpoint(Path(path), best=best)
    config = require_consent(checkpoint.config, {"env": env, "network": network}, path)
    return TrainedPolicy(dataclasses.replace(checkpoint, config=config))
