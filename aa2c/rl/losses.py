"""Losses: pure functions on torch tensors. Every reduction is the mean over the valid rows."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Losses(NamedTuple):
    """`total` is what is differentiated; the others are its parts, without their weights."""

    total: Tensor
    policy: Tensor
    value: Tensor
    entropy: Tensor


def a2c_loss(
    logits: Tensor,
    values: Tensor,
    actions: Tensor,
    advantages: Tensor,
    returns: Tensor,
    valid: Tensor,
    *,
    vf_coef: float,
    ent_coef: float,
    value_loss: Literal["mse", "huber"],
) -> Losses:
    """Loss of advantage actor-critic (arXiv:1602.01783, section 4).

    `logits` are [N, A], all others [N]; `advantages` and `returns` are constants. `valid` is 0 on
    reset rows and 1 elsewhere. The policy loss is -mean(log pi(a) * advantage), the value loss
    mean((return - value)^2) without a factor of a half (Huber: with delta 1), and the entropy is
    in nats.
    """
    log_probs = functional.log_softmax(logits, dim=-1)
    chosen = log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    # Masked before the product: a gradient through 0 * NaN would be NaN.
    policy = -masked_mean(chosen * torch.where(valid > 0, advantages, 0.0), valid)
    entropy = masked_mean(-(log_probs.exp() * log_probs).sum(-1), valid)
    if value_loss == "huber":
        value = masked_mean(functional.huber_loss(values, returns, reduction="none"), valid)
    else:
        value = masked_mean((returns - values).square(), valid)
    return Losses(policy + vf_coef * value - ent_coef * entropy, policy, value, entropy)


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Mean of `x` [N] over the rows whose `valid` is 1; 0 if there are none."""
    return torch.where(valid > 0, x, 0.0).sum() / valid.sum().clamp(min=1)
