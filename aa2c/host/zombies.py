"""The first process of a container inherits the orphans of all others, and must reap them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

# After so many looks at a zombie: whoever waits for a child of its own has done so by then.
LOOKS = 4


class Zombies:
    """`reap` is called again and again; it does nothing in a process that is not the first."""

    def __init__(self) -> None:
        self._is_first = os.getpid() == 1
        self._seen: dict[int, int] = {}

    def reap(self, ours: Collection[int]) -> None:
        """Reap what has been dead for a while, except `ours`, which others wait for."""
        if not self._is_first:
            return
        dead = [pid for pid in _dead_children() if pid not in ours]
        self._seen = {pid: self._seen.get(pid, 0) + 1 for pid in dead}
        for pid, looks in self._seen.items():
            if looks >= LOOKS:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def _dead_children() -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            if state == "Z" and int(parent) == os.getpid():
                found.append(int(folder.name))
    return found
