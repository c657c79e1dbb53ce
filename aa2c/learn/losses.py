"""Losses: pure functions on torch tensors. Every reduction is the mean over the valid rows."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from aa2c.policy.distributions import Distribution


class Losses(NamedTuple):
    """`total` is what is differentiated; the others are its parts, without their weights."""

    total: Tensor
    policy: Tensor
    value: Tensor
    entropy: Tensor


def a2c_loss(
    distribution: Distribution,
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

    All are [N]; `advantages` and `returns` are constants. `valid` is 0 on
    reset rows and 1 elsewhere. The policy loss is -mean(log pi(a) * advantage), the value loss
    mean((return - value)^2) without a factor of a half (Huber: with delta 1), and the entropy is
    in nats.
    """
    chosen = distribution.log_prob(actions)
    # Masked before the product: a gradient through 0 * NaN would be NaN.
    policy = -masked_mean(chosen * torch.where(valid > 0, advantages, 0.0), valid)
    entropy = masked_mean(distribution.entropy(), valid)
    value = masked_mean(_value_errors(values, returns, value_loss), valid)
    return Losses(policy + vf_coef * value - ent_coef * entropy, policy, value, entropy)


class PpoLosses(NamedTuple):
    """As `Losses`, and `approx_kl`, an estimate of KL(acted || learning) in nats."""

    total: Tensor
    policy: Tensor
    value: Tensor
    entropy: Tensor
    approx_kl: Tensor


def ppo_loss(
    distribution: Distribution,
    values: Tensor,
    actions: Tensor,
    old_log_probs: Tensor,
    old_values: Tensor,
    advantages: Tensor,
    returns: Tensor,
    weights: Tensor,
    *,
    clip_coef: float,
    clip_vloss: bool,
    vf_coef: float,
    ent_coef: float,
    value_loss: Literal["mse", "huber"],
) -> PpoLosses:
    """Clipped surrogate loss of PPO (arXiv:1707.06347, eq. 7 and 9).

    All are [N]; all but `distribution` and `values` are constants. Every part is
    a sum weighted by `weights`: 1 / (number of valid rows of the batch) on valid rows and 0 on
    reset rows makes means, and lets the parts of a batch be computed apart and added.
    `approx_kl` is mean((ratio - 1) - log ratio) (Schulman, joschu.net/blog/kl-approx.html).
    """

    def total_of(x: Tensor) -> Tensor:
        return torch.where(weights > 0, x * weights, 0.0).sum()

    log_ratios = distribution.log_prob(actions) - old_log_probs
    ratios = log_ratios.exp()
    clipped = ratios.clamp(1 - clip_coef, 1 + clip_coef)
    policy = -total_of(torch.minimum(ratios * advantages, clipped * advantages))
    entropy = total_of(distribution.entropy())
    errors = _value_errors(values, returns, value_loss)
    if clip_vloss:
        near = old_values + (values - old_values).clamp(-clip_coef, clip_coef)
        errors = torch.maximum(errors, _value_errors(near, returns, value_loss))
    value = total_of(errors)
    with torch.no_grad():
        approx_kl = total_of(ratios - 1 - log_ratios)
    total = policy + vf_coef * value - ent_coef * entropy
    return PpoLosses(total, policy, value, entropy, approx_kl)


def _value_errors(values: Tensor, returns: Tensor, kind: Literal["mse", "huber"]) -> Tensor:
    if kind == "huber":
        return functional.huber_loss(values, returns, reduction="none")
    return (returns - values).square()


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Mean of `x` [N] over the rows whose `valid` is 1; 0 if there are none."""
    return torch.where(valid > 0, x, 0.0).sum() / valid.sum().clamp(min=1)
