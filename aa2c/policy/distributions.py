"""Action distributions, for acting and for learning alike.

A distribution is added here: a class with the methods of `Distribution`. What makes it of a policy
head's outputs stands in `aa2c.policy.actions`. Nothing outside this room knows what a logit is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
QUADRATURE_NODES = 64
ILLEGAL = -1e8  # the logit of a masked action: its probability is 0, and nothing becomes NaN


class Distribution(Protocol):
    """A batch of distributions over actions, of any leading dimensions [...].

    Log-probs, entropy and KL are [...], in float32 and nats.
    """

    def sample(self, generator: torch.Generator) -> Tensor:
        """One action each, [..., *shape]."""

    def mode(self) -> Tensor:
        """The most probable action of each, [..., *shape]."""

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log-probs of actions [..., *shape]."""

    def entropy(self) -> Tensor: ...

    def kl(self, other: Distribution) -> Tensor:
        """KL(self || other). Raises `TypeError` for a distribution of another kind."""


class Categorical:
    """Over 0 … A-1, from logits [..., A]. `mask` [..., A] is False where an action is illegal."""

    def __init__(self, logits: Tensor, mask: Tensor | None = None) -> None:
        self._logits = logits if mask is None else torch.where(mask, logits, ILLEGAL)

    @cached_property
    def _log_probs(self) -> Tensor:
        return self._logits.float().log_softmax(-1)

    def sample(self, generator: torch.Generator) -> Tensor:
        """By the Gumbel-max trick."""
        noise = torch.empty_like(self._logits).exponential_(generator=generator)
        return (self._logits - noise.log_()).argmax(-1)

    def mode(self) -> Tensor:
        return self._logits.argmax(-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        return self._log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        return -(self._log_probs.exp() * self._log_probs).sum(-1)

    def kl(self, other: Distribution) -> Tensor:
        if not isinstance(other, Categorical):
            raise TypeError(f"no KL between Categorical and {type(other).__name__}")
        difference = self._log_probs - other._log_probs
        return (self._log_probs.exp() * difference).sum(-1)


class Bernoulli:
    """Over {0, 1}^n, from logits [..., n]: each is 1 by itself. Actions are int64 [..., n]."""

    def __init__(self, logits: Tensor) -> None:
        self._logits = logits.float()

    def sample(self, generator: torch.Generator) -> Tensor:
        drawn = torch.empty_like(self._logits).uniform_(generator=generator)
        return (drawn < self._logits.sigmoid()).long()

    def mode(self) -> Tensor:
        return (self._logits > 0).long()

    def log_prob(self, actions: Tensor) -> Tensor:
        # softplus(-x) and softplus(x) are -log of the chances of 1 and of 0.
        signs = 1.0 - 2.0 * actions.float()
        return -functional.softplus(signs * self._logits).sum(-1)

    def entropy(self) -> Tensor:
        p = self._logits.sigmoid()
        return (functional.softplus(self._logits) - p * self._logits).sum(-1)

    def kl(self, other: Distribution) -> Tensor:
        if not isinstance(other, Bernoulli):
            raise TypeError(f"no KL between Bernoulli and {type(other).__name__}")
        p = self._logits.sigmoid()
        ones = p * (functional.softplus(-other._logits) - functional.softplus(-self._logits))
        zeros = (1 - p) * (functional.softplus(other._logits) - functional.softplus(self._logits))
        return (ones + zeros).sum(-1)


class Gaussian:
    """Independent normal distributions over R^n, from means and log stds [..., n]."""

    def __init__(self, means: Tensor, log_stds: Tensor) -> None:
        self._means = means.float()
        self._log_stds = log_stds.float()

    def sample(self, generator: torch.Generator) -> Tensor:
        noise = torch.empty_like(self._means).normal_(generator=generator)
        return self._means + noise * self._log_stds.exp()

    def mode(self) -> Tensor:
        return self._means

    def log_prob(self, actions: Tensor) -> Tensor:
        errors = (actions - self._means) * (-self._log_stds).exp()
        return -(0.5 * errors.square() + self._log_stds + HALF_LOG_2PI).sum(-1)

    def entropy(self) -> Tensor:
        return (self._log_stds + HALF_LOG_2PI + 0.5).expand_as(self._means).sum(-1)

    def kl(self, other: Distribution) -> Tensor:
        if not isinstance(other, Gaussian):
            raise TypeError(f"no KL between {type(self).__name__} and {type(other).__name__}")
        variances = (2 * (self._log_stds - other._log_stds)).exp()
        errors = (self._means - other._means) * (-other._log_stds).exp()
        logs = other._log_stds - self._log_stds
        return (logs + 0.5 * (variances + errors.square() - 1)).sum(-1)


class SquashedGaussian(Gaussian):
    """tanh of a `Gaussian`, in (-1, 1)^n (arXiv:1801.01290, appendix C).

    Actions are kept as they were before tanh, where nothing is lost to rounding. Log-probs are the
    densities of what comes after it. Its entropy has no closed form: it is integrated by Gauss-Hermite
    quadrature, one dimension at a time. tanh is a bijection, so KL is the Gaussians'.
    """

    def log_prob(self, actions: Tensor) -> Tensor:
        return super().log_prob(actions) - _log_slope(actions).sum(-1)

    def entropy(self) -> Tensor:
        nodes, weights = _quadrature()
        actions = self._means + self._log_stds.exp() * nodes.view(-1, *[1] * self._means.dim())
        slopes = torch.tensordot(weights, _log_slope(actions), 1)
        entropy: Tensor = super().entropy() + slopes.sum(-1)
        return entropy


def _log_slope(x: Tensor) -> Tensor:
    """log(1 - tanh(x)^2), exact where tanh is 1 in float32."""
    return 2 * (math.log(2) - x - functional.softplus(-2 * x))


@functools.cache
def _quadrature() -> tuple[Tensor, Tensor]:
    """Nodes and weights [Q] of the mean over a standard normal distribution."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(QUADRATURE_NODES)
    weights = weights / weights.sum()
    return torch.tensor(nodes, dtype=torch.float32), torch.tensor(weights, dtype=torch.float32)


class Product:
    """Independent distributions side by side; the actions [..., sum of widths] of all in one row.

    `widths` are the columns of each one's actions; a `Categorical`'s has one.
    """

    def __init__(self, parts: Sequence[Distribution], widths: Sequence[int]) -> None:
        self._parts = parts
        self._widths = list(widths)

    def sample(self, generator: torch.Generator) -> Tensor:
        return self._join([part.sample(generator) for part in self._parts])

    def mode(self) -> Tensor:
        return self._join([part.mode() for part in self._parts])

    def _join(self, actions: Sequence[Tensor]) -> Tensor:
        columns = [
            action.unsqueeze(-1) if isinstance(part, Categorical) else action
            for part, action in zip(self._parts, actions, strict=True)
        ]
        dtype = functools.reduce(torch.promote_types, [column.dtype for column in columns])
        return torch.cat([column.to(dtype) for column in columns], -1)

    def log_prob(self, actions: Tensor) -> Tensor:
        columns = torch.split(actions, self._widths, -1)
        total = torch.zeros(actions.shape[:-1])
        for part, own in zip(self._parts, columns, strict=True):
            is_one = isinstance(part, Categorical)
            total = total + part.log_prob(own.squeeze(-1).long() if is_one else own)
        return total

    def entropy(self) -> Tensor:
        return torch.stack([part.entropy() for part in self._parts]).sum(0)

    def kl(self, other: Distribution) -> Tensor:
        if not isinstance(other, Product) or len(other._parts) != len(self._parts):
            raise TypeError(f"no KL between Product and {type(other).__name__}")
        pairs = zip(self._parts, other._parts, strict=True)
        return torch.stack([one.kl(two) for one, two in pairs]).sum(0)
