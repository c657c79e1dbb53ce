"""The policy: one network that acts and learns, whatever its trunk and its action distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from aa2c.policy.distributions import Discrete, Distribution
from aa2c.policy.fast_cpu import Acting, Choice, evaluate_in
from aa2c.policy.layers import ScaledConv2d
from aa2c.policy.normalization import RunningMoments, Units, normalize

State = tuple[Tensor, ...]  # what a policy remembers, [N, …] each; empty without memory


class Acted(NamedTuple):
    """One step of N environments: actions, the head's outputs, values [N], and the next state."""

    actions: Tensor
    outputs: Tensor
    values: Tensor
    state: State


class Policy(nn.Module):
    """An actor-critic network: `step` acts with it, `evaluate` learns from it.

    `forward(obs)` gives the policy head's outputs [N, P] and values [N] of raw observations [N, …].
    With `obs_moments` the trunk sees observations normalized by their running mean and std; with
    `return_moments` the value head learns normalized returns, and its values are given unscaled.
    """

    def __init__(
        self,
        actions: Discrete,
        policy: nn.Module,
        value: nn.Module,
        trunk: nn.Module,
        obs_scale: float,
    ) -> None:
        super().__init__()
        self.actions = actions
        self.trunk = trunk
        self.policy = policy
        self.value = value
        self.obs_moments: RunningMoments | None = None
        self.return_moments: RunningMoments | None = None
        self.precision = Choice(torch.float32, "the network has no convolutions")
        self._obs_scale = obs_scale
        # The trunk then divides by obs_scale itself.
        self._divides = any(
            isinstance(layer, ScaledConv2d) and layer.divisor != 1 for layer in trunk.modules()
        )
        self._acting: Acting | None = None

    def pack(self) -> None:
        """Take the parameters, as they are now, for the steps that follow."""
        self.acting()

    def step(
        self,
        obs: Tensor,
        state: State,
        is_reset: Tensor,
        mask: Tensor | None = None,
        *,
        generator: torch.Generator,
    ) -> Acted:
        """Act on raw observations [N, …], after `pack` and without a gradient.

        `is_reset` [N] is true where an episode begins, so that nothing is remembered there. `mask`
        [N, A] is False where an action is illegal.
        """
        assert self._acting is not None, "pack first"
        outputs, values = self._acting(obs)
        actions = self.actions.distribution(outputs, mask).sample(generator)
        return Acted(actions, outputs, values, state)

    def bootstrap(self, obs: Tensor, state: State) -> Tensor:
        """Values [N] of the observations that follow the last step, as `step` gives them."""
        assert self._acting is not None, "pack first"
        return self._acting(obs)[1]

    def evaluate(
        self,
        obs: Tensor,
        state: State = (),
        is_reset: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Distribution, Tensor]:
        """Distributions and values [N] of raw observations [N, …], with a graph where it is on.

        Without a state rows stand alone, in any order.
        """
        outputs, values = self(obs)
        return self.actions.distribution(outputs, mask), values

    def log_probs(self, steps: Sequence[Acted], actions: Tensor) -> Tensor:
        """Log-probs [T, N] of the actions [T, N] that were taken in T steps."""
        outputs = torch.stack([step.outputs for step in steps])
        return self.actions.distribution(outputs).log_prob(actions)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        inputs = self.prepare(obs, self.units(obs))
        return self.heads(evaluate_in(self.precision.dtype, self.trunk, inputs))

    def heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [N, P] and values [N] of the trunk's features [N, F]."""
        values = self.value(features).squeeze(-1)
        if self.return_moments is not None:
            values = values * self.return_moments.deviation + self.return_moments.mean
        return self.policy(features), values

    def acting(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """What gives the same, without a gradient, for many small batches that follow.

        It is the network as it is at the first of them.
        """
        if self._acting is None:
            self._acting = Acting(self)
        self._acting.load()
        return self._acting

    def units(self, obs: Tensor) -> Units | None:
        """In which the trunk sees observations like these, if in any but those of `obs_scale`."""
        if self.obs_moments is None:
            return None
        return self.obs_moments.units(obs, self._obs_scale)

    def prepare(self, obs: Tensor, units: Units | None) -> Tensor:
        """What the trunk sees of raw observations [N, …]."""
        if units is not None:
            return normalize(obs, units, self.precision.dtype)
        if self._divides:
            return obs.to(self.precision.dtype)  # which would come later anyway
        return self._scale(obs)

    def _scale(self, obs: Tensor) -> Tensor:
        scaled = obs.float()
        if self._obs_scale != 1:
            scaled = scaled.div_(self._obs_scale) if scaled is not obs else obs / self._obs_scale
        return scaled

    def observe(self, obs: Tensor) -> None:
        """Let raw observations [N, …] count in the running moments, if there are any."""
        if self.obs_moments is not None:
            self.obs_moments.update(self._scale(obs))

    @torch.no_grad()
    def observe_returns(self, returns: Tensor) -> None:
        """Let returns [N] count in the running moments, if there are any.

        The last layer of the value is changed so that it gives the same values as before
        (PopArt, arXiv:1602.07714, eq. 9 and 10).
        """
        moments = self.return_moments
        if moments is None:
            return
        last = self.value[-1] if isinstance(self.value, nn.Sequential) else self.value
        assert isinstance(last, nn.Linear)
        before, mean_before = moments.deviation, moments.mean.clone()
        moments.update(returns.unsqueeze(-1))
        last.weight *= before / moments.deviation
        last.bias.copy_((before * last.bias + mean_before - moments.mean) / moments.deviation)

    @property
    def value_unit(self) -> Tensor:
        """The deviation of returns in whose units the value layer learns, [1]."""
        return torch.ones(1) if self.return_moments is None else self.return_moments.deviation
