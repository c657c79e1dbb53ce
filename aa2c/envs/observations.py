"""Observations at the border: of any space but a Box, one row, in which networks see it.

Discrete and MultiDiscrete become one-hot, MultiBinary and the numbers of a Box stay as they are (integers
scaled by their bounds), and Tuple and Dict are their parts side by side. Images of bytes within them
stay bytes: the row then is one of bytes, which begins with those of all float32 numbers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from aa2c.envs.failure import Unusable, shown
from aa2c.envs.spec import is_image
from aa2c.errors import StartError

LARGEST_SCALE = 65535  # of integers; beyond, bounds say nothing of the values

Row = NDArray[Any]
Path = tuple[str | int, ...]  # names and places on the way to a part


@dataclass(frozen=True)
class Numbers:
    """A Box or MultiBinary of this shape, divided by `scale`."""

    shape: tuple[int, ...]
    scale: float = 1.0

    @property
    def is_image(self) -> bool:
        return is_image(self.shape, "float32")

    @property
    def network_shape(self) -> tuple[int, ...]:
        """As networks see it."""
        return self.shape or (1,)


@dataclass(frozen=True)
class Image:
    """A Box of bytes for convolutions, which are to be divided by `scale`."""

    shape: tuple[int, ...]
    scale: float = 255.0
    is_image: ClassVar[bool] = True

    @property
    def network_shape(self) -> tuple[int, ...]:
        return self.shape


@dataclass(frozen=True)
class OneHot:
    """A Discrete, or a MultiDiscrete of this shape: so many values each, which begin with `starts`."""

    sizes: tuple[int, ...]
    starts: tuple[int, ...]
    shape: tuple[int, ...] = ()
    is_image: ClassVar[bool] = False

    @property
    def network_shape(self) -> tuple[int, ...]:
        return (sum(self.sizes),)


@dataclass(frozen=True)
class Several:
    """The parts of a Tuple, or of a Dict by name."""

    parts: tuple[ObsSpec, ...]
    names: tuple[str | int, ...] = ()


Leaf = Numbers | Image | OneHot
ObsSpec = Leaf | Several


class Place(NamedTuple):
    """Where a row has a leaf: from this number on, or this byte of its images."""

    leaf: Leaf
    path: Path
    start: int

    @property
    def end(self) -> int:
        return self.start + math.prod(self.leaf.network_shape)


@dataclass(frozen=True)
class Layout:
    """What a row is: `places` in the space's order; numbers of vectors, all numbers, bytes of images.

    Vectors come first, then images of floats, then those of bytes.
    """

    places: tuple[Place, ...]
    vector: int
    numbers: int
    pixels: int

    @property
    def images(self) -> list[Place]:
        return [place for place in self.places if place.leaf.is_image]

    @property
    def dtype(self) -> str:
        return "uint8" if self.pixels else "float32"

    @property
    def shape(self) -> tuple[int]:
        if not self.pixels:
            return (self.numbers,)
        return (
            4 * (self.numbers + -(-self.pixels // 4)),
        )  # so that each row's numbers are aligned

    def split(self, rows: Row) -> tuple[Row, Row]:
        """Numbers [..., F] and bytes [..., P] of rows, without a copy."""
        if not self.pixels:
            return rows, rows[..., :0]
        border = 4 * self.numbers
        return rows[..., :border].view(np.float32), rows[..., border : border + self.pixels]


def obs_spec(space: gym.Space[Any], path: Path = ()) -> ObsSpec:
    """How a space is one row. Raises `StartError` for a space that is none."""
    match space:
        case spaces.Box(shape=shape, dtype=dtype):
            if (
                dtype is not None
                and dtype.name in ("uint8", "bool")
                and is_image(shape, dtype.name)
            ):
                return Image(shape, scale_of(space))
            return Numbers(shape, scale_of(space))
        case spaces.MultiBinary():
            return Numbers(space.shape)
        case spaces.Discrete():
            return OneHot((int(space.n),), (int(space.start),))
        case spaces.MultiDiscrete():
            starts = np.asarray(space.start)
            sizes, begins = (tuple(map(int, values.flat)) for values in (space.nvec, starts))
            return OneHot(sizes, begins, space.shape)
        case spaces.Dict() if len(space.spaces):
            parts = tuple(obs_spec(part, (*path, name)) for name, part in space.spaces.items())
            return Several(parts, tuple(space.spaces))
        case spaces.Tuple() if len(space.spaces):
            return Several(tuple(obs_spec(part, (*path, i)) for i, part in enumerate(space.spaces)))
    raise StartError(
        f"--env has observations {space}{_within(path)}, and aa2c sees Box, Discrete, MultiDiscrete, "
        f"MultiBinary, and Tuple or Dict of these: {_remedy(path)}."
    )


def _within(path: Path) -> str:
    return " in " + "".join(f"[{step!r}]" for step in path) if path else ""


def _remedy(path: Path) -> str:
    make_numbers = "gymnasium.wrappers.TransformObservation"
    if len(path) == 1 and isinstance(path[0], str):
        leave_out = "gymnasium.wrappers.FilterObservation"
        return f"name a --wrapper that leaves it out with {leave_out}, or uses {make_numbers}"
    return f"name a --wrapper that uses {make_numbers}"


def scale_of(space: spaces.Box) -> float:
    """What brings integers of these bounds to -1 … 1; 1 where they have none to speak of."""
    if space.dtype is None or space.dtype.kind not in "iu":
        return 1.0
    largest = max(abs(int(space.low.min())), abs(int(space.high.max())), 1)
    return float(largest) if largest <= LARGEST_SCALE else 1.0


def _leaves(spec: ObsSpec, path: Path = ()) -> Iterator[tuple[Leaf, Path]]:
    """In the space's order."""
    if isinstance(spec, Several):
        steps: Sequence[str | int] = spec.names or range(len(spec.parts))
        for step, part in zip(steps, spec.parts, strict=True):
            yield from _leaves(part, (*path, step))
    else:
        yield spec, path


