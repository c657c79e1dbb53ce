"""Encoders of observations of several parts: what unpacks their rows, and a network for each part.

A row is as `aa2c.envs.observations` lays it out. Images of bytes are bytes up to their convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from aa2c.envs.observations import Image, Layout, ObsSpec, Place, layout_of, map_leaves

Encoder = Callable[[Tensor], Tensor]


def numbers_of(layout: Layout, rows: Tensor) -> Tensor:
    """The float32 numbers [N, F] of rows, without a copy."""
    return rows[:, : 4 * layout.numbers].view(torch.float32) if layout.pixels else rows


def with_numbers(layout: Layout, rows: Tensor, numbers: Tensor) -> Tensor:
    """Rows with other numbers [N, F]."""
    if not layout.pixels:
        return numbers
    return torch.cat([numbers.view(torch.uint8), rows[:, 4 * layout.numbers :]], 1)


def part_of(layout: Layout, place: Place, rows: Tensor) -> Tensor:
    """One part [N, *shape] of rows, without a copy."""
    start, end = place.start, place.end
    if isinstance(place.leaf, Image):
        part = rows[:, 4 * layout.numbers :][:, start:end]
    else:
        part = numbers_of(layout, rows)[:, start:end]
    return part.view(-1, *place.leaf.network_shape)


class TakesRows(nn.Module):
    """A trunk's first layer that takes rows as they are."""


class Flattened(TakesRows):
    """Rows as floats [N, F], part by part in the space's order; bytes are divided by their scale."""

    def __init__(self, layout: Layout, scale: float) -> None:
        """`scale` is that of images of bytes, or 0 for each one's own."""
        super().__init__()
        self._layout, self._scale = layout, scale

    @property
    def features(self) -> int:
        return self._layout.numbers + self._layout.pixels

    def forward(self, rows: Tensor) -> Tensor:
        if not self._layout.images:
            return rows
        return torch.cat([self._floats(place, rows).flatten(1) for place in self._layout.places], 1)

    def _floats(self, place: Place, rows: Tensor) -> Tensor:
        part = part_of(self._layout, place, rows)
        if isinstance(place.leaf, Image):
            return part.float().div_(self._scale or place.leaf.scale)
        return part


class Named(nn.Module):
    """Floats [N, F] as the space has them: dictionaries and tuples of tensors [N, *shape]."""

    def __init__(self, spec: ObsSpec) -> None:
        super().__init__()
        self._spec = spec
        self._sizes = [math.prod(place.leaf.network_shape) for place in layout_of(spec).places]

    def forward(self, floats: Tensor) -> Any:
        columns = iter(torch.split(floats, self._sizes, 1))
        return map_leaves(self._spec, lambda leaf: next(columns).reshape(-1, *leaf.network_shape))


class Encoders(TakesRows):
    """An encoder for each image and one for all other numbers; their features [N, F] side by side.

    The vector is encoded in float32, whatever precision the convolutions have.
    """

    def __init__(
        self, layout: Layout, vector: nn.Module | None, images: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self._layout = layout
        self.vector = vector
        self.images = nn.ModuleList(images)

    def forward(self, rows: Tensor) -> Tensor:
        return self.join(rows, self.vector, self.images)

    def join(self, rows: Tensor, vector: Encoder | None, images: Iterable[Encoder]) -> Tensor:
        """The features of these encoders, its own or what computes the same."""
        features = []
        if vector is not None:
            with torch.autocast("cpu", enabled=False):
                features.append(vector(numbers_of(self._layout, rows)[:, : self._layout.vector]))
        is_half = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if is_half else torch.float32
        for place, encode in zip(self._layout.images, images, strict=True):
            features.append(encode(part_of(self._layout, place, rows).to(dtype)).float())
        return torch.cat(features, 1)
