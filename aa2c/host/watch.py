"""Stall detection: who does not come up, shows no sign of life, or makes no progress is killed.

Runs in the orchestrator, on its event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aa2c.config.config import Config
from aa2c.host.commands import Role
from aa2c.host.incarnation import Incarnation
from aa2c.host.usage import ChildClock
from aa2c.ports import Counters

WATCH_S = 0.5
# What counts as progress, by role; an evaluation may take as long as it takes.
PROGRESS: dict[Role, tuple[str, ...]] = {
    "worker": ("env_steps", "records"),
    "updater": ("records", "rejected", "stale"),
    "evaluator": ("beats",),
    "engine": ("beats",),
}
TOO_LATE, STALLED, NO_PROGRESS = "too late", "stalled", "no progress"


async def watch(
    child: Incarnation, row: Counters, is_paused: Callable[[], bool], config: Config
) -> int:
    """Wait for a child's end and return its exit code.

    Three clocks, which stop while the orchestrator is stopped, and while the child is ready to run
    and gets no core: until it has come up, since its last sign of life (its working loop counts
    beats, so that a hang shows, too), and since its last progress, unless it waits for others. One
    that is late by any of them is killed, with the reason in `child.error` and
    `child.replaced_as`. A worker of another host is watched there.
    """
    if child.is_watched_elsewhere:
        await asyncio.wait([child.exited])
        return child.exited.result()
    names = PROGRESS[child.role]
    clock = ChildClock(child.pid, 2 * WATCH_S)
    beats, progress = -1, [-1]
    lived_at = progressed_at = clock.look()
    while child.is_alive:
        now = clock.look()
        if row.count("beats") != beats:
            beats, lived_at = row.count("beats"), now
        done = [row.count(name) for name in names]
        if done != progress or row.count("waits_for") or is_paused() or not child.is_ready:
            progress, progressed_at = done, now
        limit = config.stall_timeout_s if child.is_ready else config.start_timeout_s
        if now - lived_at > limit:
            option = "--stall-timeout-s" if child.is_ready else "--start-timeout-s"
            child.error = f"no sign of life for {limit:g} s ({option})"
            child.replaced_as = STALLED if child.is_ready else TOO_LATE
            child.kill()
        elif now - progressed_at > config.progress_timeout_s:
            child.error = f"alive, but nothing done for {config.progress_timeout_s:g} s (--progress-timeout-s)"
            child.replaced_as = NO_PROGRESS
            child.kill()
        await asyncio.wait([child.exited], timeout=WATCH_S)
    return child.exited.result()
