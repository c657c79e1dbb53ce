"""Losses: pure functions on torch tensors, of the valid rows only."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from aa2c.policy.distributions import Distribution


class Losses(NamedTuple):
    """`total` is what is differentiated; then its parts, without their weights, and how good values are."""

    total: Tensor
    policy: Tensor
    value: Tensor
    entropy: Tensor
    explained_variance: Tensor


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
    explained = explained_variance(values.detach(), returns, valid)
    return Losses(policy + vf_coef * value - ent_coef * entropy, policy, value, entropy, explained)


class PpoLosses(NamedTuple):
    """As `Losses`, and how far the policy has moved from the one that acted.

    `approx_kl` estimates KL(acted || learning) in nats, `ratio` is the mean probability ratio, and
    `clip_fraction` the share of ratios outside the clipping range.
    """

    total: Tensor
    policy: Tensor
    value: Tensor
    entropy: Tensor
    approx_kl: Tensor
    ratio: Tensor
    clip_fraction: Tensor


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

    # Masked before exp: a gradient through 0 * inf would be NaN.
    log_ratios = torch.where(weights > 0, distribution.log_prob(actions) - old_log_probs, 0.0)
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
        ratio = total_of(ratios)
        clip_fraction = total_of(((ratios - 1).abs() > clip_coef).float())
    total = policy + vf_coef * value - ent_coef * entropy
    return PpoLosses(total, policy, value, entropy, approx_kl, ratio, clip_fraction)


def _value_errors(values: Tensor, returns: Tensor, kind: Literal["mse", "huber"]) -> Tensor:
    if kind == "huber":
        return functional.huber_loss(values, returns, reduction="none")
    return (returns - values).square()


def explained_variance(values: Tensor, returns: Tensor, valid: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns) over the valid rows of [N], as in SB3 and CleanRL.

    NaN where returns do not vary, or where there are none.
    """
    chosen = valid.numpy() > 0  # NumPy: a third of torch's cost on arrays as small as a rollout
    true = returns.numpy()[chosen]
    with np.errstate(all="ignore"):  # what is not finite is the guard's to tell
        residuals = true - values.numpy()[chosen]
        true, residuals = (x - x.mean() if len(x) else x for x in (true, residuals))
        variance = true.dot(true)
        explained = 1 - residuals.dot(residuals) / variance if variance > 0 else math.nan
    return torch.tensor(explained, dtype=torch.float32)


def share_left(grad_norm: float, max_grad_norm: float) -> float:
    """The share of a gradient of this norm that clipping to `max_grad_norm` (0: off) leaves."""
    return 1.0 if not max_grad_norm or grad_norm <= max_grad_norm else max_grad_norm / grad_norm


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Mean of `x` [N] over the rows whose `valid` is 1; 0 if there are none."""
    return torch.where(valid > 0, x, 0.0).sum() / valid.sum().clamp(min=1)
