"""torch's own optimizers, on flat vectors whose state is there from the start.

State that exists before the first step can be shared between threads, saved and restored, and a
step never allocates it half-way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from aa2c.config.config import Config

_VECTORS = {"adam": ("exp_avg", "exp_avg_sq"), "rmsprop": ("square_avg",)}
_STEP = "step"
ADAM_BETA2 = 0.999
RMSPROP_ALPHA = 0.99


def optimizer_vectors(config: Config, num_params: int) -> dict[str, int]:
    """Names and lengths of the float32 vectors that are an optimizer's state."""
    return dict.fromkeys(_VECTORS[config.optimizer], num_params) | {_STEP: 1}


def make_optimizer(
    config: Config, vector: Tensor, *, state: Mapping[str, Tensor] | None = None
) -> torch.optim.Optimizer:
    """The optimizer of --optimizer for a flat vector or a shard of one.

    With `state` it moves these tensors (see `optimizer_vectors`) as its own.
    """
    parameter = torch.nn.Parameter(vector, requires_grad=True)
    optimizer: torch.optim.Optimizer
    if config.optimizer == "adam":
        optimizer = torch.optim.Adam(
            [parameter],
            lr=config.learning_rate,
            betas=(config.adam_beta1, ADAM_BETA2),
            eps=config.optimizer_eps,
            fused=True,
        )
    else:
        optimizer = torch.optim.RMSprop(
            [parameter], lr=config.learning_rate, alpha=RMSPROP_ALPHA, eps=config.optimizer_eps
        )
    if state is None:
        lengths = optimizer_vectors(config, vector.numel())
        state = {name: torch.zeros(length) for name, length in lengths.items()}
    optimizer.state[parameter] = dict(state) | {_STEP: state[_STEP].view(())}
    return optimizer


def rate_of_stale(learning_rate: float, lag: int, stale_after: int) -> float:
    """The rate to step with on a gradient that lags by so many steps (arXiv:1511.05950, section 3.2).

    Beyond `stale_after` it falls in proportion to the lag; 0: never.
    """
    is_stale = 0 < stale_after < lag
    return learning_rate * stale_after / lag if is_stale else learning_rate


def get_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors that the optimizer moves, not copies of them."""
    (state,) = optimizer.state.values()
    return state  # type: ignore[no-any-return]


def join_states(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Copies of the state of optimizers that hold consecutive shards, joined to flat vectors."""
    states = [get_state(optimizer) for optimizer in optimizers]
    joined = {
        name: torch.cat([state[name] for state in states]) for name in states[0] if name != _STEP
    }
    joined[_STEP] = states[0][_STEP].clone()
    return joined


def load_states(states: Sequence[Mapping[str, Tensor]], saved: Mapping[str, Tensor]) -> None:
    """Put what `join_states` gave back into the states of consecutive shards.

    Raises `ValueError` if it does not fit.
    """
    for name in states[0]:
        lengths = [state[name].numel() for state in states]
        whole = name != _STEP
        if name not in saved or saved[name].numel() != (sum(lengths) if whole else 1):
            raise ValueError(f"the optimizer's {name} does not fit")
        parts = torch.split(saved[name], lengths) if whole else [saved[name]] * len(states)
        for state, part in zip(states, parts, strict=True):
            state[name].view(-1).copy_(part)
