"""Who holds the lock of a shared model, as the kernel tells it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil

from aa2c.shm.segment import SHM_DIR

STOP_S = 20.0  # until a signal is acted on by a process that gets no CPU


def lock_holder(segment: str) -> int | None:
    """The process that holds the `flock` on this segment's file."""
    file = os.stat(SHM_DIR / segment)
    device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5] == device:
            return int(fields[4])
    return None


def stop_holder(segment: str, among: list[int], timeout_s: float = 1.0) -> int | None:
    """Stop one of these processes while it has the lock; None if there was none to be caught."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        pid = lock_holder(segment)
        if pid not in among:
            continue
        os.kill(pid, signal.SIGSTOP)
        while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
            assert time.monotonic() < deadline + STOP_S
            time.sleep(0.001)
        if lock_holder(segment) == pid:
            return pid
        os.kill(pid, signal.SIGCONT)
    return None
