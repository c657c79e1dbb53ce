"""Networks of a user's own: a trunk, or a whole policy with heads and a state.

Both are modules that a function makes which --network names, or is. It is called with the shape of an
observation; of a Dict or Tuple, with its parts' shapes as the space has them. If it has a parameter
`num_outputs` the module is a whole policy, else a trunk. A trunk maps observations to features
[N, F]. A policy maps them to outputs [N, num_outputs] and values [N]; with --memory own it takes a
state [N, memory_size] as well, zeros where an episode begins, and gives the next as a third.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from aa2c.config.config import Config
from aa2c.config.factory import is_factory, load_code
from aa2c.envs.failure import one_line, shown
from aa2c.envs.observations import Several, layout_of, map_leaves
from aa2c.envs.spec import EnvSpec
from aa2c.errors import Aa2cError, StartError
from aa2c.policy.actions import ActionType
from aa2c.policy.encoders import Flattened, Named
from aa2c.policy.layers import linear
from aa2c.policy.memory import Recurrent, State
from aa2c.policy.parts import Parts, Trunk, with_heads

NUM_OUTPUTS, MEMORY_SIZE = "num_outputs", "memory_size"
PROBES = 2  # observations that a module is tried with


class Whole(nn.Module):
    """A user's policy without a state as a trunk: outputs and values side by side, [N, P + 1]."""

    def __init__(self, module: nn.Module, num_outputs: int) -> None:
        super().__init__()
        self.module = module
        self._num_outputs = num_outputs

    def forward(self, obs: Any) -> Tensor:
        outputs, values = self.module(obs)
        return _beside(outputs, values, self._num_outputs)


class OwnMemory(Recurrent):
    """A user's policy with a state: of flat observations, outputs and values side by side."""

    num_states = 1

    def __init__(self, module: nn.Module, see: nn.Module, num_outputs: int, size: int) -> None:
        """`see` makes of flat observations [N, F] what the module takes."""
        super().__init__(size)
        self.module = module
        self.see = see
        self._num_outputs = num_outputs

    def stretch(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        rows = []
        for obs in features:
            outputs, values, after = self.module(self.see(obs), *state)
            state = (after,)
            rows.append(_beside(outputs, values, self._num_outputs))
        return torch.stack(rows), state


def _beside(outputs: Tensor, values: Tensor, num_outputs: int) -> Tensor:
    return torch.cat([outputs.reshape(-1, num_outputs), values.reshape(-1, 1)], 1)


class Columns(nn.Module):
    """Some of the columns [N, P]."""

    def __init__(self, begin: int, end: int) -> None:
        super().__init__()
        self._begin, self._end = begin, end

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self._begin : self._end]


class _Misfit(Exception):
    """What a module does, and what it should do."""


def is_own(network: str) -> bool:
    """Whether --network is a user's own."""
    return ":" in network or is_factory(network)


def own_parts(config: Config, spec: EnvSpec, actions: ActionType) -> Parts:
    """The modules of a user's network. Raises `StartError` for one that does not fit, in a sentence."""
    name = config.network
    try:
        function = load_code("--network", name)
        options = _options(function, config, actions)
        module = function(_shapes(spec), **options)
        if not isinstance(module, nn.Module):
            raise _Misfit(f"makes {shown(module)}, and not a torch.nn.Module")
        if NUM_OUTPUTS in options:
            return _whole(config, spec, module, actions.num_outputs)
        return with_heads(config, actions, _trunk(config, spec, module))
    except Aa2cError:
        raise
    except _Misfit as misfit:
        raise StartError(f"--network {name} {misfit}.") from None
    except (Exception, SystemExit) as error:  # it is not our code
        raise StartError(f"--network {name}: {type(error).__name__}: {one_line(error)}") from error


