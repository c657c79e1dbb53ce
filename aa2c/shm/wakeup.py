"""A hint that something changed, between processes: one eventfd, or a pipe where there is none.

A hint only: it carries no data, coalesces, survives the death of either side, and whoever waits
re-checks after `RECHECK_S` at the latest, so a lost hint costs a moment and never a hang.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
from multiprocessing import reduction
from typing import Any

RECHECK_S = 0.1
_ONE = (1).to_bytes(8, sys.byteorder)


class Wakeup:
    """`post()` on one side, `wait()` on the other. Inherited by children that are spawned."""

    def __init__(self, fd: int | None = None) -> None:
        self._fd = _open() if fd is None else fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (reduction.DupFd(self._fd),)

    def fileno(self) -> int:
        return self._fd

    def post(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full counter: the other side will wake anyway
            os.write(self._fd, _ONE)

    def wait(self, timeout_s: float = RECHECK_S) -> None:
        """Return when posted, or after the timeout."""
        poll = select.poll()  # one for each call, because several threads may wait
        poll.register(self._fd, select.POLLIN)
        if poll.poll(timeout_s * 1000):
            with contextlib.suppress(BlockingIOError):  # another thread took the same hint
                os.read(self._fd, 65536)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open() -> int:
    """One descriptor for both ends. Raises `OSError`."""
    try:
        return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    except (AttributeError, OSError) as error:  # some sandboxes and kernels have none
        if getattr(error, "errno", errno.ENOSYS) not in (errno.ENOSYS, errno.EPERM, errno.EINVAL):
            raise
    reading, writing = os.pipe()
    try:
        return os.open(f"/proc/self/fd/{reading}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(reading)
        os.close(writing)


def _rebuild(duplicate: Any) -> Wakeup:
    return Wakeup(duplicate.detach())
