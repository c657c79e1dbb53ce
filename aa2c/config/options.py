"""Every option of a run, once: name, type, default, unit, help and bounds, in groups.

Flags, TOML keys, the docs' table of options and `Config(...)` all derive from these dataclasses.
Imported by every process; imports nothing heavy. It has more than the usual number of lines, to keep
all options in one place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from aa2c.config.factory import Maker
from aa2c.config.kwargs import Kwargs
from aa2c.config.modes import about_modes

T = TypeVar("T")

NETWORKS = ("auto", "mlp", "a3c", "nature", "document", "impala", "minatar")

LONGEST_S = 10**6  # poll() counts milliseconds in 31 bits


def option(
    default: T,
    help: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    live: bool = False,
    basic: bool = False,
) -> T:
    """A field with its unit, help and inclusive bounds; a `live` one may change during a run.

    Each live option has a word in the orchestrator's row of counters. `basic` ones are in the short
    --help.
    """
    metadata = {
        "help": help, "unit": unit, "minimum": minimum, "maximum": maximum, "live": live,
        "basic": basic,
    }  # fmt: skip
    result: T = field(default=default, metadata=metadata)
    return result


def seconds(
    default: float, help: str, *, minimum: float = 1, live: bool = False, basic: bool = False
) -> float:
    """A duration, bounded so that no clock or wait overflows."""
    return option(
        default, help, unit="s", minimum=minimum, maximum=LONGEST_S, live=live, basic=basic
    )


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
    num_envs: int = option(16, "environments per worker", minimum=1, maximum=65536, basic=True)
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

    workers: int = option(3, "worker processes", minimum=1, maximum=256, basic=True)
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
        "rollout. Networks with convolutions always use a copy",
    )
    payload_checksum: Literal["auto", "on", "off"] = option(
        "auto", "checksum the arrays of each record; auto: on CPUs that may reorder stores"
    )


@dataclass(frozen=True, kw_only=True)
class LearningOptions:
    """The network and how it learns."""

    network: Maker = option(  # noqa: RUF009 - never changed
        "auto",
        "auto: nature, a3c or minatar for images, whichever fits, mlp for vectors; mlp: tanh layers of "
        "hidden_sizes, separate for policy and value; a3c: the small CNN of the A3C paper; nature: "
        "DQN's larger CNN; document: nature with separate 512-unit layers for policy and value, as in "
        "the seed document; impala: residual CNN; minatar: one convolution, for images of a few "
        "pixels; package.module:function: your own",
        basic=True,
    )
    hidden_sizes: tuple[int, ...] = option(
        (64, 64), "mlp: units of each hidden layer", minimum=1, maximum=65536
    )
    memory: Literal["none", "lstm", "gru", "own"] = option(
        "none",
        "recurrent layer between trunk and heads, for partially observable tasks; own: the state of a "
        "network of your own",
        basic=True,
    )
    memory_size: int = option(
        256, "units of the recurrent layer, or of the state of your own", minimum=1, maximum=65536
    )
    sequence_length: int = option(
        0,
        "sequence length of backpropagation through time: a rollout is cut into such sequences, and the "
        "state at the start of each is kept; 0: num_steps", unit="vector steps", minimum=0,
    )  # fmt: skip
    action_bounds: Literal["clip", "tanh"] = option(
        "clip",
        "how continuous actions are bounded; clip: Gaussian samples are clipped for the environment; "
        "tanh: a tanh-squashed Gaussian, with the density of the squashed action",
    )
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "auto",
        "arithmetic of convolutional trunks, heads excluded; auto: bfloat16 if the CPU has it (AMX, "
        "AVX512-BF16) and a self-test against float32 passes",
    )
    obs_scale: float = option(
        0.0, "divide observations by this; 0: 255 for bytes, 1 otherwise",
        minimum=0, maximum=10**9,
    )  # fmt: skip
    norm_obs: bool = option(
        False,
        "normalize observations by their running mean and std and clip them to 10 stds, as VecNormalize "
        "does; the statistics follow the data during training and are saved with the network",
        basic=True,
    )
    norm_rewards: bool = option(
        False,
        "divide rewards by the running std of the discounted return and clip them to [-10, 10] for "
        "learning, after reward_clip, as VecNormalize does. Reported returns stay raw",
        basic=True,
    )
    optimizer: Literal["adam", "rmsprop"] = option("adam", "torch's optimizer of that name")
    optimizer_eps: float = option(1e-5, "the optimizer's epsilon", minimum=1e-12, maximum=1)
    learning_rate: float = option(
        1e-3, "learning rate", minimum=0, maximum=1, live=True, basic=True
    )
    anneal_learning_rate: bool = option(True, "anneal learning_rate linearly to 0 over the budget")
    gamma: float = option(0.99, "discount factor", minimum=0, maximum=1, basic=True)
    gae_lambda: float = option(
        0.95, "lambda of GAE; 1: n-step returns, as in A3C", minimum=0, maximum=1
    )
    norm_adv: bool = option(True, "normalize each batch's advantages to mean 0 and std 1")
    vf_coef: float = option(0.5, "coefficient of the value loss", minimum=0, maximum=1000)
    value_loss: Literal["mse", "huber"] = option("mse", "value loss, averaged over the batch")
    ent_coef: tuple[float, ...] = option(
        (0.0,), "coefficient of the entropy bonus; one number, or one per worker", minimum=0,
        live=True, maximum=1000, basic=True,
    )  # fmt: skip
    max_grad_norm: float = option(
        0.5, "clip each rollout's (mode traj: minibatch's) gradient to this L2 norm; 0: off",
        minimum=0,
        live=True, maximum=10**6,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrajOptions:
    """Trajectories and PPO."""

    batch_steps: int = option(
        0, "vector steps in a batch; 0: num_steps x workers",
        unit="vector steps", minimum=0, basic=True,
    )  # fmt: skip
    update_epochs: int = option(4, "passes over each batch", minimum=1, maximum=1000, basic=True)
    minibatches: int = option(
        4, "minibatches per pass, one optimizer step each", minimum=1, maximum=2**20, basic=True
    )
    clip_coef: float = option(
        0.2, "PPO's clipping range of the probability ratio", minimum=0, maximum=1, live=True
    )
    clip_vloss: bool = option(False, "clip the change of the value by clip_coef as well")
    target_kl: float = option(
        0.0, "stop the passes over a batch once approx_kl exceeds this; 0: never", unit="nats",
        minimum=0, maximum=1000,
    )  # fmt: skip
    adaptive_kl: float = option(
        0.0,
        "target of an adaptive learning rate: after each pass, divide it by 1.5 if approx_kl is above "
        "twice this, multiply it by 1.5 if below half; 0: off", unit="nats", minimum=0, maximum=1000,
    )  # fmt: skip
    norm_returns: bool = option(
        False, "the value head learns returns normalized by their running mean and std (PopArt)"
    )
    advantage: Literal["gae", "recompute", "vtrace"] = option(
        "gae",
        "gae: GAE on the workers' values; recompute: GAE on fresh values before each pass; vtrace: "
        "V-trace, which corrects for policy lag, before each pass",
    )
    max_policy_lag: int = option(
        0,
        "drop (and count) records that lag more than this; 0: drop none",
        unit="versions",
        minimum=0,
        maximum=10**9,
    )


@dataclass(frozen=True, kw_only=True)
class UpdaterOptions:
    """The updater."""

    update_order: Literal["fifo", "sum", "hogwild"] = option(
        "fifo",
        "fifo: one update per gradient, in order of arrival; sum: one update for all waiting "
        "gradients; hogwild: threads (in mode model: workers) update without synchronization",
    )
    update_threads: int = option(1, "threads that update the network", minimum=1, maximum=64)
    checkpoint_interval_s: float = seconds(
        60.0, "time between checkpoints; a final one is always written"
    )
    checkpoints_kept: int = option(3, "newest checkpoints to keep", minimum=1, maximum=10**6)
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
    TrackingOptions,
    HttpOptions,
)

LIVE_OPTIONS = tuple(
    item.name for group in GROUPS for item in dataclasses.fields(group) if item.metadata["live"]
)


def help_of(item: dataclasses.Field[Any]) -> str:
    """An option's help text, with its unit."""
    help: str = item.metadata["help"]
    unit = item.metadata["unit"]
    more = f"; {about_modes()}" if item.name == "mode" else ""
    return help + more + (f" [{unit}]" if unit else "")
