"""Trained policies in a user's program: read from a checkpoint, asked for actions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aa2c.checkpoints.tensors import Checkpoint, load_checkpoint, load_network
from aa2c.config.config import require_consent
from aa2c.envs.actions import to_space
from aa2c.envs.failure import Unusable, shown
from aa2c.envs.masks import of_parts, to_mask, without_mask
from aa2c.envs.observations import ObsSpec, Several, exactly_as, to_row
from aa2c.envs.single import Env, make_single
from aa2c.envs.spec import ACTION_MASK, ActionSpec, Joint
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
        where the memory is to be forgotten. `action_mask` [N, A] is 0 where an action is illegal; of a
        MultiDiscrete the masks of its dimensions are concatenated, or a tuple. A policy that was trained
        with masks needs them, unless they are in its observations; for an episode that is over give one of
        ones. Raises `ValueError` for what does not fit the spaces.
        """
        action_mask = self._told_in(obs) if action_mask is None else action_mask
        rows, is_single = self.rows(obs)
        begins = np.zeros(len(rows), np.bool_)
        if episode_start is not None:
            begins |= np.asarray(episode_start, np.bool_)
        with torch.inference_mode():
            before = self._state(state, len(rows))
            mask = self._masks(action_mask, len(rows), is_single=is_single)
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
        if self.checkpoint.config.action_mask == "obs":
            obs = list(map(without_mask, obs)) if isinstance(obs, list) else without_mask(obs)
        if spec.obs is None:
            rows = as_dtype(obs, spec.obs_dtype)
            is_single = rows.shape == spec.obs_shape
            rows = rows[None] if is_single else rows
        else:
            try:
                is_single = not is_batch(spec.obs, obs)
                each = [obs] if is_single else unbatched(spec.obs, obs)
                rows = np.stack([to_row(spec.obs, one) for one in each])
            except Unusable as error:
                raise ValueError(f"the caller {error}") from None
            except (KeyError, TypeError, IndexError):
                raise ValueError(
                    f"observations are as the environment's, with all their parts, got {shown(obs)}"
                ) from None
        if rows.shape[1:] != spec.obs_shape or not len(rows):
            raise ValueError(f"observations are of shape {spec.obs_shape}, got {rows.shape}")
        if rows.dtype.kind == "f" and not np.isfinite(rows).all():
            raise ValueError(f"observations are numbers, got {shown(obs)}")
        return rows, is_single

    def _state(self, given: State | None, rows: int) -> State:
        """The state to act from. Raises `ValueError` for one that is not of so many rows."""
        initial = self.network.initial_state(rows)
        if given is None:
            return initial
        shapes = [tuple(np.shape(part)) for part in given]
        if shapes != [tuple(part.shape) for part in initial]:
            raise ValueError(
                f"a state of {rows} observations is what predict returned for as many, got parts of {shapes}"
            )
        return tuple(torch.as_tensor(part) for part in given)

    def _told_in(self, obs: Any) -> Any:
        """The masks that are in observations; None if there are none."""
        if self.checkpoint.config.action_mask != "obs":
            return None
        if isinstance(obs, list):
            told = [self._told_in(one) for one in obs]
            return None if any(mask is None for mask in told) else told
        return obs.get(ACTION_MASK) if isinstance(obs, Mapping) else None

    def _masks(self, given: Any, rows: int, *, is_single: bool) -> Tensor | None:
        """The masks [N, A]. Raises `ValueError` for those that do not fit the actions, or leave none."""
        spec = self.checkpoint.spec
        if given is None:
            if spec.has_mask:
                raise ValueError("the policy was trained with action masks: give action_mask")
            return None
        if not spec.actions.num_mask:
            raise ValueError("the policy's actions cannot be masked: give no action_mask")
        masks = [given] if is_single else mask_rows(spec.actions, given)
        if len(masks) != rows:
            raise ValueError(
                f"{len(masks)} action masks for {rows} observations: give one for each"
            )
        try:
            return torch.from_numpy(np.stack([to_mask(spec.actions, mask) for mask in masks]))
        except Unusable as error:
            raise ValueError(f"the caller {error}") from None

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


def as_dtype(obs: Any, dtype: str) -> NDArray[Any]:
    """A copy of this dtype. Raises `ValueError` for values that an integer dtype cannot hold."""
    given, wanted = np.array(obs), np.dtype(dtype)
    if wanted.kind not in "iu":
        return given.astype(wanted, copy=False)
    rows = exactly_as(given, wanted)
    if rows is None:
        raise ValueError(f"observations are of dtype {dtype}, got {given.dtype} of other values")
    return rows


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


def mask_rows(spec: ActionSpec, given: Any) -> list[Any]:
    """The single masks of a batch; a tuple or mapping has a batch of each part's."""
    if isinstance(spec, Joint) and isinstance(given, tuple | Mapping):
        pairs = zip(spec.parts, of_parts(spec, given), strict=False)
        columns = [np.stack(mask_rows(part, own)) for part, own in pairs]
        return list(np.concatenate(columns, -1)) if columns else []
    return list(given)


def load_policy(
    path: str | Path,
    *,
    best: bool = False,
    env: str | Callable[..., Any] = "",
    network: str | Callable[..., Any] = "",
    wrapper: Sequence[str | Callable[..., Any]] = (),
    vector: str | Callable[..., Any] = "",
) -> TrainedPolicy:
    """The policy of a run's newest or best checkpoint, or of one checkpoint.

    Where its run had an environment, network, vector or wrapper of your own, as `package.module:name`,
    repeat the name: a checkpoint does not decide what is imported; where it was a class or a function,
    pass it again. Raises `CheckpointError`, and `ConfigError` for a name that is not repeated.
    """
    checkpoint = load_checkpoint(Path(path), best=best)
    repeated = {"env": env, "network": network, "wrapper": wrapper, "vector": vector}
    config = require_consent(checkpoint.config, repeated, path)
    return TrainedPolicy(dataclasses.replace(checkpoint, config=config))
