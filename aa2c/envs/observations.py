"""Observations at the border: of any space but a Box, one row of numbers, in which networks see it.

Discrete and MultiDiscrete become one-hot, MultiBinary and the numbers of a Box stay as they are (integers
scaled by their bounds), and Tuple and Dict are their parts side by side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from aa2c.envs.failure import Unusable, shown
from aa2c.envs.spec import read_integer, read_sizes
from aa2c.errors import StartError

LARGEST_SCALE = 65535  # of integers; beyond, bounds say nothing of the values

Row = NDArray[np.float32]


@dataclass(frozen=True)
class Numbers:
    """A Box or MultiBinary of this shape, divided by `scale`."""

    shape: tuple[int, ...]
    scale: float = 1.0

    @property
    def width(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class OneHot:
    """A Discrete, or a MultiDiscrete of this shape: so many values each, which begin with `starts`."""

    sizes: tuple[int, ...]
    starts: tuple[int, ...]
    shape: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        return sum(self.sizes)


@dataclass(frozen=True)
class Several:
    """The parts of a Tuple, or of a Dict by name."""

    parts: tuple[ObsSpec, ...]
    names: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        return sum(part.width for part in self.parts)


ObsSpec = Numbers | OneHot | Several


def obs_spec(space: gym.Space[Any]) -> ObsSpec:
    """How a space is one row. Raises `StartError` for a space that is none."""
    match space:
        case spaces.Box():
            return Numbers(space.shape, scale_of(space))
        case spaces.MultiBinary():
            return Numbers(space.shape)
        case spaces.Discrete():
            return OneHot((int(space.n),), (int(space.start),))
        case spaces.MultiDiscrete():
            starts = np.asarray(space.start)
            sizes, begins = (tuple(map(int, values.flat)) for values in (space.nvec, starts))
            return OneHot(sizes, begins, space.shape)
        case spaces.Dict() if len(space.spaces):
            return Several(tuple(map(obs_spec, space.spaces.values())), tuple(space.spaces))
        case spaces.Tuple() if len(space.spaces):
            return Several(tuple(map(obs_spec, space.spaces)))
    raise StartError(
        f"--env has observations {space}, and aa2c sees Box, Discrete, MultiDiscrete, MultiBinary, and "
        "Tuple or Dict of these: wrap it with gymnasium.wrappers.TransformObservation."
    )


def scale_of(space: spaces.Box) -> float:
    """What brings integers of these bounds to -1 … 1; 1 where they have none to speak of."""
    if space.dtype is None or space.dtype.kind not in "iu":
        return 1.0
    largest = max(abs(int(space.low.min())), abs(int(space.high.max())), 1)
    return float(largest) if largest <= LARGEST_SCALE else 1.0


def to_row(spec: ObsSpec, seen: Any) -> Row:
    """An observation as one row [width]. Raises `Unusable` for one that is not of its space."""
    row = np.zeros(spec.width, np.float32)
    _fill(spec, seen, row)
    return row


def _fill(spec: ObsSpec, seen: Any, row: Row) -> None:
    match spec:
        case Numbers():
            numbers = np.asarray(seen, np.float32)
            if numbers.size != spec.width:
                raise _unlike(seen, f"{spec.width} numbers")
            np.divide(numbers.reshape(-1), spec.scale, out=row)
        case OneHot():
            values = np.asarray(seen).reshape(-1)
            if values.size != len(spec.sizes):
                raise _unlike(seen, f"{len(spec.sizes)} integers")
            first = 0
            for value, size, start in zip(values, spec.sizes, spec.starts, strict=True):
                place = int(value) - start
                if place != value - start or not 0 <= place < size:
                    raise _unlike(seen, f"an integer in {start} … {start + size - 1}")
                row[first + place] = 1
                first += size
        case Several():
            first = 0
            for part, own in zip(spec.parts, _parts(spec, seen), strict=True):
                _fill(part, own, row[first : first + part.width])
                first += part.width


def _parts(spec: Several, seen: Any) -> list[Any]:
    if spec.names:
        if not isinstance(seen, Mapping) or set(seen) != set(spec.names):
            raise _unlike(seen, f"a mapping of {', '.join(spec.names)}")
        return [seen[name] for name in spec.names]
    if not isinstance(seen, tuple | list) or len(seen) != len(spec.parts):
        raise _unlike(seen, f"{len(spec.parts)} parts")
    return list(seen)


def from_row(spec: ObsSpec, row: NDArray[Any], most: int) -> Any:
    """The observation that `to_row` made a row of, for a person: in plain Python.

    Arrays are flat, and have their first `most` numbers.
    """
    match spec:
        case Numbers():
            values = (row * spec.scale).tolist()
        case OneHot():
            parts = zip(np.split(row, np.cumsum(spec.sizes)[:-1]), spec.starts, strict=True)
            values = [int(part.argmax()) + start for part, start in parts]
        case Several():
            columns = np.split(row, np.cumsum([part.width for part in spec.parts])[:-1])
            pairs = zip(spec.parts, columns, strict=True)
            seen = [from_row(part, own, most) for part, own in pairs]
            return dict(zip(spec.names, seen, strict=True)) if spec.names else seen
    return values[:most] if spec.shape else values[0]


def _unlike(seen: Any, wanted: str) -> Unusable:
    return Unusable(
        f"gave the observation {shown(seen)}, and its observation_space has {wanted}: make them agree"
    )


def plain_obs(spec: ObsSpec) -> dict[str, Any]:
    """For JSON."""
    plain = {"kind": type(spec).__name__, **vars(spec)}
    if isinstance(spec, Several):
        plain["parts"] = [plain_obs(part) for part in spec.parts]
    return plain


def read_obs(plain: Any) -> ObsSpec:
    """What `plain_obs` gave. Raises `ValueError`, `KeyError` or `TypeError` for anything else."""
    fields = dict(plain)
    match fields.pop("kind"):
        case "Numbers":
            scale = float(fields["scale"])
            if not 0 < scale < math.inf:
                raise ValueError(f"{scale} is no scale")
            return Numbers(read_sizes(fields["shape"]), scale)
        case "OneHot":
            sizes, starts = read_sizes(fields["sizes"]), tuple(map(read_integer, fields["starts"]))
            shape = read_sizes(fields["shape"])
            if not len(sizes) == len(starts) == math.prod(shape):
                raise ValueError("its observations do not fit their sizes")
            return OneHot(sizes, starts, shape)
        case "Several":
            parts, names = tuple(map(read_obs, fields["parts"])), tuple(map(str, fields["names"]))
            if not parts or (names and len(names) != len(parts)):
                raise ValueError("its observations do not fit their names")
            return Several(parts, names)
    raise ValueError(f"its observations are of no kind that there is: {plain!r}")
