"""CPU time and memory of a run's processes, and how long they wait for a core: small reads of /proc.

Runs in the orchestrator. Processes that environments start are not counted.
"""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic

from aa2c.clock import LivedClock
from aa2c.host.rate import Rate

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_USER_TICKS, _SYSTEM_TICKS, _RESIDENT_PAGES = 11, 12, 21  # among the fields after the name


class ProcessUsage:
    """Of one place for a process: CPU time of all its incarnations, memory of the newest."""

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self.rss_bytes: int | None = None
        self._pid: int | None = None
        self._seen_s = 0.0  # CPU time of this incarnation
        self._rate = Rate()

    @property
    def cpu_share(self) -> float | None:
        """Of one core, over the last seconds; None while there is no process."""
        return None if self.rss_bytes is None else self._rate.per_second

    def sample(self, pid: int | None) -> None:
        """Look at the process that is there now, if one is."""
        found = cpu_s_and_rss(pid) if pid is not None else None
        if pid != self._pid:
            self._pid, self._seen_s = pid, 0.0
        if found is None:
            self.rss_bytes = None
            return
        cpu_s, self.rss_bytes = found
        self.cpu_s += max(0.0, cpu_s - self._seen_s)
        self._seen_s = cpu_s
        self._rate.sample(monotonic(), self.cpu_s)


def cpu_s_and_rss(pid: int) -> tuple[float, int] | None:
    """CPU time in seconds, and resident memory in bytes; None once the process has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    ticks = int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])
    return ticks / _TICKS_PER_S, int(fields[_RESIDENT_PAGES]) * _PAGE_BYTES


class ChildClock:
    """A watcher's clock of one process: it also stops while that is ready to run and gets no core."""

    def __init__(self, pid: int | None, most_s: float) -> None:
        self._pid = pid
        self._lived = LivedClock(most_s)
        self._looked_at, self._waited_s = self._lived.look(), waited_for_core_s(pid)
        self._now = 0.0

    def look(self) -> float:
        """Seconds since it was made."""
        lived, waited = self._lived.look(), waited_for_core_s(self._pid)
        self._now += max(0.0, lived - self._looked_at - max(0.0, waited - self._waited_s))
        self._looked_at, self._waited_s = lived, waited
        return self._now


def waited_for_core_s(pid: int | None) -> float:
    """How long a process's main thread was ready to run without a core; 0 where it cannot be told."""
    try:
        return ran_and_waited_s(pid)[1]
    except (OSError, ValueError):  # it has ended, or the kernel was built without
        return 0.0


def ran_and_waited_s(pid: int | None) -> tuple[float, float]:
    """How long a process's main thread ran, and was ready to run without a core. Raises `OSError`."""
    ran_ns, waited_ns, _times = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(ran_ns) / 1e9, int(waited_ns) / 1e9
