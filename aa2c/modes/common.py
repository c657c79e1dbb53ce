"""What the modes share: a worker's rollouts and their loss, and what an update tells."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from aa2c.config.config import Config
from aa2c.config.modes import ModeFacts
from aa2c.envs.state import CannotBeSaved
from aa2c.failpoint import failpoint
from aa2c.learn.losses import Losses, a2c_loss, share_left
from aa2c.learn.returns import AdvantageScale, clip_rewards, gae, normalize
from aa2c.learn.rollout import Rollout, collect
from aa2c.learn.schema import begins_episode, next_values
from aa2c.learn.statistics import SentStatistics
from aa2c.modes.mode import WorkerSetup
from aa2c.policy.normalization import Statistics
from aa2c.policy.policy import Policy
from aa2c.ports import Record, Report, WorkerPort

EPISODES_PER_MESSAGE = 1000
LOSSES = ModeFacts.losses  # of what workers evaluate
DIAGNOSTICS = ModeFacts.diagnostics


class RolloutProducer:
    """What every mode's producer is: environments, a policy that acts in them, and a rollout."""

    def __init__(self, setup: WorkerSetup, *, in_records: bool = False) -> None:
        self._config, self._worker, self._envs, self._policy, self._generator = setup
        state = self._policy.initial_state(self._envs.num_envs)
        self._rollout = Rollout(self._envs, self._config, state, in_records=in_records)
        self._statistics = SentStatistics(
            self._config, self._policy, self._envs.num_envs, of_obs=not in_records
        )
        self._scale = AdvantageScale()
        self._frames_shown = 0

    def _act(self, port: WorkerPort, policy: Policy) -> None:
        """Fill the rollout; count its env steps and report the episodes that it ended."""
        self._config = port.config_now()
        failpoint("worker.before_step")
        episodes = collect(self._envs, policy, self._rollout, self._generator, port.tick)
        self._statistics.add(self._rollout)
        port.counters.add("env_steps", self._rollout.env_steps)
        port.counters.add("episodes", len(episodes))
        for start in range(0, len(episodes), EPISODES_PER_MESSAGE):
            port.report(Report.EPISODES, episodes=episodes[start : start + EPISODES_PER_MESSAGE])
        if self._worker == 0 and port.run.count("frames_wanted") > self._frames_shown:
            self._frames_shown = port.run.count("frames_wanted")
            port.report(Report.FRAMES, **self._rollout.newest_frames())

    def state(self) -> bytes:
        """All that the next record depends on, but what it pulls: for --deterministic.

        Environments that cannot be saved are left out.
        """
        with contextlib.suppress(CannotBeSaved):
            return self._pack({"envs": self._envs.state()})
        return self._pack({"envs": None})

    def _pack(self, plain: dict[str, Any]) -> bytes:
        arrays = {
            "plain": np.frombuffer(json.dumps(plain).encode(), np.uint8),
            "generator": self._generator.get_state().numpy(),
            "obs": self._rollout.now,
            "is_first": self._rollout.is_first,
            "returns": self._statistics.returns,
            "advantage_scale": self._scale.state,
            **{f"state{i}": part.numpy() for i, part in enumerate(self._rollout.state)},
            **self._own_state(),
        }
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **arrays)
        return file.getvalue()

    def load_state(self, saved: bytes) -> bool:
        """Resume from what `state` gave; False if the environments could not be saved."""
        with np.load(io.BytesIO(saved), allow_pickle=False) as arrays:
            plain = json.loads(arrays["plain"].tobytes())
            if plain["envs"] is None:
                return False
            self._envs.load_state(plain["envs"])
            self._generator.set_state(torch.from_numpy(arrays["generator"]))
            count = len(self._rollout.state)
            state = tuple(torch.from_numpy(arrays[f"state{i}"]) for i in range(count))
            self._rollout.continue_from(arrays["obs"], arrays["is_first"], state)
            self._statistics.returns = arrays["returns"]
            self._scale.state = arrays["advantage_scale"]
            self._load_own_state(arrays)
        return True

    def _loss(self) -> Losses:
        """The rollout's loss, where the worker learns."""
        unsent = self._statistics.of_returns
        return rollout_loss(
            self._config, self._policy, self._rollout, self._worker, unsent, self._scale
        )

    def _own_state(self) -> dict[str, Any]:
        """What a mode's producer has beyond that."""
        return {}

    def _load_own_state(self, arrays: Mapping[str, Any]) -> None: ...

    def _set_aside(self, port: WorkerPort, losses: Losses, grad_norm: float) -> None:
        """Keep a rollout whose gradient is not finite; the updater will refuse its record."""
        told: dict[str, float] = {}
        add_losses(told, losses, grad_norm, self._config.max_grad_norm)
        port.set_aside(self._rollout.arrays, told)


