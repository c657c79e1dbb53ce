"""Two processes of tests side by side, by pytest-xdist: each with shared memory of its own.

A test would otherwise see the segments of another one's runs, or take them for leaked. Files stay
whole (`--dist loadfile`), and those with the most long tests come first, so that none is left to run alone.
"""

from __future__ import annotations

import ctypes
import os
from collections import Counter

import pytest

_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000


def is_side_by_side(config: pytest.Config) -> bool:
    """Whether this is one of several processes that run tests."""
    return hasattr(config, "workerinput")


def own_shared_memory() -> None:
    """Mount a /dev/shm that only this thread, and what it starts, sees; raises `OSError` if not permitted."""
    c = ctypes.CDLL(None, use_errno=True)
    for failed in (
        lambda: c.unshare(_CLONE_NEWNS),
        lambda: c.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None),
        lambda: c.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"mode=1777"),
    ):
        if failed():
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def longest_first(items: list[pytest.Item]) -> None:
    """Order the files of the tests by how many of them are long."""
    longs = Counter(item.path for item in items if item.get_closest_marker("long"))
    items.sort(key=lambda item: -longs[item.path])
