"""A running process: seen to end, and signalled, by its pidfd.

That works on asyncio's own loop and on uvloop, and never signals a process that got a reused pid.
Where a kernel or a sandbox has no pidfd, a thread waits for the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import threading
from collections.abc import Callable

_HAS_NONE = (errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EINVAL)


class Handle:
    """Calls `on_end` once in the event loop, unless it is closed before."""

    def __init__(self, process: subprocess.Popen[bytes], on_end: Callable[[], None]) -> None:
        """Raises `OSError` if too many files are open: nobody would see its end."""
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._on_end = on_end
        self._is_closed = False
        self._pidfd = -1
        try:
            self._pidfd = os.pidfd_open(process.pid)
        except (AttributeError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _HAS_NONE:
                raise
            threading.Thread(target=self._wait, name="end-of-child", daemon=True).start()
        else:
            self._loop.add_reader(self._pidfd, self._ended)

    def _wait(self) -> None:
        self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._ended)

    def _ended(self) -> None:
        if not self._is_closed:
            self._on_end()

    def send(self, number: signal.Signals) -> None:
        """Send a signal; does nothing if it has ended."""
        with contextlib.suppress(OSError):
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                self._process.send_signal(number)

    def close(self) -> None:
        self._is_closed = True
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
