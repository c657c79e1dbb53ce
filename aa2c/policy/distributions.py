"""Action distributions: what the policy head's outputs mean, for acting and for learning alike.

A distribution is added here: a class with the methods of `Distribution`, an action type that makes
it, and a row in `action_type`. Nothing outside this room knows what a logit is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from aa2c.envs.spec import EnvSpec

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


@dataclass(frozen=True)
class Discrete:
    """One of `n` actions."""

    n: int

    @property
    def num_outputs(self) -> int:
        """Of the policy head, for each row."""
        return self.n

    def distribution(self, outputs: Tensor, mask: Tensor | None = None) -> Distribution:
        """The distributions that the head's outputs [..., num_outputs] mean."""
        return Categorical(outputs, mask)


def action_type(spec: EnvSpec) -> Discrete:
    """What an environment's actions look like to its policy."""
    return Discrete(spec.num_actions)
