"""Networks: the trunks and heads that a policy is made of, by the name that --network gives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from aa2c.config.config import Config
from aa2c.envs.observations import Image, Layout, image_layout
from aa2c.envs.spec import EnvSpec, channel_axis, smallest_side
from aa2c.errors import StartError
from aa2c.policy.actions import action_type
from aa2c.policy.encoders import Encoders, Flattened
from aa2c.policy.fast_cpu import choose_precision
from aa2c.policy.layers import (
    ChannelsFirst,
    FlattenPixels,
    ResidualBlock,
    convolution,
    linear,
    orthogonal,
)
from aa2c.policy.normalization import RunningMeanStd, normalized_shape
from aa2c.policy.own import is_own, own_parts
from aa2c.policy.parts import Head, Trunk, count_features, with_heads
from aa2c.policy.policy import Policy

NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # number, side and stride of filters
FILTERS = {
    "nature": NATURE,
    "document": NATURE,
    "a3c": ((16, 8, 4), (32, 4, 2)),
    "minatar": ((16, 3, 1),),
}
UNITS = {"nature": 512, "document": 512, "a3c": 256, "minatar": 128}
IMPALA_SMALLEST_SIDE = 8  # pixels that its three poolings halve to one


def make_policy(config: Config, spec: EnvSpec) -> Policy:
    """The policy of --network for an environment. Raises `StartError` if it does not fit.

    All processes of a run begin with the same one, also with what `FlatParameters` does not share.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(config.seed)
        return _make_policy(config, spec)


def _make_policy(config: Config, spec: EnvSpec) -> Policy:
    layout = image_layout(spec.obs)
    obs_scale = config.obs_scale or spec.obs_scale
    actions = action_type(spec.actions)
    if is_own(config.network):
        parts = own_parts(config, spec, actions)
    else:
        trunk = _make_trunk(config, spec, layout, 1.0 if config.norm_obs else obs_scale)
        parts = with_heads(config, actions, trunk)
    policy = Policy(actions, parts, 1.0 if spec.obs else obs_scale, layout)
    if not parts.is_whole and any(isinstance(m, nn.Conv2d) for m in policy.trunk.modules()):
        policy.precision = choose_precision(config.precision)
    if config.norm_obs:
        policy.obs_rms = RunningMeanStd(normalized_shape(spec))
    if config.norm_rewards:
        policy.reward_rms = RunningMeanStd((1,))
    if config.norm_returns:
        policy.return_rms = RunningMeanStd((1,))
    return policy


def _make_trunk(config: Config, spec: EnvSpec, layout: Layout | None, divisor: float) -> Trunk:
    """The layers of --network, of inputs that are to be divided by `divisor`."""
    kind = config.network
    if layout is not None and kind != "mlp":
        return _combined(config, layout)
    if kind == "mlp" or (kind == "auto" and not spec.is_image):
        if layout is not None:
            flatten = Flattened(layout, config.obs_scale)
            return _mlp(config, flatten, flatten.features)
        return _mlp(config, nn.Flatten(), math.prod(spec.obs_shape))
    return _convolutional(kind, spec.obs_shape, divisor)


def _mlp(config: Config, flatten: nn.Module, inputs: int) -> Trunk:
    """Separate tanh networks for policy and value (arXiv:2006.05990, section 3.2).

    Under a memory, which both share, the hidden layers are shared, too.
    """
    sizes = config.hidden_sizes
    if config.memory != "none":
        return Trunk(nn.Sequential(flatten, *_hidden(inputs, sizes)), sizes[-1], linear)
    return Trunk(flatten, inputs, _tower(sizes))


