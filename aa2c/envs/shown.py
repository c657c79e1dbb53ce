"""What a person looks at of the observations that networks see as rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aa2c.envs.observations import Image, Leaf, ObsSpec, OneHot, layout_of, map_leaves

Rows = NDArray[Any]


def first_image(spec: ObsSpec, rows: Rows) -> Rows:
    """The first image [n, *shape] of rows [n, …] in which there is one."""
    layout = layout_of(spec)
    numbers, pixels = layout.split(rows)
    place = layout.images[0]
    part = pixels if isinstance(place.leaf, Image) else numbers
    return part[:, place.start : place.end].reshape(len(rows), *place.leaf.shape)


def from_row(spec: ObsSpec, row: Rows, most: int) -> Any:
    """The observation that `to_row` made a row without images of, in plain Python.

    Arrays are flat, and have their first `most` numbers.
    """
    places = iter(layout_of(spec).places)

    def values(leaf: Leaf) -> Any:
        place = next(places)
        own = row[place.start : place.end]
        if isinstance(leaf, OneHot):
            parts = zip(np.split(own, np.cumsum(leaf.sizes)[:-1]), leaf.starts, strict=True)
            found = [int(part.argmax()) + start for part, start in parts]
        else:
            found = (own * leaf.scale).tolist()
        return found[:most] if leaf.shape else found[0]

    return map_leaves(spec, values, key=str)  # as JSON has them
