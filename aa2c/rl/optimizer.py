"""torch's own optimizers, on flat vectors whose state is there from the start.

State that exists before the first step can be shared between threads, saved and restored, and a
step never allocates it half-way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aa2c.config import Config

_MOMENTS = {"adam": ("exp_avg", "exp_avg_sq"), "rmsprop": ("square_avg",)}
RMSPROP_ALPHA = 0.99


def make_optimizer(
    config: Config, vector: Tensor, *, share_state_of: torch.optim.Optimizer | None = None
) -> torch.optim.Optimizer:
    """The optimizer of --optimizer for a flat vector or a shard of one.

    With `share_state_of` it moves the other optimizer's moments and step count as its own.
    """
    parameter = torch.nn.Parameter(vector, requires_grad=True)
    optimizer: torch.optim.Optimizer
    if config.optimizer == "adam":
        optimizer = torch.optim.Adam(
            [parameter], lr=config.learning_rate, eps=config.optimizer_eps, fused=True
        )
    else:
        optimizer = torch.optim.RMSprop(
            [parameter], lr=config.learning_rate, alpha=RMSPROP_ALPHA, eps=config.optimizer_eps
        )
    if share_state_of is None:
        state = {name: torch.zeros_like(vector) for name in _MOMENTS[config.optimizer]}
        state["step"] = torch.tensor(0.0)
    else:
        (state,) = share_state_of.state.values()
    optimizer.state[parameter] = state
    return optimizer


def optimizer_tensors(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The state of optimizers that hold consecutive shards, joined to flat vectors."""
    states = [next(iter(optimizer.state.values())) for optimizer in optimizers]
    joined = {
        name: torch.cat([state[name] for state in states]) for name in states[0] if name != "step"
    }
    joined["step"] = states[0]["step"].clone()
    return joined