@functools.lru_cache
def layout_of(spec: ObsSpec) -> Layout:
    """How the rows of these observations are laid out."""
    leaves = list(_leaves(spec))
    starts: dict[Path, int] = {}

    def put(kept: Sequence[tuple[Leaf, Path]], start: int) -> int:
        for leaf, path in kept:
            starts[path] = start
            start += math.prod(leaf.network_shape)
        return start

    vector = put([each for each in leaves if not each[0].is_image], 0)
    floats = [(leaf, p) for leaf, p in leaves if leaf.is_image and isinstance(leaf, Numbers)]
    numbers = put(floats, vector)
    pixels = put([each for each in leaves if isinstance(each[0], Image)], 0)
    places = tuple(Place(leaf, path, starts[path]) for leaf, path in leaves)
    return Layout(places, vector, numbers, pixels)


def image_layout(spec: ObsSpec | None) -> Layout | None:
    """The layout of rows of which networks have to take images; others are a vector like any."""
    if spec is None or not layout_of(spec).images:
        return None
    return layout_of(spec)


def to_row(spec: ObsSpec, seen: Any) -> Row:
    """An observation as one row. Raises `Unusable` for one that is not of its space."""
    layout = layout_of(spec)
    row = np.zeros(layout.shape, layout.dtype)
    numbers, pixels = layout.split(row)
    for (leaf, _, start), own in zip(layout.places, _values(spec, seen), strict=True):
        match leaf:
            case Image():
                _fill_image(leaf, own, pixels[start:])
            case Numbers():
                _fill_numbers(leaf, own, numbers[start:])
            case OneHot():
                _fill_one_hot(leaf, own, numbers[start:])
    return row


def _fill_image(leaf: Image, seen: Any, out: Row) -> None:
    image = np.asarray(seen)
    if not is_like(image.shape, leaf.shape):
        raise _unlike(seen, f"an image of {leaf.shape}")
    cast = exactly_as(image, np.dtype(np.uint8))
    if cast is None:
        raise _unlike(seen, "bytes")
    out[: cast.size] = cast.reshape(-1)


def exactly_as(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """The values in this integer dtype, themselves if they are; None if it cannot hold them."""
    with np.errstate(all="ignore"):
        cast = values.astype(dtype, copy=False)
    return cast if cast is values or np.array_equal(cast, values) else None


def is_like(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """But for dimensions of one."""
    return [n for n in shape if n != 1] == [n for n in wanted if n != 1]


def _fill_numbers(leaf: Numbers, seen: Any, out: Row) -> None:
    numbers = np.asarray(seen, np.float32)
    if numbers.shape != leaf.shape and not is_like(numbers.shape, leaf.shape):
        raise _unlike(seen, f"numbers of shape {leaf.shape}")
    np.divide(numbers.reshape(-1), leaf.scale, out=out[: numbers.size])


def _fill_one_hot(leaf: OneHot, seen: Any, out: Row) -> None:
    values = np.asarray(seen).reshape(-1)
    if values.size != len(leaf.sizes):
        raise _unlike(seen, f"{len(leaf.sizes)} integers")
    first = 0
    for value, size, start in zip(values, leaf.sizes, leaf.starts, strict=True):
        place = int(value) - start
        if place != value - start or not 0 <= place < size:
            raise _unlike(seen, f"an integer in {start} … {start + size - 1}")
        out[first + place] = 1
        first += size


def _values(spec: ObsSpec, seen: Any) -> Iterator[Any]:
    """What is seen of each leaf, in the space's order."""
    if not isinstance(spec, Several):
        yield seen
        return
    for part, own in zip(spec.parts, _parts(spec, seen), strict=True):
        yield from _values(part, own)


def _parts(spec: Several, seen: Any) -> list[Any]:
    if spec.names:
        if not isinstance(seen, Mapping) or set(seen) != set(spec.names):
            raise _unlike(seen, f"a mapping of {', '.join(map(str, spec.names))}")
        return [seen[name] for name in spec.names]
    if not isinstance(seen, tuple | list) or len(seen) != len(spec.parts):
        raise _unlike(seen, f"{len(spec.parts)} parts")
    return list(seen)


def _unlike(seen: Any, wanted: str) -> Unusable:
    return Unusable(
        f"gave the observation {shown(seen)}, and its observation_space has {wanted}: make them agree"
    )


def map_leaves(
    spec: ObsSpec, make: Callable[[Leaf], Any], key: Callable[[str | int], Any] = lambda name: name
) -> Any:
    """What `make` gives of each leaf, in dictionaries, with a `key` for each name, and tuples."""
    if not isinstance(spec, Several):
        return make(spec)
    made = [map_leaves(part, make, key) for part in spec.parts]
    return dict(zip(map(key, spec.names), made, strict=True)) if spec.names else tuple(made)
