"""Every option of a run, once: name, type, default, unit, help and bounds, in groups.

Flags, TOML keys, the table of options in the docs and `Config(...)` are all read off these
dataclasses. Imported by every process; imports nothing heavy. It has more lines than other files: an
option belongs beside its like.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from aa2c.config.modes import about_modes

T = TypeVar("T")

NETWORKS = ("auto", "mlp", "a3c", "nature", "document", "impala")

LONGEST_S = 10**6  # poll() counts milliseconds in 31 bits


def option(
    default: T,
    help: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    live: bool = False,
) -> T:
    """A field with its unit, help and inclusive bounds; `live` ones may change while a run goes on.

    A new live option needs a word in the orchestrator's row of counters, which is made of them.
    """
    metadata = {"help": help, "unit": unit, "minimum": minimum, "maximum": maximum, "live": live}
    result: T = field(default=default, metadata=metadata)
    return result


def seconds(default: float, help: str, *, minimum: float = 1, live: bool = False) -> float:
    """An option that is a time, of which no clock and no wait overflows."""
    return option(default, help, unit="s", minimum=minimum, maximum=LONGEST_S, live=live)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The run."""

    mode: str = option("grad", "how workers and updater share the work")
    total_env_steps: int = option(
        500_000,
        "budget of the run; frames = env steps x frame skip",
        unit="env steps",
        minimum=1,
        maximum=2**53,
    )
    seed: int = option(0, "seed of networks, environments and actions", minimum=0, maximum=2**31)
    deterministic: bool = option(
        False, "lock-step: the same seed gives the same parameters bit for bit, more slowly"
    )
    name: str = option("", "name of the run's directory; empty: environment, mode and time")
    runs_dir: str = option("runs", "directory that holds the runs")


@dataclass(frozen=True, kw_only=True)
class EnvOptions:
    """The environment."""

    env: str = option("CartPole-v1", "Gymnasium id; package.module:EnvId imports the module first")
    num_envs: int = option(16, "environments inside one worker", minimum=1, maximum=65536)
    reward_clip: float = option(
        0.0, "learn from rewards clipped to [-x, x]; 0: unclipped. Reports stay raw",
        minimum=0, maximum=10**9,
    )  # fmt: skip
    frame_skip: int = option(
        4, "Atari: frames an action is repeated", unit="frames", minimum=1, maximum=1000
    )
    noop_max: int = option(
        30, "Atari: a game starts with up to this many no-ops", unit="steps",
        minimum=0, maximum=10_000,
    )  # fmt: skip
    sticky_action_prob: float = option(
        0.0, "Atari: chance that the last action is repeated", minimum=0, maximum=1
    )
    terminal_on_life_loss: bool = option(
        True, "Atari: learn as if a lost life ended the episode; the game goes on"
    )


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """The workers."""

    workers: int = option(3, "worker processes", minimum=1, maximum=256)
    num_steps: int = option(
        8,
        "rollout length T; t_max in the A3C paper",
        unit="vector steps",
        minimum=1,
        maximum=2**20,
    )
    grad_sync_steps: int = option(
        0,
        "vector steps between pushes; the gradients of grad_sync_steps / num_steps rollouts "
        "are summed; 0: num_steps",
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
        2, "records a worker may be ahead of the updater", unit="records", minimum=1, maximum=1024
    )
    act_on: Literal["live", "snapshot"] = option(
        "live",
        "act on the shared network as others change it, or on a copy made for each rollout; networks "
        "with convolutions are a copy in any case",
    )
    payload_checksum: Literal["auto", "on", "off"] = option(
        "auto", "checksum the arrays of a record; auto: where the CPU does not order stores"
    )


