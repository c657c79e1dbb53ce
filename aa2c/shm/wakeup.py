"""A hint that something changed, between processes: one eventfd.

A hint only: it carries no data, coalesces, survives the death of either side, and whoever waits
re-checks after `RECHECK_S` at the latest, so a lost hint costs a moment and never a hang.
"""

from __future__ import annotations

import contextlib
import os
import select
from multiprocessing import reduction
from typing import Any

RECHECK_S = 0.1


class Wakeup:
    """`post()` on one side, `wait()` on the other. Inherited by children that are spawned."""

    def __init__(self, fd: int | None = None) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if fd is None else fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (reduction.DupFd(self._fd),)

    def post(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full counter: the other side will wake anyway
            os.eventfd_write(self._fd, 1)

    def wait(self, timeout_s: float = RECHECK_S) -> None:
        """Return when posted, or after the time."""
        poll = select.poll()  # one for each call, because several threads may wait
        poll.register(self._fd, select.POLLIN)
        if poll.poll(timeout_s * 1000):
            with contextlib.suppress(BlockingIOError):  # another thread took the same hint
                os.eventfd_read(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _rebuild(duplicate: Any) -> Wakeup:
    return Wakeup(duplicate.detach())
