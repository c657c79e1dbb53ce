"""Running mean and std of observations and returns, kept inside the network.

They are buffers, and so part of the flat vector: published, pulled and saved with the parameters.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

MOST_COUNTED = 1e6  # rows; beyond, old ones fade, so that statistics follow a policy that changes
OBS_LIMIT = 10.0  # stds
ROWS_AT_ONCE = 32  # whose floats stay in the cache between the steps of normalizing
SMALLEST_STD = 1e-4
LARGEST = 1e15  # whose square, and many of them, float32 can hold


class Units(NamedTuple):
    """Mean and 1 / std of raw rows, [1, *shape] each."""

    mean: Tensor
    factor: Tensor


class RunningMeanStd(nn.Module):
    """Mean and variance over rows [N, *shape], element by element; mean 0, variance 1 at first."""

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("variance", torch.ones(shape))
        self.register_buffer("count", torch.zeros(1))

    @property
    def std(self) -> Tensor:
        return self.variance.sqrt().clamp(min=SMALLEST_STD)

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Take in rows [N, *shape] of floats (Chan, Golub and LeVeque 1979, eq. 1.5).

        Rows whose squares overflow are left out: they would spoil mean and variance for good.
        """
        added = len(rows)
        if not added:
            return
        total = self.count + added
        in_order = rows.permute(0, 2, 3, 1) if _is_channels_last(rows) else rows
        mean = in_order.mean(0)
        variance = in_order.sub(mean).square_().mean(0)  # var_mean over rows: ten times as slow
        if in_order is not rows:
            mean, variance = mean.permute(2, 0, 1), variance.permute(2, 0, 1)
        shift = mean - self.mean
        spread = self.variance * self.count + variance * added
        spread += shift.square() * self.count * added / total
        if not bool(spread.isfinite().all()):
            usable = rows.flatten(1).abs().amax(1) < LARGEST  # NaN is not
            if not bool(usable.all()):
                self.update(rows[usable])
            return
        self.mean += shift * added / total
        self.variance.copy_(spread / total)
        self.count.copy_(total.clamp(max=MOST_COUNTED))

    def units(self, rows: Tensor, scale: float = 1.0) -> Units:
        """For rows [N, *shape] like these, which are to be divided by `scale` first."""
        mean, factor = scale * self.mean.unsqueeze(0), 1 / (scale * self.std.unsqueeze(0))
        if _is_channels_last(rows):
            # Operands of different orders in memory would make this five times as slow.
            mean = mean.contiguous(memory_format=torch.channels_last)
            factor = factor.contiguous(memory_format=torch.channels_last)
        return Units(mean, factor)


def normalize(rows: Tensor, units: Units, dtype: torch.dtype = torch.float32) -> Tensor:
    """Rows [N, *shape] in stds from the mean, cut at `OBS_LIMIT`."""
    normalized = torch.empty_like(rows, dtype=dtype)
    parts = (torch.split(tensor, ROWS_AT_ONCE) for tensor in (rows, normalized))
    for part, out in zip(*parts, strict=True):
        floats = part.float()
        centred = part.sub(units.mean) if floats is part else floats.sub_(units.mean)
        out.copy_(centred.mul_(units.factor).clamp_(-OBS_LIMIT, OBS_LIMIT))
    return normalized


def _is_channels_last(rows: Tensor) -> bool:
    return rows.dim() == 4 and rows.is_contiguous(memory_format=torch.channels_last)