def _options(function: Callable[..., Any], config: Config, actions: ActionType) -> dict[str, int]:
    """What a function is called with beside the shape: what it has parameters for."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # it is written in C
        return {}
    given = {NUM_OUTPUTS: actions.num_outputs, MEMORY_SIZE: config.memory_size}
    options = {name: given[name] for name in given if name in parameters}
    if MEMORY_SIZE in options and config.memory != "own":
        raise _Misfit(f"has a parameter {MEMORY_SIZE}: it needs --memory own")
    return options


def _shapes(spec: EnvSpec) -> Any:
    """Of one observation, or of its parts as a Dict or Tuple has them."""
    if not isinstance(spec.obs, Several):
        return spec.obs_shape
    return map_leaves(spec.obs, lambda leaf: leaf.network_shape)


def _eyes(config: Config, spec: EnvSpec) -> tuple[nn.Module, nn.Module]:
    """What makes flat floats of observations as the policy has them, and of those what a module takes."""
    if isinstance(spec.obs, Several):
        return Flattened(layout_of(spec.obs), config.obs_scale), Named(spec.obs)
    return nn.Flatten(), nn.Unflatten(1, spec.obs_shape)


def _trunk(config: Config, spec: EnvSpec, module: nn.Module) -> Trunk:
    """A user's trunk, which takes observations of a Box without a detour."""
    layers = module
    if isinstance(spec.obs, Several):
        layers = nn.Sequential(*_eyes(config, spec), module)
    with torch.no_grad():
        features = layers(_probe(spec))
    if not isinstance(features, Tensor) or features.dim() != 2 or len(features) != PROBES:
        raise _Misfit(
            f"gives {_described(features)} for {PROBES} observations, and a trunk gives features "
            "[N, F], one row for each"
        )
    return Trunk(layers, features.shape[1], linear)


def _whole(config: Config, spec: EnvSpec, module: nn.Module, num_outputs: int) -> Parts:
    """A user's policy, with an affine layer behind its values where returns are normalized."""
    if config.memory not in ("none", "own"):
        raise _Misfit(
            "makes a whole policy, which has its state itself: use --memory own instead of --memory "
            f"{config.memory}"
        )
    flatten, see = _eyes(config, spec)
    state = (torch.zeros(PROBES, config.memory_size),) if config.memory == "own" else ()
    with torch.no_grad():
        _check(module(see(flatten(_probe(spec))), *state), num_outputs, *state)
    policy, value = Columns(0, num_outputs), nn.Sequential(Columns(num_outputs, num_outputs + 1))
    if config.norm_returns:
        value.append(_identity())
    if state:
        memory = OwnMemory(module, see, num_outputs, config.memory_size)
        return Parts(flatten, memory, policy, value, is_whole=True)
    whole = Whole(module, num_outputs)
    trunk = nn.Sequential(flatten, see, whole) if isinstance(spec.obs, Several) else whole
    return Parts(trunk, None, policy, value, is_whole=True)


def _identity() -> nn.Linear:
    """A layer that PopArt can adjust, without which its values would change."""
    layer = nn.Linear(1, 1)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _probe(spec: EnvSpec) -> Tensor:
    """Observations of zeros, as a policy gives them to its trunk."""
    is_packed = isinstance(spec.obs, Several) and spec.obs_dtype == "uint8"
    return torch.zeros(PROBES, *spec.obs_shape, dtype=torch.uint8 if is_packed else torch.float32)


def _check(given: Any, num_outputs: int, *state: Tensor) -> None:
    """Whether a policy gives outputs, values and, with one, the next state for the probes."""
    wanted: dict[str, list[tuple[int, ...]]] = {
        "outputs": [(PROBES, num_outputs)],
        "values": [(PROBES,), (PROBES, 1)],
        **({"state": [tuple(state[0].shape)]} if state else {}),
    }
    if not isinstance(given, tuple | list) or len(given) != len(wanted):
        raise _Misfit(
            f"gives {_described(given)}, and a policy {'with' if state else 'without'} a state gives "
            f"a tuple of {', '.join(wanted)}"
        )
    for (name, shapes), tensor in zip(wanted.items(), given, strict=True):
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) not in shapes:
            raise _Misfit(
                f"gives {_described(tensor)} as {name} for {PROBES} observations, and they need "
                f"shape {shapes[0]}"
            )


def _described(given: Any) -> str:
    if isinstance(given, Tensor):
        return f"a tensor of shape {tuple(given.shape)}"
    if isinstance(given, tuple | list):
        return f"{len(given)} values"
    return f"a {type(given).__name__}"
