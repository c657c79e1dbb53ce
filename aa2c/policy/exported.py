"""A policy as one graph of tensors, for programs without aa2c: raw observations in, actions out."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from aa2c.envs.spec import ActionSpec, Continuous, Discrete, Joint
from aa2c.policy.fast_cpu import ChosenPrecision
from aa2c.policy.normalization import OBS_LIMIT, Units
from aa2c.policy.policy import Policy

MOST_ROWS = 65536


class Exported(nn.Module):
    """Most probable actions, in float32, as members of the environment's space.

    Of rows of observations [N, …], a mask [N, A] if `is_masked`, and the state [N, H] that a memory
    begins with: one tensor of actions [N, …], or one of each part of a Tuple or Dict, in its order;
    values [N]; the state after.
    """

    def __init__(self, policy: Policy, actions: ActionSpec, *, is_masked: bool = False) -> None:
        super().__init__()
        self._policy = copy.deepcopy(policy).requires_grad_(requires_grad=False)
        self._policy.precision = ChosenPrecision(torch.float32, "it is exported")
        self._actions = actions
        self._is_masked = is_masked

    def forward(self, obs: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        policy, state = self._policy, given[self._is_masked :]
        features = policy.trunk(policy.prepare(obs, policy.units(obs), _normalize))
        if policy.memory is not None:
            hidden, state = policy.memory.stretch(features.unsqueeze(0), state)
            features = hidden.squeeze(0)
        outputs, values = policy.heads(features)
        mask = given[0] if self._is_masked else None
        chosen = policy.actions.distribution(outputs, mask).mode()
        return (*in_space(self._actions, chosen), values, *state)


def _normalize(obs: Tensor, units: Units, dtype: torch.dtype) -> Tensor:
    """As `normalize`, whose loop over blocks of rows has no place in a graph."""
    return ((obs.float() - units.mean) * units.factor).clamp(-OBS_LIMIT, OBS_LIMIT)


def in_space(spec: ActionSpec, actions: Tensor) -> tuple[Tensor, ...]:
    """A policy's actions [N, …] as an environment's, as `envs.actions.to_space` gives each."""
    match spec:
        case Discrete():
            return ((actions.long() + spec.start).to(getattr(torch, spec.dtype)),)
        case Continuous():
            low, high = (
                torch.tensor(bound, dtype=torch.float64) for bound in (spec.low, spec.high)
            )
            taken = actions.double()
            if spec.is_squashed:
                taken = low + (taken.tanh() + 1) / 2 * (high - low)
            taken = taken.clamp(low, high).to(getattr(torch, spec.dtype))
            return (taken.reshape(-1, *spec.shape),)
        case Joint():
            columns = torch.split(actions, list(spec.widths), -1)
            pairs = zip(spec.parts, columns, strict=True)
            parts = [in_space(part, column.reshape(-1, *part.leaf.shape)) for part, column in pairs]
            if spec.shape:
                joined = torch.stack([part for (part,) in parts], -1)
                return (joined.reshape(-1, *spec.shape),)
            return tuple(tensor for part in parts for tensor in part)
    return (actions.to(torch.int8).reshape(-1, *spec.shape),)


def export(module: Exported, inputs: Sequence[Tensor]) -> ExportedProgram:
    """The graph for any number of rows, traced with these inputs, as many rows each.

    Raises whatever torch raises for a network of a user's that it cannot trace.
    """
    rows = Dim("rows", max=MOST_ROWS)
    shapes = [{0: rows} for _ in inputs]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", message="The tensor attributes .*_flat_weights")
        return torch.export.export(
            module.eval(),
            tuple(inputs),
            dynamic_shapes=(shapes[0], tuple(shapes[1:])) if len(inputs) > 1 else (shapes[0],),
        )


def action_names(spec: ActionSpec, name: str = "action") -> list[str]:
    """Of what `in_space` gives: "action", or one of each part, such as "action_arm_0"."""
    if not isinstance(spec, Joint) or spec.shape:
        return [name]
    own = spec.names or range(len(spec.parts))
    pairs = zip(own, spec.parts, strict=True)
    return [found for key, part in pairs for found in action_names(part, f"{name}_{key}")]


def input_names(module: Exported) -> list[str]:
    """Of what `Exported` is called with."""
    policy = module._policy
    states = ["state_h", "state_c"][: policy.memory.num_states if policy.memory else 0]
    return ["obs", *(["action_mask"] if module._is_masked else []), *states]
