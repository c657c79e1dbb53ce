"""The policy: one network that acts and learns, whatever its trunk and its action distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from aa2c.envs.observations import Layout
from aa2c.policy.actions import ActionType
from aa2c.policy.distributions import Distribution
from aa2c.policy.encoders import numbers_of, with_numbers
from aa2c.policy.fast_cpu import Acting, ChosenPrecision, evaluate_in
from aa2c.policy.layers import ScaledConv2d
from aa2c.policy.memory import State
from aa2c.policy.normalization import (
    REWARD_LIMIT,
    Floats,
    RunningMeanStd,
    Statistics,
    Units,
    normalize,
)
from aa2c.policy.parts import Parts

NO_CONVOLUTIONS = ChosenPrecision(torch.float32, "the network has no convolutions")

Normalize = Callable[[Tensor, Units, torch.dtype], Tensor]


class Acted(NamedTuple):
    """One step of N environments: actions, outputs [N, P], values [N], and the next state."""

    actions: Tensor
    outputs: Tensor
    values: Tensor
    state: State


class Evaluated(NamedTuple):
    """Distributions and values [N], with a graph where it is on, and the state after the sequence."""

    distribution: Distribution
    values: Tensor
    state: State


class Policy(nn.Module):
    """An actor-critic network: `step` acts with it, `evaluate` learns from it.

    `forward(obs)` gives outputs [N, P] and values [N] of raw observations [N, …] that stand alone.
    With `obs_rms` the trunk sees observations normalized by their running mean and std; with
    `reward_rms` it learns from rewards scaled by the running std of discounted returns, and its values
    are in that unit; with `return_rms` the value head learns normalized returns, and its values are
    given unscaled.
    `memory`, if there is one, stands between trunk and heads. With `layout` observations are rows
    that the trunk unpacks; only their numbers are normalized.
    """

    def __init__(
        self,
        actions: ActionType,
        parts: Parts,
        obs_scale: float,
        layout: Layout | None = None,
    ) -> None:
        super().__init__()
        self.actions = actions
        self.trunk = parts.trunk
        self.memory = parts.memory
        self.policy = parts.policy
        self.value = parts.value
        self.free = nn.Parameter(torch.zeros(actions.num_free)) if actions.num_free else None
        self.obs_rms: RunningMeanStd | None = None
        self.reward_rms: RunningMeanStd | None = None
        self.return_rms: RunningMeanStd | None = None
        self.precision = NO_CONVOLUTIONS
        self._obs_scale = obs_scale
        self.layout = layout
        # The trunk then divides by obs_scale itself.
        self._divides = any(
            isinstance(layer, ScaledConv2d) and layer.divisor != 1 for layer in self.trunk.modules()
        )
        self._acting: Acting | None = None

    def initial_state(self, rows: int) -> State:
        """What is remembered at the beginning of so many episodes: nothing."""
        return self.memory.initial(rows) if self.memory is not None else ()

    def pack(self) -> None:
        """Take the parameters, as they are now, for the steps that follow."""
        self.acting()

    def step(
        self,
        obs: Tensor,
        state: State,
        is_first: Tensor,
        mask: Tensor | None = None,
        *,
        generator: torch.Generator,
    ) -> Acted:
        """Act on raw observations [N, …], after `pack` and without a gradient.

        `is_first` [N] is true where an episode begins, so that nothing is remembered there. `mask`
        [N, A] is False where an action is illegal.
        """
        assert self._acting is not None, "pack first"
        outputs, values, state = self._acting(obs, state, is_first)
        actions = self.actions.distribution(outputs, mask).sample(generator)
        return Acted(actions, outputs, values, state)

    def bootstrap(self, obs: Tensor, state: State, is_first: Tensor) -> Tensor:
        """Values [N] of the observations that follow the last step, as `step` gives them."""
        assert self._acting is not None, "pack first"
        return self._acting(obs, state, is_first)[1]

    def evaluate(
        self,
        obs: Tensor,
        state: State = (),
        is_first: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Evaluated:
        """Distributions and values of raw observations [N, …].

        With a memory the rows are a sequence, N = T * B time first, `state` [B, H] is that at its
        start, and `is_first` [T, B]. Without one they stand alone, in any order.
        """
        outputs, values, state = self.outputs(obs, state, is_first)
        return Evaluated(self.actions.distribution(outputs, mask), values, state)

    def outputs(
        self, obs: Tensor, state: State = (), is_first: Tensor | None = None
    ) -> tuple[Tensor, Tensor, State]:
        """What `evaluate` makes distributions of: outputs [N, P]; values, and the state after."""
        features = self._features(obs)
        if self.memory is not None:
            assert is_first is not None
            sequence = features.view(*is_first.shape, -1)
            hidden, state = self.memory(sequence, state, is_first)
            features = hidden.flatten(0, 1)
        return *self.heads(features), state

    def log_probs(
        self, steps: Sequence[Acted], actions: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Log-probs [T, N] of the actions [T, N, …] that were taken in T steps, of the legal ones."""
        outputs = torch.stack([step.outputs for step in steps])
        return self.actions.distribution(outputs, mask).log_prob(actions)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        rows = len(obs)
        is_first = torch.ones(1, rows, dtype=torch.bool)
        return self.outputs(obs, self.initial_state(rows), is_first)[:2]

    def _features(self, obs: Tensor) -> Tensor:
        inputs = self.prepare(obs, self.units(obs))
        return evaluate_in(self.precision.dtype, self.trunk, inputs)

    def heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [N, P] and values [N] of features [N, F], or of what the memory makes of them."""
        values = self.value(features).squeeze(-1)
        if self.return_rms is not None:
            values = values * self.return_rms.std + self.return_rms.mean
        return self.complete(self.policy(features)), values

    def complete(self, outputs: Tensor) -> Tensor:
        """The policy head's outputs [N, …], and after them the free numbers."""
        if self.free is None:
            return outputs
        return torch.cat([outputs, self.free.expand(*outputs.shape[:-1], -1)], -1)

    def acting(self) -> Acting:
        """What gives the same, without a gradient, for many small batches that follow.

        It is the network as it is at the first of them.
        """
        if self._acting is None:
            self._acting = Acting(self)
        self._acting.load()
        return self._acting

    def units(self, obs: Tensor) -> Units | None:
        """In which the trunk sees observations like these, if in any but those of `obs_scale`."""
        if self.obs_rms is None:
            return None
        return self.obs_rms.units(self._numbers(obs), self._obs_scale)

    def prepare(self, obs: Tensor, units: Units | None, normalize: Normalize = normalize) -> Tensor:
        """What the trunk sees of raw observations [N, …]."""
        if self.layout is not None:
            if units is None:
                return obs
            numbers = normalize(self._numbers(obs), units, torch.float32)
            return with_numbers(self.layout, obs, numbers)
        if units is not None:
            return normalize(obs, units, self.precision.dtype)
        if self._divides:
            return obs.to(self.precision.dtype)  # which would come later anyway
        return self._scale(obs)

    def _numbers(self, obs: Tensor) -> Tensor:
        """What can be normalized of raw observations [N, …]."""
        return obs if self.layout is None else numbers_of(self.layout, obs)

    def _scale(self, obs: Tensor) -> Tensor:
        scaled = obs.float()
        if self._obs_scale != 1:
            scaled = scaled.div_(self._obs_scale) if scaled is not obs else obs / self._obs_scale
        return scaled

    def observe(self, obs: Tensor) -> None:
        """Let raw observations [N, …] count in the running mean and std, if there are any."""
        if self.obs_rms is not None:
            self.obs_rms.update(self.normalized_rows(obs))

    def normalized_rows(self, obs: Tensor) -> Tensor:
        """The floats [N, *shape] of raw observations [N, …] that are normalized."""
        return self._scale(self._numbers(obs))

    def scale_rewards(self, rewards: Floats, unsent: Statistics | None = None) -> Floats:
        """Rewards in stds of the discounted return, cut at `REWARD_LIMIT`, if they are to be scaled.

        `unsent` are the statistics of returns that are yet to count in the running std.
        """
        if self.reward_rms is None:
            return rewards
        seen = self.reward_rms.statistics
        std = float((seen if unsent is None else seen.merged(unsent)).std)
        scaled: Floats = np.clip(rewards / std, -REWARD_LIMIT, REWARD_LIMIT)
        return scaled

    @torch.no_grad()
    def observe_returns(self, returns: Tensor) -> None:
        """Let returns [N] count in the running mean and std, if there are any.

        The last layer of the value is changed so that it gives the same values as before
        (PopArt, arXiv:1602.07714, eq. 9 and 10).
        """
        rms = self.return_rms
        if rms is None:
            return
        last = self.value[-1] if isinstance(self.value, nn.Sequential) else self.value
        assert isinstance(last, nn.Linear)
        before, mean_before = rms.std, rms.mean.clone()
        rms.update(returns.unsqueeze(-1))
        last.weight *= before / rms.std
        last.bias.copy_((before * last.bias + mean_before - rms.mean) / rms.std)

    @property
    def value_unit(self) -> Tensor:
        """The std of returns in whose units the value head learns, [1]."""
        return torch.ones(1) if self.return_rms is None else self.return_rms.std

    @property
    def unit_of_loss(self) -> float:
        """What one unit of the value loss's errors is in clipped rewards."""
        of_rewards = 1.0 if self.reward_rms is None else float(self.reward_rms.std)
        return of_rewards if self.return_rms is None else of_rewards * float(self.return_rms.std)