def _hidden(inputs: int, sizes: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for size in sizes:
        layers += [orthogonal(nn.Linear(inputs, size), math.sqrt(2)), nn.Tanh()]
        inputs = size
    return layers


def _tower(sizes: Sequence[int]) -> Head:
    """A head with hidden layers of its own."""

    def head(inputs: int, outputs: int, gain: float) -> nn.Module:
        return nn.Sequential(*_hidden(inputs, sizes), linear(sizes[-1], outputs, gain))

    return head


def _combined(config: Config, layout: Layout) -> Trunk:
    """Convolutions for each image and an MLP for the vector of all else, joined.

    Policy and value each have one more hidden layer on what is joined, in which its parts meet; under
    a memory they meet there.
    """
    kind, sizes = config.network, config.hidden_sizes
    images = [
        _convolutional(kind, p.leaf.network_shape, _divisor(config, p.leaf)) for p in layout.images
    ]
    features = sum(image.features for image in images)
    vector = None
    if layout.vector:
        vector = nn.Sequential(*_hidden(layout.vector, sizes))
        features += sizes[-1]
    trunk = Encoders(layout, vector, [image.layers for image in images])
    if kind == "document":
        return Trunk(trunk, features, images[0].head)
    return Trunk(trunk, features, linear if config.memory != "none" else _tower(sizes[-1:]))


def _divisor(config: Config, leaf: object) -> float:
    return (config.obs_scale or leaf.scale) if isinstance(leaf, Image) else 1.0


def _convolutional(kind: str, shape: tuple[int, ...], divisor: float) -> Trunk:
    """Convolutions for images of this shape; auto: the largest ones that fit."""
    if kind == "auto":
        fits = [name for name in ("nature", "a3c") if smallest_side(shape) >= _least_side(name)]
        kind = fits[0] if fits else "minatar"
    if kind == "impala":
        return _residual(shape, divisor)
    return _filters(kind, shape, divisor)


def _least_side(kind: str) -> int:
    """Pixels that these convolutions need to give one."""
    side = 1
    for _, size, stride in reversed(FILTERS[kind]):
        side = (side - 1) * stride + size
    return side


def _filters(kind: str, shape: tuple[int, ...], divisor: float) -> Trunk:
    """Plain convolutions and two heads.

    a3c: the small network of the first DQN (arXiv:1312.5602) and of A3C (arXiv:1602.01783, section
    8); nature: the larger one of doi:10.1038/nature14236; minatar: that of arXiv:1903.03176 for
    images of a few pixels; in all the heads share a layer.
    document: nature's convolutions, and each head has a layer of its own.
    """
    to_channels_first, channels = _see_image(kind, shape, _least_side(kind))
    trunk = nn.Sequential(to_channels_first)
    for filters, side, stride in FILTERS[kind]:
        trunk.append(convolution(channels, filters, side, stride, divisor=divisor))
        trunk.append(nn.ReLU())
        channels, divisor = filters, 1.0
    trunk.append(FlattenPixels())
    features, units = count_features(trunk, shape), UNITS[kind]

    def hidden(inputs: int) -> nn.Sequential:
        return nn.Sequential(orthogonal(nn.Linear(inputs, units), math.sqrt(2)), nn.ReLU())

    def head(inputs: int, outputs: int, gain: float) -> nn.Module:
        return hidden(inputs).append(linear(units, outputs, gain))

    if kind == "document":
        return Trunk(trunk, features, head)
    return Trunk(trunk.extend(hidden(features)), units, linear)


def _residual(shape: tuple[int, ...], divisor: float) -> Trunk:
    """The large network of IMPALA (arXiv:1802.01561, figure 3, right)."""
    to_channels_first, channels = _see_image("impala", shape, IMPALA_SMALLEST_SIDE)
    layers: list[nn.Module] = [to_channels_first]
    for width in (16, 32, 32):
        layers += [
            convolution(channels, width, divisor=divisor),
            nn.MaxPool2d(3, stride=2, padding=1),
        ]
        layers += [ResidualBlock(width), ResidualBlock(width)]
        channels, divisor = width, 1.0
    trunk = nn.Sequential(*layers, nn.ReLU(), FlattenPixels())
    hidden = orthogonal(nn.Linear(count_features(trunk, shape), 256), math.sqrt(2))
    return Trunk(trunk.extend([hidden, nn.ReLU()]), 256, linear)


def _see_image(kind: str, shape: tuple[int, ...], least_side: int) -> tuple[nn.Module, int]:
    """What brings images [N, *shape] to [N, C, H, W], and C. Raises `StartError` if they are too small."""
    if len(shape) not in (2, 3) or smallest_side(shape) < least_side:
        raise StartError(
            f"--network {kind} needs images of at least {least_side} pixels a side, and --env gives "
            f"{shape}: use --network auto or --network mlp."
        )
    axis = channel_axis(shape)
    if axis is None:
        return nn.Unflatten(1, (1, shape[0])), 1
    return ChannelsFirst() if axis else nn.Identity(), shape[axis]
