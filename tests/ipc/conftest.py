"""Segments for the tests of `aa2c.ipc`; whatever they make is unlinked again."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from aa2c.ipc.shm import Segment, name_prefix

_numbers = itertools.count()


@pytest.fixture
def make_segment() -> Iterator[Callable[[int], Segment]]:
    """Call it with a number of bytes; closed and unlinked at the end of the test."""
    segments: list[Segment] = []

    def make(nbytes: int) -> Segment:
        segments.append(Segment.create(f"{name_prefix('testipc')}{next(_numbers)}", nbytes))
        return segments[-1]

    yield make
    for segment in segments:
        segment.close()
        segment.unlink()
