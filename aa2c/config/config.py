"""The configuration of a run: all options together, and what may not be combined.

Imported by every process; imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from aa2c.config.options import (
    NETWORKS,
    EnvOptions,
    EvaluationOptions,
    HttpOptions,
    LearningOptions,
    RunOptions,
    SupervisionOptions,
    TrackingOptions,
    TrajOptions,
    UpdaterOptions,
    WorkerOptions,
)
from aa2c.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config(
    HttpOptions,
    TrackingOptions,
    SupervisionOptions,
    EvaluationOptions,
    UpdaterOptions,
    TrajOptions,
    LearningOptions,
    WorkerOptions,
    EnvOptions,
    RunOptions,
):
    """The configuration of a run. Raises `ConfigError` for what cannot be."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(item.default, tuple) and not isinstance(value, tuple):
                value = tuple(value) if isinstance(value, list) else (value,)
                object.__setattr__(self, item.name, value)
            _check_bounds(item, value)
        if not self.env:
            raise ConfigError("--env is empty: give a Gymnasium id, such as CartPole-v1.")
        if not self.host:
            raise ConfigError("--host is empty: give an address, such as 127.0.0.1.")
        if self.network not in NETWORKS and self.network.count(":") != 1:
            raise ConfigError(
                f"--network {self.network} does not exist: give one of {', '.join(NETWORKS)}, or a "
                "function of your own as package.module:function."
            )
        if not self.hidden_sizes:
            raise ConfigError("--hidden-sizes is empty: give at least one size.")
        if Path(self.name).name != self.name or self.name == "..":
            raise ConfigError(f"--name {self.name!r} must be a name, not a path: see --runs-dir.")
        self._check_contradictions()

    def _check_contradictions(self) -> None:
        if len(self.ent_coef) != 1 and len(self.ent_coef) < self.workers:
            raise ConfigError(
                f"--ent-coef has {len(self.ent_coef)} values for {self.workers} workers: "
                "give one, or at least as many as --workers."
            )
        if self.min_workers > self.workers:
            raise ConfigError(
                f"--min-workers {self.min_workers} must be at most --workers {self.workers}."
            )
        self._check_mode()
        for name in ("grad_sync_steps", "target_update_steps", "batch_steps"):
            if getattr(self, name) % self.num_steps:
                raise ConfigError(
                    f"{flag(name)} {getattr(self, name)} must be a multiple of "
                    f"--num-steps {self.num_steps}."
                )
        if self.deterministic:
            self._check_deterministic()

    def _check_mode(self) -> None:
        """What one mode has and another does without."""
        if self.mode == "traj":
            self._check_traj()
            return
        if self.mode == "model" and self.update_order == "sum":
            raise ConfigError(
                "--update-order sum is for --mode grad: in --mode model workers step one at a time "
                "(fifo) or without a lock (hogwild)."
            )
        if self.mode == "model" and self.max_policy_lag:
            raise ConfigError(
                "--max-policy-lag is not for --mode model: what is too old has been learned from."
            )
        for name in ("norm_returns", "adaptive_kl", "target_kl", "clip_vloss"):
            if getattr(self, name):
                raise ConfigError(f"{flag(name)} needs --mode traj, where the updater learns.")
        if self.advantage != "gae":
            raise ConfigError(f"--advantage {self.advantage} needs --mode traj.")

    def _check_traj(self) -> None:
        if self.update_order != "fifo":
            raise ConfigError(f"--update-order {self.update_order} is not for --mode traj.")
        if len(self.ent_coef) > 1:
            raise ConfigError(
                "--ent-coef takes one value in --mode traj, where the updater has the loss."
            )
        if self.rollouts_per_batch > self.workers * self.ring_slots:
            raise ConfigError(
                f"--batch-steps {self.batch_steps} needs {self.rollouts_per_batch} trajectories, "
                f"and the rings hold {self.workers * self.ring_slots}: raise --ring-slots."
            )

    def _check_deterministic(self) -> None:
        if self.mode != "traj" and self.update_order == "hogwild":
            raise ConfigError(
                "--update-order hogwild lets chance decide what is lost: not with --deterministic."
            )
        if self.mode == "traj" and self.rollouts_per_batch % self.workers:
            raise ConfigError(
                f"--batch-steps {self.batch_steps} makes batches of {self.rollouts_per_batch} "
                f"trajectories: --deterministic needs a multiple of --workers {self.workers}."
            )

    @property
    def rollouts_per_batch(self) -> int:
        """Trajectories, of any workers, that make one batch of mode traj."""
        return self.batch_steps // self.num_steps or self.workers

    @property
    def least_workers(self) -> int:
        """Fewer could not hold the trajectories of one batch in their rings, or keep in step."""
        if self.deterministic:
            return self.workers
        return -(-self.rollouts_per_batch // self.ring_slots) if self.mode == "traj" else 1

    @property
    def rollouts_per_push(self) -> int:
        """Rollouts whose gradients make one record of mode grad."""
        return max(1, self.grad_sync_steps // self.num_steps)

    @property
    def rollouts_per_pull(self) -> int:
        """Rollouts that a worker makes with the same parameters."""
        return max(1, self.target_update_steps // self.num_steps)

    def worker_ent_coef(self, worker: int) -> float:
        """The entropy weight of one worker."""
        return self.ent_coef[worker % len(self.ent_coef)]


# May be changed while a run goes on. A new one needs a word in the orchestrator's row of counters.
LIVE_OPTIONS = ("learning_rate", "ent_coef", "max_grad_norm", "clip_coef", "eval_interval_s")


def changed(config: Config, values: Mapping[str, float]) -> Config:
    """The configuration with other values of live options. Raises `ConfigError`."""
    return dataclasses.replace(config, **values)  # type: ignore[arg-type]


LEARNER_OPTIONS = (
    "mode",
    "env",
    "network",
    "hidden_sizes",
    "optimizer",
    "norm_obs",
    "norm_returns",
)


def check_same_learner(saved: Config, wanted: Config) -> None:
    """Refuse to resume with options that a checkpoint does not fit. Raises `ConfigError`."""
    for name in LEARNER_OPTIONS:
        before, now = getattr(saved, name), getattr(wanted, name)
        if before != now:
            raise ConfigError(
                f"{flag(name)} {now} differs from the {before} of the run that --resume names: "
                "start a new run for it."
            )


IMPORTING_OPTIONS = ("env", "network")


def require_consent(saved: Config, repeated: Mapping[str, str | None], where: str | Path) -> None:
    """A checkpoint may name code, and does not decide that it is imported: its reader repeats the name.

    Raises `ConfigError`.
    """
    for name in IMPORTING_OPTIONS:
        value = getattr(saved, name)
        if ":" in value and repeated[name] != value:
            raise ConfigError(
                f"{where} would import {value.partition(':')[0]}: if you trust it, repeat "
                f"{flag(name)} {value}."
            )


def flag(name: str) -> str:
    """The command line's spelling of an option."""
    return "--" + name.replace("_", "-")


def _check_bounds(item: dataclasses.Field[Any], value: Any) -> None:
    minimum, maximum = item.metadata["minimum"], item.metadata["maximum"]
    unit = f" {item.metadata['unit']}" if item.metadata["unit"] else ""
    name = flag(item.name)
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, str) and not _is_writable(number):
            raise ConfigError(f"{name} has characters that cannot be written to a file.")
        if isinstance(number, float) and not math.isfinite(number):
            raise ConfigError(f"{name} is not a finite number.")
        if minimum is not None and number < minimum:
            raise ConfigError(f"{name} {_shown(number)} must be at least {minimum}{unit}.")
        if maximum is not None and number > maximum:
            raise ConfigError(f"{name} {_shown(number)} must be at most {maximum}{unit}.")


def _is_writable(text: str) -> bool:
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(number: float) -> str:
    """The number, but not thousands of digits of it."""
    return str(number) if abs(number) < 10**30 else "(huge)"