class UpdaterHalf:
    """What most consumers are: they learn from all that waits, as it comes, in the updater."""

    records_per_update = 0

    @property
    def is_running(self) -> bool:
        """Nobody steps the network but the updater."""
        return False

    def learned_at(self, record: Record, version: int) -> int:
        """The updater's version: it learns from the record now."""
        return version

    def undone_version(self, published: int) -> int:
        """All that have been published."""
        return published

    def close(self) -> None: ...


def rollout_loss(
    config: Config,
    policy: Policy,
    rollout: Rollout,
    worker: int,
    returns_unsent: Statistics | None = None,
    scale: AdvantageScale | None = None,
) -> Losses:
    """The actor-critic loss of a worker's rollout, for A3C: evaluated anew, with a graph.

    But for the last observations, which no action of it was chosen from: theirs are constants.
    Rewards are scaled as if `returns_unsent` counted already. Without `scale` advantages are normalized
    for themselves.
    """
    obs = torch.from_numpy(rollout["obs"])
    state, is_first = rollout.start()
    mask = rollout.mask()
    if mask is not None:
        mask = mask.flatten(0, 1)
    distribution, values, state = policy.evaluate(obs[:-1].flatten(0, 1), state, is_first, mask)
    is_first = torch.from_numpy(begins_episode(rollout.arrays)[-1:])
    with torch.no_grad():
        _, last_values, _ = policy.evaluate(obs[-1], state, is_first)
    states = torch.cat([values.detach(), last_values]).numpy().reshape(-1, rollout.num_envs)
    advantages = gae(
        policy.scale_rewards(clip_rewards(rollout["rewards"], config.reward_clip), returns_unsent),
        states[:-1],
        next_values(rollout.arrays, states),
        rollout["terminated"],
        rollout["truncated"],
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
    )
    returns = advantages + states[:-1]
    valid = ~rollout["is_reset"]
    if config.norm_adv:
        advantages = normalize(advantages, valid, scale)
    return a2c_loss(
        distribution,
        values,
        torch.from_numpy(rollout["actions"]).flatten(0, 1),
        torch.from_numpy(advantages).flatten(),
        torch.from_numpy(returns).flatten(),
        torch.from_numpy(valid).flatten().float(),
        vf_coef=config.vf_coef,
        ent_coef=config.worker_ent_coef(worker),
        value_loss=config.value_loss,
    )


def add_losses(
    values: dict[str, float],
    losses: Losses,
    grad_norm: float,
    max_grad_norm: float = 0.0,
    *,
    weight: float = 1.0,
) -> None:
    """Add the parts of a rollout's loss, and its diagnostics, to a record's values."""
    parts = {
        "policy": losses.policy.item(),
        "value": losses.value.item(),
        "entropy": losses.entropy.item(),
        "grad_norm": grad_norm,
        "explained_variance": losses.explained_variance.item(),
        "grad_share": share_left(grad_norm, max_grad_norm),
    }
    for name, part in parts.items():
        values[name] = values.get(name, 0.0) + weight * part


def losses_of(record: Record) -> dict[str, float]:
    """What a record of A3C tells of its loss; diagnostics that it does not have are NaN."""
    values = record.header.values
    known = {name: values.get(name, math.nan) for name in DIAGNOSTICS}
    return {name: values[name] for name in LOSSES} | known


def has_losses(values: Mapping[str, Any]) -> bool:
    """Whether a header carries the counts and losses every record of A3C has, all finite."""
    wanted = ("env_steps", *LOSSES)
    return all(math.isfinite(values.get(name, math.nan)) for name in wanted)