@dataclass(frozen=True, kw_only=True)
class LearningOptions:
    """The network and how it learns."""

    network: str = option(
        "auto",
        "a3c: the small CNN of the A3C paper; nature: DQN's larger one; document: nature with "
        "separate 512-unit layers for policy and value; impala: residual CNN; mlp: two tanh "
        "networks; auto: nature for images, mlp for vectors; package.module:function: your own",
    )
    hidden_sizes: tuple[int, ...] = option(
        (64, 64), "mlp: units of each hidden layer", minimum=1, maximum=65536
    )
    memory: Literal["none", "lstm", "gru"] = option(
        "none", "recurrent layer between trunk and heads, for what one observation does not show"
    )
    memory_size: int = option(256, "its units", minimum=1, maximum=65536)
    sequence_length: int = option(
        0,
        "steps of the sequences that a policy with memory learns from; a rollout has several, whose "
        "states at the start are kept; 0: num_steps", unit="vector steps", minimum=0,
    )  # fmt: skip
    action_bounds: Literal["clip", "tanh"] = option(
        "clip",
        "how continuous actions keep to their bounds; clip: a Gaussian's are clipped for the "
        "environment; tanh: squashed, with the density of what comes out",
    )
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "auto",
        "arithmetic of convolutions and what follows them up to the heads; auto: bfloat16 where the CPU has it (AMX, AVX512-BF16) and a "
        "self-test against float32 passes",
    )
    obs_scale: float = option(
        0.0, "observations are divided by this; 0: 255 for bytes, 1 otherwise",
        minimum=0, maximum=10**9,
    )  # fmt: skip
    norm_obs: bool = option(
        False,
        "normalize observations by their mean and std in random play before the first update; where "
        "the updater evaluates the loss, they follow later observations, too, and elsewhere this suits "
        "only games in which random play sees what matters",
    )
    optimizer: Literal["adam", "rmsprop"] = option("adam", "torch's optimizer of that name")
    optimizer_eps: float = option(1e-5, "the optimizer's epsilon", minimum=1e-12, maximum=1)
    learning_rate: float = option(
        1e-3, "the optimizer's learning rate", minimum=0, maximum=1, live=True
    )
    anneal_learning_rate: bool = option(True, "lower learning_rate linearly to 0 over the budget")
    gamma: float = option(0.99, "discount", minimum=0, maximum=1)
    gae_lambda: float = option(
        0.95, "1: n-step returns as in A3C; below: GAE", minimum=0, maximum=1
    )
    norm_adv: bool = option(True, "normalize each batch's advantages to mean 0 and std 1")
    vf_coef: float = option(0.5, "weight of the value loss", minimum=0, maximum=1000)
    value_loss: Literal["mse", "huber"] = option("mse", "loss of the value, mean over the batch")
    ent_coef: tuple[float, ...] = option(
        (0.0,), "weight of the entropy bonus; one number, or one for each worker", minimum=0,
        live=True, maximum=1000,
    )  # fmt: skip
    max_grad_norm: float = option(
        0.5, "each rollout's gradient is clipped to this L2 norm; 0: not clipped", minimum=0,
        live=True, maximum=10**6,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrajOptions:
    """Trajectories and PPO."""

    batch_steps: int = option(
        0, "vector steps popped for an update of the policy; 0: num_steps x workers",
        unit="vector steps", minimum=0,
    )  # fmt: skip
    update_epochs: int = option(4, "passes over each batch", minimum=1, maximum=1000)
    minibatches: int = option(
        4, "parts of a shuffled batch, one optimizer step each", minimum=1, maximum=2**20
    )
    clip_coef: float = option(
        0.2, "PPO's clipping of the probability ratio", minimum=0, maximum=1, live=True
    )
    clip_vloss: bool = option(False, "clip the value's change by clip_coef, too")
    target_kl: float = option(
        0.0, "no further pass over a batch once approx_kl exceeds this; 0: never", unit="nats",
        minimum=0, maximum=1000,
    )  # fmt: skip
    adaptive_kl: float = option(
        0.0,
        "the learning rate is divided by 1.5 after a pass with an approx_kl above twice this, and "
        "multiplied by it below half; 0: not adapted", unit="nats", minimum=0, maximum=1000,
    )  # fmt: skip
    norm_returns: bool = option(
        False, "let the value head learn returns normalized by their running mean and std (PopArt)"
    )
    advantage: Literal["gae", "recompute", "vtrace"] = option(
        "gae",
        "gae: on the values that acted; recompute: GAE on new values before each pass; "
        "vtrace: corrected for policy lag, before each pass",
    )
    max_policy_lag: int = option(
        0,
        "trajectories that lag more are dropped and counted; 0: none",
        unit="versions",
        minimum=0,
        maximum=10**9,
    )


@dataclass(frozen=True, kw_only=True)
class UpdaterOptions:
    """The updater."""

    update_order: Literal["fifo", "sum", "hogwild"] = option(
        "fifo",
        "fifo: one update for each gradient, in order; sum: one for all that wait; hogwild: "
        "threads, or workers that share a network, update without synchronisation",
    )
    update_threads: int = option(1, "threads that step the network", minimum=1, maximum=64)
    checkpoint_interval_s: float = seconds(
        60.0, "time between checkpoints; there is always one at the end"
    )
    checkpoints_kept: int = option(3, "newest checkpoints that are kept", minimum=1, maximum=10**6)
    nonfinite_limit: int = option(
        10, "so many records in a row whose losses or gradients are not finite are too many; 0: never",
        minimum=0, maximum=10**9,
    )  # fmt: skip
    nonfinite_action: Literal["rollback", "stop"] = option(
        "rollback",
        "what follows then: back to the newest checkpoint at half the learning rate, or the end",
    )


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """The evaluator: test episodes while it trains."""

    eval_interval_s: float = seconds(
        60.0, "time from one evaluation's start to the next; 0: no evaluator", minimum=0, live=True
    )
    eval_episodes: int = option(
        10, "whole games of an evaluation, greedy and again sampled", minimum=1, maximum=10_000
    )
    eval_max_steps: int = option(
        27_000,
        "an episode that is longer is cut and counted as it is",
        unit="env steps",
        minimum=1,
        maximum=10**9,
    )


@dataclass(frozen=True, kw_only=True)
class SupervisionOptions:
    """Supervision of the child processes."""

    start_timeout_s: float = seconds(
        120.0,
        "a child without a sign of life, such as an environment that was made, for so long before it has "
        "come up ends the run",
    )
    stall_timeout_s: float = seconds(60.0, "a child without a sign of life for so long is replaced")
    progress_timeout_s: float = seconds(
        600.0,
        "a child that is alive, waits for nobody and makes no progress for so long is replaced",
    )
    no_progress_s: float = seconds(
        60.0,
        "stall: the run says who waits for whom once there were no env steps or updates for so long",
    )
    stop_timeout_s: float = seconds(8.0, "time to stop in; children that need longer are killed")
    max_restarts: int = option(
        60,
        "restarts of one child within restart_window_s; one that needs more is abandoned",
        minimum=0,
        maximum=10**6,
    )
    min_workers: int = option(
        1,
        "the run ends, with a checkpoint, once fewer workers than this are left",
        minimum=1,
    )
    restart_window_s: float = seconds(120.0, "window in which restarts are counted")
    restart_backoff_s: float = seconds(
        0.1,
        "wait before a restart; exponential backoff with jitter up to 5 s while nothing is produced",
        minimum=0,
    )


@dataclass(frozen=True, kw_only=True)
class TrackingOptions:
    """Experiment trackers."""

    track: tuple[Literal["tensorboard", "wandb"], ...] = option(
        (), "also record for TensorBoard (the run's tb/), Weights & Biases, or both"
    )


@dataclass(frozen=True, kw_only=True)
class HttpOptions:
    """The page, /status and /metrics."""

    host: str = option(
        "127.0.0.1", "address to listen on; beyond loopback reading, too, needs the token"
    )
    allowed_host: tuple[str, ...] = option(
        (), "more names, or name:port, by which the page may be asked for"
    )
    port: int = option(8420, "TCP port; 0: a free one", minimum=0, maximum=65535)


GROUPS = (
    RunOptions,
    EnvOptions,
    WorkerOptions,
    LearningOptions,
    TrajOptions,
    UpdaterOptions,
    EvaluationOptions,
    SupervisionOptions,
    TrackingOptions,
    HttpOptions,
)

LIVE_OPTIONS = tuple(
    item.name for group in GROUPS for item in dataclasses.fields(group) if item.metadata["live"]
)


def help_of(item: dataclasses.Field[Any]) -> str:
    """What an option is for, with its unit."""
    help: str = item.metadata["help"]
    unit = item.metadata["unit"]
    more = f"; {about_modes()}" if item.name == "mode" else ""
    return help + more + (f" [{unit}]" if unit else "")
