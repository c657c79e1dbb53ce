"""A watcher's clock: the time that the watcher itself has lived.

A machine that slept, a container that was paused, a process in a debugger: whoever is watched may have
been frozen with its watcher, and time in which no process could run says nothing about any of them.
"""

from __future__ import annotations

import time


class LivedClock:
    """Seconds between looks, of which one look counts `most_s` at most."""

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._looked_at = time.monotonic()
        self._lived_s = 0.0

    def look(self) -> float:
        """The time now, on this clock."""
        now = time.monotonic()
        self._lived_s += min(now - self._looked_at, self._most_s)
        self._looked_at = now
        return self._lived_s
