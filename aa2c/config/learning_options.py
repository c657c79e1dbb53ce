"""The options of the network and of learning, mode traj's own among them; see `aa2c.config.options`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aa2c.config.factory import Maker
from aa2c.config.option import option

NETWORKS = ("auto", "mlp", "a3c", "nature", "document", "impala", "minatar")


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
    adam_beta1: float = option(
        0.9,
        "decay of Adam's mean gradient: its momentum. Asynchronous updates have a momentum of their own "
        "(arXiv:1605.09774), so that A3C wants less",
        minimum=0,
        maximum=0.9999,
    )
    learning_rate: float = option(
        1e-3, "learning rate", minimum=0, maximum=1, live=True, basic=True
    )
    anneal_learning_rate: bool = option(True, "anneal learning_rate linearly to 0 over the budget")
    gamma: float = option(0.99, "discount factor", minimum=0, maximum=1, basic=True)
    gae_lambda: float = option(
        0.95, "lambda of GAE; 1: n-step returns, as in A3C", minimum=0, maximum=1
    )
    norm_adv: bool = option(
        True,
        "normalize each batch's advantages to mean 0 and std 1; modes grad and model: each rollout's, "
        "and divide by no less than 0.3 of their std so far",
    )
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
        4, "minibatches per pass, one optimizer step each; 0: as many as have 128 transitions each",
        minimum=0, maximum=2**20, basic=True,
    )  # fmt: skip
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
