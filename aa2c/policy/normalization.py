"""Running mean and std of observations, rewards and returns, kept inside the network.

They are buffers, and so part of the flat vector: published, pulled and saved with the parameters.
The updater is the only one that changes them. What workers have seen reaches it as `Statistics` of the
rows that a record covers, which merge into those of all rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aa2c.envs.observations import image_layout
from aa2c.envs.spec import EnvSpec

MOST_COUNTED = 1e6  # rows; beyond, old ones fade, so that statistics follow a policy that changes
OBS_LIMIT = 10.0  # stds
REWARD_LIMIT = 10.0  # stds of the discounted return
ROWS_AT_ONCE = 32  # whose floats stay in the cache between the steps of normalizing
SMALLEST_STD = 1e-4
LARGEST = 1e15  # whose square, and many of them, float32 can hold

Floats = NDArray[np.float32]


def normalized_shape(spec: EnvSpec) -> tuple[int, ...]:
    """The shape of the part of an observation that is normalized (see `Policy.normalized_rows`)."""
    layout = image_layout(spec.obs)
    return spec.obs_shape if layout is None else (layout.numbers,)


class Units(NamedTuple):
    """Mean and 1 / std of raw rows, [1, *shape] each."""

    mean: Tensor
    factor: Tensor


class Statistics(NamedTuple):
    """Number of rows [1], and their mean and variance [*shape], element by element."""

    rows: Tensor
    mean: Tensor
    variance: Tensor

    @classmethod
    def of_none(cls, shape: tuple[int, ...]) -> Statistics:
        """Of no rows at all: mean 0, variance 1."""
        return cls(torch.zeros(1), torch.zeros(shape), torch.ones(shape))

    @property
    def std(self) -> Tensor:
        return self.variance.sqrt().clamp(min=SMALLEST_STD)

    def merged(self, other: Statistics) -> Statistics:
        """Of the rows of both (Chan, Golub and LeVeque 1979, eq. 1.5)."""
        if not other.rows:
            return self
        rows = self.rows + other.rows
        share = other.rows / rows
        shift = other.mean - self.mean
        spread = self.variance * (1 - share) + other.variance * share
        between = shift.square() * (share * (1 - share))
        return Statistics(rows, self.mean + shift * share, spread + between)


@torch.no_grad()
def statistics_of(rows: Tensor) -> Statistics:
    """Of rows [N, *shape] of floats.

    Rows whose squares overflow are left out: they would spoil mean and variance for good.
    """
    if not len(rows):
        return Statistics.of_none(tuple(rows.shape[1:]))
    in_order = rows.permute(0, 2, 3, 1) if _is_channels_last(rows) else rows
    mean = in_order.mean(0)
    variance = in_order.sub(mean).square_().mean(0)  # var_mean over rows: ten times as slow
    if not bool((variance < LARGEST**2).all() & (mean.abs() < LARGEST).all()):  # NaN is not
        usable = rows.flatten(1).abs().amax(1) < LARGEST
        if not bool(usable.all()):
            return statistics_of(rows[usable])
    if in_order is not rows:
        mean, variance = mean.permute(2, 0, 1), variance.permute(2, 0, 1)
    return Statistics(torch.full((1,), float(len(rows))), mean, variance)


def flat_length(shape: tuple[int, ...]) -> int:
    """How many numbers the statistics of rows [N, *shape] are in a record."""
    return 1 + 2 * int(np.prod(shape))


def write_flat(statistics: Statistics, out: Floats) -> None:
    """Put statistics into a record's array [flat_length(shape)]."""
    parts = [part.flatten() for part in statistics]
    torch.cat(parts, out=torch.from_numpy(out))


def read_flat(array: Floats, shape: tuple[int, ...]) -> Statistics:
    """What `write_flat` put into a record's array."""
    flat = torch.from_numpy(array.copy())  # a record is read-only, which torch does not know
    mean, variance = flat[1:].view(2, *shape)
    return Statistics(flat[:1], mean, variance)


def is_sound(array: Floats) -> bool:
    """Whether an array [flat_length(shape)] can be merged without spoiling what it is merged into."""
    rows, (mean, variance) = array[0], array[1:].reshape(2, -1)
    return bool(
        0 <= rows < np.inf
        and (np.abs(mean) < 2 * LARGEST).all()
        and ((variance >= 0) & (variance < 2 * LARGEST**2)).all()
    )


class RunningMeanStd(nn.Module):
    """Mean and variance over rows [N, *shape], element by element; mean 0, variance 1 at first."""

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("variance", torch.ones(shape))
        self.register_buffer("count", torch.zeros(1))

    @property
    def statistics(self) -> Statistics:
        """As they are now; views."""
        return Statistics(self.count, self.mean, self.variance)

    @property
    def std(self) -> Tensor:
        return self.statistics.std

    def update(self, rows: Tensor) -> None:
        """Take in rows [N, *shape] of floats, but for those that overflow."""
        self.merge(statistics_of(rows))

    @torch.no_grad()
    def merge(self, others: Statistics) -> None:
        """Take in rows of which these are the statistics."""
        rows, mean, variance = self.statistics.merged(others)
        self.mean.copy_(mean)
        self.variance.copy_(variance)
        self.count.copy_(rows.clamp(max=MOST_COUNTED))

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
