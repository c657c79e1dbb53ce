"""The cleaner: waits for a host's end, however it ends, and removes what it left on its machine.

A program of its own, on a bare interpreter without site-packages. It is nobody's child, because what
started the host may kill all children of a process that ends. The workers end by themselves: each holds
a pipe of the host's.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import time
from pathlib import Path

LOOK_EVERY_S = 0.5


def main(owner: int, prefix: str, directory: str) -> None:
    """Wait for the owner; then remove its segments, and its directory if one is named."""
    with contextlib.suppress(OSError, AttributeError):  # a kernel without, or it has ended already
        select.select([os.pidfd_open(owner)], [], [])
    while Path(f"/proc/{owner}").exists():
        time.sleep(LOOK_EVERY_S)
    for path in Path("/dev/shm").glob(f"{prefix}*"):
        path.unlink(missing_ok=True)
    if directory:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__" and os.fork() == 0:
    os.setsid()
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
