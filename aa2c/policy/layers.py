"""Layers that the networks are made of."""

from __future__ import annotations

import math
from typing import TypeVar

from torch import Tensor, nn

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


class ChannelsFirst(nn.Module):
    """[N, H, W, C] -> [N, C, H, W] where the last dimension is the smallest."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


class FlattenPixels(nn.Module):
    """[N, C, H, W] -> [N, H * W * C]: without a copy, as convolutions leave the channels last."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


class ScaledConv2d(nn.Conv2d):
    """A convolution of inputs divided by `divisor`: its weights are divided, which are fewer."""

    def __init__(
        self, inputs: int, outputs: int, side: int, stride: int, padding: int, *, divisor: float
    ) -> None:
        super().__init__(inputs, outputs, side, stride, padding)
        self.divisor = divisor

    @property
    def scaled_weight(self) -> Tensor:
        return self.weight if self.divisor == 1 else self.weight / self.divisor

    def forward(self, x: Tensor) -> Tensor:
        convolved: Tensor = self._conv_forward(x, self.scaled_weight, self.bias)
        return convolved


class ResidualBlock(nn.Module):
    """x + two convolutions of it (arXiv:1802.01561, figure 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(), convolution(channels, channels), nn.ReLU(), convolution(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = x + self.layers(x)
        return changed


def convolution(
    inputs: int, outputs: int, side: int = 3, stride: int = 0, *, divisor: float = 1.0
) -> nn.Conv2d:
    """A convolution of what it sees divided by `divisor`; without a stride it keeps the size."""
    padding = 0 if stride else side // 2
    layer = ScaledConv2d(inputs, outputs, side, stride or 1, padding, divisor=divisor)
    return orthogonal(layer, math.sqrt(2))


def orthogonal(layer: Layer, gain: float) -> Layer:
    """Initialise a layer: orthogonal weights of that gain, no bias."""
    nn.init.orthogonal_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def linear(inputs: int, outputs: int, gain: float) -> nn.Module:
    """A linear layer: orthogonal weights of that gain, no bias."""
    return orthogonal(nn.Linear(inputs, outputs), gain)
