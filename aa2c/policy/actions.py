"""Action types: what the policy head's outputs mean as a distribution, for each kind of action.

A policy's outputs are the head's, one row for each observation, and after them its free numbers, which
are learned and depend on no observation: log stds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from aa2c.envs.spec import ActionSpec, Continuous, Discrete, Joint, MultiBinary
from aa2c.policy.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Gaussian,
    Product,
    SquashedGaussian,
)


class ActionType(Protocol):
    """How many outputs a policy has, and what they mean.

    `num_mask` are the columns of an action mask, 0 where none can be given.
    """

    @property
    def num_outputs(self) -> int:
        """Of the policy head, for each row."""

    @property
    def num_free(self) -> int: ...

    @property
    def num_mask(self) -> int: ...

    def distribution(self, outputs: Tensor, mask: Tensor | None = None) -> Distribution:
        """The distributions that outputs [..., num_outputs + num_free] mean.

        `mask` [..., num_mask] is False where an action is illegal.
        """


@dataclass(frozen=True)
class Choice:
    """One of `n`."""

    n: int
    num_free = 0

    @property
    def num_outputs(self) -> int:
        return self.n

    @property
    def num_mask(self) -> int:
        return self.n

    def distribution(self, outputs: Tensor, mask: Tensor | None = None) -> Distribution:
        return Categorical(outputs, mask)


@dataclass(frozen=True)
class Switches:
    """`n` of 0 or 1."""

    n: int
    num_free = num_mask = 0

    @property
    def num_outputs(self) -> int:
        return self.n

    def distribution(self, outputs: Tensor, mask: Tensor | None = None) -> Distribution:
        return Bernoulli(outputs)


@dataclass(frozen=True)
class Reals:
    """`n` numbers with log stds that depend on no observation (arXiv:2006.05990, section 3.2)."""

    n: int
    is_squashed: bool
    num_mask = 0

    @property
    def num_outputs(self) -> int:
        return self.n

    @property
    def num_free(self) -> int:
        return self.n

    def distribution(self, outputs: Tensor, mask: Tensor | None = None) -> Distribution:
        kind = SquashedGaussian if self.is_squashed else Gaussian
        return kind(*torch.split(outputs, self.n, -1))


@dataclass(frozen=True)
class Together:
    """Several kinds in one row; of the outputs all heads come first, then all free numbers."""

    parts: Sequence[ActionType]
    widths: Sequence[int]

    @property
    def num_outputs(self) -> int:
        return sum(part.num_outputs for part in self.parts)

    @property
    def num_free(self) -> int:
        return sum(part.num_free for part in self.parts)

    @property
    def num_mask(self) -> int:
        """A mask covers all choices, or there is none."""
        return sum(part.num_mask for part in self.parts)

    def distribution(self, outputs: Tensor, mask: Tensor | None = None) -> Distribution:
        sizes = [part.num_outputs for part in self.parts] + [part.num_free for part in self.parts]
        columns, count = torch.split(outputs, sizes, -1), len(self.parts)
        masks: Sequence[Tensor | None] = [None] * count
        if mask is not None:
            cuts = torch.split(mask, [part.num_mask for part in self.parts], -1)
            masks = [cut if cut.shape[-1] else None for cut in cuts]
        made = [
            part.distribution(_beside(heads, free), own)
            for part, heads, free, own in zip(
                self.parts, columns[:count], columns[count:], masks, strict=True
            )
        ]
        return Product(made, self.widths)


def _beside(heads: Tensor, free: Tensor) -> Tensor:
    return torch.cat([heads, free], -1) if free.shape[-1] else heads


def action_type(spec: ActionSpec) -> ActionType:
    """What an environment's actions are to its policy."""
    match spec:
        case Discrete():
            return Choice(spec.n)
        case MultiBinary():
            return Switches(spec.n)
        case Continuous():
            return Reals(spec.n, spec.is_squashed)
        case Joint():
            return Together([action_type(part) for part in spec.parts], spec.widths)
