"""Every option of a run, once: name, type, default, unit, help and bounds, in groups.

Flags, TOML keys, the docs' table of options and `Config(...)` all derive from these dataclasses and
those of `aa2c.config.learning_options`. Imported by every process; imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aa2c.config.engine_options import EngineOptions
from aa2c.config.factory import Maker
from aa2c.config.kwargs import Kwargs
from aa2c.config.learning_options import LearningOptions, TrajOptions
from aa2c.config.option import option, seconds


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The run."""

    mode: str = option("grad", "how workers and updater share the work", basic=True)
    total_env_steps: int = option(
        500_000,
        "budget of the run; frames = env steps x frame skip",
        unit="env steps",
        minimum=1,
        maximum=2**53,
        basic=True,
    )
    seed: int = option(
        0, "seed of networks, environments and actions", minimum=0, maximum=2**31, basic=True
    )
    deterministic: bool = option(
        False, "lock-step: the same seed gives bit-identical parameters, at lower speed"
    )
    name: str = option(
        "", "name of the run's directory; empty: environment, mode and time stamp", basic=True
    )
    runs_dir: str = option("runs", "directory in which runs are kept")


@dataclass(frozen=True, kw_only=True)
class EnvOptions:
    """The environment."""

    env: Maker = option(  # noqa: RUF009 - never changed
        "CartPole-v1", "Gymnasium id; package.module:EnvId imports the module first", basic=True
    )
    env_kwargs: Mapping[str, Any] = option(
        Kwargs(),
        "keyword arguments of the environment, as name=value: text, numbers, true or false, [lists], "
        "{tables}",
        basic=True,
    )
    wrapper: Maker | Sequence[Maker] = option(  # noqa: RUF009 - never changed
        (),
        "wrap each environment in gymnasium.wrappers:NAME, or in a class or function of your own, "
        "package.module:name; several are applied in this order",
    )
    vector: Maker = option(  # noqa: RUF009 - never changed
        "",
        "instead of env: package.module:function that makes a gymnasium.vector.VectorEnv of as many "
        "environments as it is called with",
    )
    vectorization: Literal["sync", "async"] = option(
        "sync",
        "sync: a worker steps its environments one after the other; async: each in a process of its own, "
        "for slow ones",
    )
    num_envs: int = option(
        16, "environments per worker; 0: 8, or 24 divided by the number of workers where that is less",
        minimum=0, maximum=65536, basic=True,
    )  # fmt: skip
    action_mask: Literal["none", "info", "obs", "method"] = option(
        "none",
        'which actions are legal; info: info["action_mask"]; obs: the leaf "action_mask" of a Dict '
        "observation, which the network does not see; method: action_masks() of the environment",
    )
    reward_clip: float = option(
        0.0, "clip rewards to [-x, x] for learning; 0: no clipping. Reported returns stay raw",
        minimum=0, maximum=10**9,
    )  # fmt: skip
    frame_skip: int = option(
        4, "Atari: repeat each action for this many frames", unit="frames", minimum=1, maximum=1000
    )
    noop_max: int = option(
        30, "Atari: start each game with up to this many no-ops", unit="steps",
        minimum=0, maximum=10_000,
    )  # fmt: skip
    sticky_action_prob: float = option(
        0.0, "Atari: probability of repeating the previous action", minimum=0, maximum=1
    )
    terminal_on_life_loss: bool = option(
        True, "Atari: treat a lost life as the end of the episode for learning; the game continues"
    )


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """The workers."""

    workers: int = option(3, "worker processes", minimum=1, maximum=1024, basic=True)
    num_steps: int = option(
        8,
        "rollout length T; t_max in the A3C paper",
        unit="vector steps",
        minimum=1,
        maximum=2**20,
        basic=True,
    )
    grad_sync_steps: int = option(
        0,
        "vector steps between gradient pushes, which sum the gradients of grad_sync_steps / num_steps "
        "rollouts; 0: num_steps",
        unit="vector steps",
        minimum=0,
        maximum=2**30,
    )
    target_update_steps: int = option(
        0,
        "vector steps between parameter pulls; 0: num_steps",
        unit="vector steps",
        minimum=0,
        maximum=2**30,
    )
    ring_slots: int = option(
        2, "records a worker may run ahead of the updater", unit="records", minimum=1, maximum=1024
    )
    act_on: Literal["live", "snapshot"] = option(
        "live",
        "live: act on the shared network while others change it; snapshot: on a copy made for each "
        "rollout. Convolutions, stacks of linear layers and the heads on them are always copied",
    )
    payload_checksum: Literal["auto", "on", "off"] = option(
        "auto", "checksum the arrays of each record; auto: on CPUs that may reorder stores"
    )


