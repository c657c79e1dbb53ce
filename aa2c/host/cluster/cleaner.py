"""The cleaner: waits for a process's end, however it ends, and removes what it left on its machine.

A program of its own, on a bare interpreter without site-packages. It is nobody's child, because what
started the host may kill all children of a process that ends. The workers end by themselves: each holds
a pipe of the host's.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

LOOK_EVERY_S = 0.5
TRIES = 10  # to remove a directory: what writes to it may end a little later


def start(prefix: str, directory: str) -> None:
    """For this process: its segments of this prefix and this directory, if they are named."""
    with contextlib.suppress(OSError):  # out of processes: the next one here removes segments
        subprocess.run(
            [sys.executable, "-I", "-S", __file__, str(os.getpid()), prefix, directory],
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def _wait_for_end(owner: int) -> None:
    """Also of one whose parent does not reap it."""
    try:
        select.select([os.pidfd_open(owner)], [], [])
    except ProcessLookupError:
        return
    except (OSError, AttributeError):  # a kernel without
        while Path(f"/proc/{owner}").exists():
            time.sleep(LOOK_EVERY_S)


def main(owner: int, prefix: str, directory: str) -> None:
    """Wait for the owner; then remove its segments and its directory."""
    _wait_for_end(owner)
    for path in Path("/dev/shm").glob(f"{prefix}*") if prefix else ():
        path.unlink(missing_ok=True)
    for _ in range(TRIES if directory else 0):
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(LOOK_EVERY_S)  # in which whoever still writes may make it anew
        if not Path(directory).exists():
            return


if __name__ == "__main__" and os.fork() == 0:
    os.setsid()
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
