"""What children and their libraries print, bounded: the first and the last of it are kept.

Children append to one file of the run by themselves, so that a crash's last words are there and nobody
waits for a reader. The orchestrator cuts the middle out when the file has grown too large.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Any

from aa2c.log import LogFile

NAME = "output.log"
MIB = 2**20
MOST_BYTES = 4 * MIB
KEPT_BYTES = MIB  # of the beginning, and again of the end


def redirect_output(run_dir: Path) -> None:
    """In a child: what is printed goes to the run's output.log, and is lost while the disk is full.

    An environment's `print` must not fail for that.
    """
    file = LogFile(run_dir / NAME)
    for descriptor in (1, 2):  # for what is not Python, and the stack of a crash
        os.dup2(file.fileno(), descriptor)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(
            io.BufferedWriter(file),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=is_prompt,
        )
        for is_prompt in (False, True)
    )


class Output:
    """The run's output.log, as the orchestrator bounds it."""

    def __init__(self, run_dir: Path, log: Any) -> None:
        self._path = run_dir / NAME
        self._log = log
        self._left_out = 0

    def bound(self) -> None:
        """Cut the middle out if there is too much. What is printed meanwhile may go with it."""
        with contextlib.suppress(OSError):
            if self._path.stat().st_size > MOST_BYTES:
                self._cut()

    def _cut(self) -> None:
        with self._path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(size - KEPT_BYTES)
            last = file.read()
            file.truncate(KEPT_BYTES)
        is_first = not self._left_out
        self._left_out += size - 2 * KEPT_BYTES
        told = f"\n[aa2c: {self._left_out / MIB:.0f} MiB are left out here]\n"
        with self._path.open("ab", 0) as file:  # others append at the same time
            file.write(told.encode() + last)
        if is_first:
            self._log.warning(
                "much is printed, by environments or libraries: output.log keeps its first and last MiB"
            )
