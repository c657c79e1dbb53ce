"""Networks: the trunks and heads that a policy is made of, by the name that --network gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from aa2c.config.config import Config
from aa2c.config.factory import is_factory, load_code
from aa2c.envs.spec import EnvSpec
from aa2c.errors import Aa2cError, StartError
from aa2c.policy.actions import action_type
from aa2c.policy.fast_cpu import choose_precision
from aa2c.policy.layers import (
    ChannelsFirst,
    FlattenPixels,
    ResidualBlock,
    convolution,
    orthogonal,
)
from aa2c.policy.memory import Memory
from aa2c.policy.normalization import RunningMeanStd, normalized_shape
from aa2c.policy.policy import Policy

NATURE_FILTERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # number, side and stride
A3C_FILTERS = ((16, 8, 4), (32, 4, 2))
CONVOLUTIONS_SMALLEST_SIDE = 36  # pixels that three convolutions need
IMPALA_SMALLEST_SIDE = 8  # pixels that its three poolings halve to one


class _Layers(NamedTuple):
    """A trunk, how many features it gives, and what makes a head: of inputs, outputs and gain."""

    trunk: nn.Module
    features: int
    head: Callable[[int, int, float], nn.Module]


def make_policy(config: Config, spec: EnvSpec) -> Policy:
    """The policy of --network for an environment. Raises `StartError` if it does not fit."""
    obs_scale = config.obs_scale or spec.obs_scale
    trunk, features, head = _make_layers(config, spec, 1.0 if config.norm_obs else obs_scale)
    memory = None
    if config.memory != "none":
        memory = Memory(config.memory, features, config.memory_size)
        features = config.memory_size
    actions = action_type(spec.actions)
    heads = head(features, actions.num_outputs, 0.01), head(features, 1, 1.0)
    policy = Policy(actions, *heads, trunk, obs_scale, memory)
    if any(isinstance(layer, nn.Conv2d) for layer in policy.trunk.modules()):
        policy.precision = choose_precision(config.precision)
    if config.norm_obs:
        policy.obs_rms = RunningMeanStd(normalized_shape(spec))
    if config.norm_rewards:
        policy.reward_rms = RunningMeanStd((1,))
    if config.norm_returns:
        policy.return_rms = RunningMeanStd((1,))
    return policy


def _make_layers(config: Config, spec: EnvSpec, divisor: float) -> _Layers:
    """The layers of --network, of inputs that are to be divided by `divisor`."""
    kind = config.network
    if kind == "auto":
        is_large = spec.is_image and _smallest_side(spec) >= CONVOLUTIONS_SMALLEST_SIDE
        kind = "nature" if is_large else "mlp"
    if kind in ("a3c", "nature", "document"):
        return _convolutional(kind, spec, divisor)
    if kind == "impala":
        return _residual(spec, divisor)
    if ":" in kind or is_factory(kind):
        return _users_own(kind, spec)
    return _mlp(config.hidden_sizes, spec, is_shared=config.memory != "none")


def _linear(inputs: int, outputs: int, gain: float) -> nn.Module:
    return orthogonal(nn.Linear(inputs, outputs), gain)


def _smallest_side(spec: EnvSpec) -> int:
    """Pixels of an image's shorter side."""
    sides = list(spec.obs_shape)
    del sides[_channel_axis(spec)]
    return min(sides)


def _channel_axis(spec: EnvSpec) -> int:
    """Of an image: the last one, if that is smaller than the first, else the first."""
    return 2 if spec.obs_shape[2] < spec.obs_shape[0] else 0


