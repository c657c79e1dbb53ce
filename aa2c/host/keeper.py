"""The keeper: waits for its parent's end and kills what the parent's environments have left.

A program of its own, on a bare interpreter without site-packages: see `aa2c.host.env_processes`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path

LOOK_EVERY_S = 0.2
MOST_ROUNDS = 50  # a process may have started another meanwhile


def main(owner: int, mark: bytes) -> None:
    """Wait for the owner, which leads its process group, and kill what has its mark, too."""
    _wait_for_end(owner)
    for _ in range(MOST_ROUNDS):
        left = _left_by(owner, mark)
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not left:
            return
        time.sleep(LOOK_EVERY_S / 10)


def _wait_for_end(owner: int) -> None:
    try:
        descriptor = os.pidfd_open(owner)
    except (OSError, AttributeError):  # a kernel without, or it has ended already
        descriptor = -1
    while os.getppid() == owner:
        if descriptor >= 0:
            select.select([descriptor], [], [])
            return
        time.sleep(LOOK_EVERY_S)


def _left_by(owner: int, mark: bytes) -> list[int]:
    """Living processes of the owner's group, or with its mark, but the owner and this one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        if pid in (owner, os.getpid()):
            continue
        with contextlib.suppress(OSError, ValueError):
            state, _, group, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            if state in "ZX":
                continue
            environ = (folder / "environ").read_bytes() if int(group) != owner else b""
            if int(group) == owner or mark in environ.split(b"\0"):
                found.append(pid)
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2].encode())