@dataclass(frozen=True, kw_only=True)
class UpdaterOptions:
    """The updater."""

    update_order: Literal["fifo", "sum", "hogwild"] = option(
        "fifo",
        "fifo: one update per gradient, in order of arrival; sum: one update for all waiting "
        "gradients; hogwild: threads (in mode model: workers) update without synchronization",
    )
    stale_after: int = option(
        0,
        "a gradient of parameters that are more optimizer steps old than this steps with a learning rate that is "
        "smaller in proportion (arXiv:1511.05950); 0: all with the same",
        unit="steps",
        minimum=0,
        maximum=10**9,
    )
    update_threads: int = option(1, "threads that update the network", minimum=1, maximum=64)
    checkpoint_interval_s: float = seconds(
        60.0, "time between checkpoints; a final one is always written"
    )
    checkpoints_kept: int = option(3, "newest checkpoints to keep", minimum=1, maximum=10**6)
    keep_best: bool = option(
        False,
        "end the run with its best checkpoint, by the mean return of the last 100 training episodes, as "
        "the newest one; a new best is saved at most once in 100 episodes and 1 % of the budget",
    )
    nonfinite_limit: int = option(
        10, "consecutive records with non-finite losses or gradients that trigger nonfinite_action; "
        "0: never",
        minimum=0, maximum=10**9,
    )  # fmt: skip
    nonfinite_action: Literal["rollback", "stop"] = option(
        "rollback",
        "rollback: return to the newest checkpoint at half the learning rate; stop: end the run",
    )


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """The evaluator: test episodes during training."""

    eval_interval_s: float = seconds(
        60.0,
        "time from one evaluation's start to the next; 0: no evaluator",
        minimum=0,
        live=True,
        basic=True,
    )
    eval_episodes: int = option(
        10,
        "whole games per evaluation, once greedy and once sampled",
        minimum=1,
        maximum=10_000,
        basic=True,
    )
    eval_video: bool = option(
        False,
        "record the first greedy game of each evaluation in the run's videos/, for trackers as well",
    )
    eval_max_steps: int = option(
        27_000,
        "cut longer test episodes off here, and count them as they are",
        unit="env steps",
        minimum=1,
        maximum=10**9,
    )


@dataclass(frozen=True, kw_only=True)
class SupervisionOptions:
    """Supervision of the child processes."""

    start_timeout_s: float = seconds(
        120.0,
        "end the run if a child shows no sign of life for this long while starting up; each environment "
        "that has been made is one",
    )
    stall_timeout_s: float = seconds(60.0, "replace a child without a sign of life for this long")
    progress_timeout_s: float = seconds(
        600.0,
        "replace a child that makes no progress for this long without waiting for another process",
    )
    no_progress_s: float = seconds(
        60.0,
        "report a stall, and who waits for what, after this long without env steps or updates",
    )
    stop_timeout_s: float = seconds(8.0, "kill children that take longer than this to stop")
    max_restarts: int = option(
        60,
        "abandon a child that needs more restarts than this within restart_window_s",
        minimum=0,
        maximum=10**6,
    )
    min_workers: int = option(
        1,
        "end the run, with a checkpoint, once fewer workers than this are left",
        minimum=1,
    )
    restart_window_s: float = seconds(120.0, "window over which restarts are counted")
    restart_backoff_s: float = seconds(
        0.1,
        "wait before a restart; exponential backoff with jitter up to 5 s while nothing is produced",
        minimum=0,
    )


@dataclass(frozen=True, kw_only=True)
class TrackingOptions:
    """Experiment trackers."""

    track: tuple[Literal["tensorboard", "wandb"], ...] = option(
        (), "also log to TensorBoard (in the run's tb/), Weights & Biases, or both", basic=True
    )


@dataclass(frozen=True, kw_only=True)
class HttpOptions:
    """The HTTP endpoint: dashboard, /status, /metrics."""

    host: str = option(
        "127.0.0.1", "address to listen on; beyond loopback, reading needs the token as well"
    )
    allowed_host: tuple[str, ...] = option(
        (), "further host names (NAME or NAME:PORT) under which the dashboard may be requested"
    )
    port: int = option(8420, "TCP port; 0: a free one", minimum=0, maximum=65535, basic=True)


GROUPS = (
    RunOptions,
    EnvOptions,
    WorkerOptions,
    LearningOptions,
    TrajOptions,
    UpdaterOptions,
    EvaluationOptions,
    SupervisionOptions,
    EngineOptions,
    TrackingOptions,
    HttpOptions,
)

LIVE_OPTIONS = tuple(
    item.name for group in GROUPS for item in dataclasses.fields(group) if item.metadata["live"]
)