def _mlp(hidden_sizes: Sequence[int], spec: EnvSpec, *, is_shared: bool) -> _Layers:
    """Separate tanh networks for policy and value (arXiv:2006.05990, section 3.2).

    Under a memory, which both share, the hidden layers are shared, too.
    """

    def hidden(inputs: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for size in hidden_sizes:
            layers += [orthogonal(nn.Linear(inputs, size), math.sqrt(2)), nn.Tanh()]
            inputs = size
        return layers

    def tower(inputs: int, outputs: int, gain: float) -> nn.Module:
        return nn.Sequential(*hidden(inputs), _linear(hidden_sizes[-1], outputs, gain))

    inputs = math.prod(spec.obs_shape)
    if is_shared:
        return _Layers(nn.Sequential(nn.Flatten(), *hidden(inputs)), hidden_sizes[-1], _linear)
    return _Layers(nn.Flatten(), inputs, tower)


def _convolutional(kind: str, spec: EnvSpec, divisor: float) -> _Layers:
    """The convolutions of DQN and two heads.

    a3c: the small network of the first DQN (arXiv:1312.5602) and of A3C (arXiv:1602.01783, section
    8); nature: the larger one of doi:10.1038/nature14236; in both the heads share a layer.
    document: nature's convolutions, and each head has a layer of its own.
    """
    to_channels_first, channels = _see_image(kind, spec, CONVOLUTIONS_SMALLEST_SIDE)
    gain = math.sqrt(2)
    trunk = nn.Sequential(to_channels_first)
    for filters, side, stride in A3C_FILTERS if kind == "a3c" else NATURE_FILTERS:
        trunk.append(convolution(channels, filters, side, stride, divisor=divisor))
        trunk.append(nn.ReLU())
        channels, divisor = filters, 1.0
    trunk.append(FlattenPixels())
    features = _count_features(trunk, spec)
    units = 256 if kind == "a3c" else 512

    def hidden(inputs: int) -> nn.Sequential:
        return nn.Sequential(orthogonal(nn.Linear(inputs, units), gain), nn.ReLU())

    def head(inputs: int, outputs: int, gain: float) -> nn.Module:
        return hidden(inputs).append(_linear(units, outputs, gain))

    if kind == "document":
        return _Layers(trunk, features, head)
    return _Layers(trunk.extend(hidden(features)), units, _linear)


def _residual(spec: EnvSpec, divisor: float) -> _Layers:
    """The large network of IMPALA (arXiv:1802.01561, figure 3, right)."""
    to_channels_first, channels = _see_image("impala", spec, IMPALA_SMALLEST_SIDE)
    layers: list[nn.Module] = [to_channels_first]
    for width in (16, 32, 32):
        layers += [
            convolution(channels, width, divisor=divisor),
            nn.MaxPool2d(3, stride=2, padding=1),
        ]
        layers += [ResidualBlock(width), ResidualBlock(width)]
        channels, divisor = width, 1.0
    trunk = nn.Sequential(*layers, nn.ReLU(), FlattenPixels())
    hidden = orthogonal(nn.Linear(_count_features(trunk, spec), 256), math.sqrt(2))
    return _Layers(trunk.extend([hidden, nn.ReLU()]), 256, _linear)


def _users_own(name: str, spec: EnvSpec) -> _Layers:
    """Two heads on the features of a module that a user's function makes.

    It is called with the shape of an observation; its module maps scaled
    observations [N, *shape] to features [N, F]. Raises `StartError` if it does not.
    """
    try:
        trunk = load_code("--network", name)(spec.obs_shape)
        features = _count_features(trunk, spec)
    except Aa2cError:
        raise
    except Exception as error:  # it is not our code
        raise StartError(f"--network {name}: {type(error).__name__}: {error}") from error
    return _Layers(trunk, features, _linear)


def _see_image(kind: str, spec: EnvSpec, smallest_side: int) -> tuple[nn.Module, int]:
    """What brings an observation to [N, C, H, W], and C. Raises `StartError` if it is too small."""
    if len(spec.obs_shape) != 3 or _smallest_side(spec) < smallest_side:
        raise StartError(
            f"--network {kind} needs images of at least {smallest_side} pixels a side, "
            f"and --env gives {spec.obs_shape}: use --network mlp."
        )
    axis = _channel_axis(spec)
    return ChannelsFirst() if axis else nn.Identity(), spec.obs_shape[axis]


def _count_features(trunk: nn.Module, spec: EnvSpec) -> int:
    with torch.no_grad():
        return int(trunk(torch.zeros(1, *spec.obs_shape)).shape[1])
