"""Segments for the tests of `aa2c.shm`; whatever they make is unlinked again."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from aa2c.shm.segment import Segment, name_prefix
from tests.shm.killing import kill, spawn
from tests.shm.models import opening

_numbers = itertools.count()


@pytest.fixture
def make_segment() -> Iterator[Callable[[int], Segment]]:
    """Call it with a number of bytes; closed and unlinked at the end of the test."""
    segments: list[Segment] = []

    def make(nbytes: int) -> Segment:
        segments.append(Segment.create(f"{name_prefix('testshm')}{next(_numbers)}", nbytes))
        return segments[-1]

    yield make
    for segment in segments:
        segment.close()
        segment.unlink()


@pytest.fixture
def open_model(segment):
    """Attach to the shared model in a file's own `segment`."""
    with opening(segment) as open_model:
        yield open_model


@pytest.fixture
def start():
    """Start a process that is dead at the end of the test."""
    processes = []

    def start(target, *arguments):
        processes.append(spawn.Process(target=target, args=arguments, daemon=True))
        processes[-1].start()
        return processes[-1]

    yield start
    for process in processes:
        kill(process)
        process.close()
