"""Stall detection: whether a run makes progress and, if not, which process waits for what.

Runs in the orchestrator, which checks once a second. What each process waits for is a word in its
row of counters.
"""

from __future__ import annotations

from typing import Any

from aa2c.clock import LivedClock
from aa2c.engine import ChildView, Engine
from aa2c.ports import Counters, WaitsFor

WAITS_FOR: dict[int, str] = {
    WaitsFor.FREE_SLOT: "a free slot in its ring",
    WaitsFor.PARAMETERS: "parameters",
    WaitsFor.MODEL_LOCK: "the lock on the shared network",
    WaitsFor.RECORDS: "records",
    WaitsFor.TURN: "its turn",
    WaitsFor.WORKER_STATES: "the workers' states",
}

MOST_LIVED_S = 2.0  # between two looks, of which there is one a second


class ProgressWatch:
    """Two clocks: since the last env step, and since the last update.

    `stall` says what is wrong; None while the run makes progress. Both clocks stop while the
    orchestrator is stopped.
    """

    def __init__(self, limit_s: float, engine: Engine, log: Any) -> None:
        self._limit_s = limit_s
        self._engine = engine
        self._counters = engine.telemetry
        self._log = log
        self._env_steps = self._learning = (-1, -1)
        self._clock = LivedClock(MOST_LIVED_S)
        self._stepped_at = self._learned_at = self._clock.look()
        self.stall: str | None = None

    def look(self, *, is_training: bool) -> None:
        """Check the clocks; log once when the run stalls, and once when it makes progress again."""
        now, row = self._clock.look(), self._counters.updater
        # Beats of a long update count as learning, those of waiting for records do not.
        busy = row.count("beats") if not row.count("waits_for") else 0
        learning = (self._counters.updates_made + row.count("records"), busy)
        env_steps = (self._counters.env_steps, 0)
        if learning[0] != self._learning[0] or (busy and busy != self._learning[1]):
            self._learning, self._learned_at = learning, now
        rows = [self._counters.workers[slot.index] for slot in self._engine.workers]
        all_wait = all(r.count("waits_for") for r in rows) and now - self._learned_at < 1.5
        if env_steps != self._env_steps or all_wait:
            self._env_steps, self._stepped_at = env_steps, now
        if not is_training:
            self._learned_at = self._stepped_at = now
        told = self._tell(now)
        if (told is None) != (self.stall is None):
            self._say(told)
        self.stall = told

    def _tell(self, now: float) -> str | None:
        idle = {"env steps": now - self._stepped_at, "updates": now - self._learned_at}
        what = max(idle, key=lambda name: idle[name])
        if idle[what] < self._limit_s:
            return None
        parts = [f"the updater {_doing(self._engine.updater, self._counters.updater)}"]
        parts += [
            f"worker {slot.index} {_doing(slot, self._counters.workers[slot.index])}"
            for slot in self._engine.workers
        ]
        return f"no {what} for more than {self._limit_s:g} s: {', '.join(parts)}"

    def _say(self, told: str | None) -> None:
        if told is None:
            self._log.warning("the run makes progress again")
        else:
            self._log.warning("the run has stalled", why=told)


def _doing(slot: ChildView, row: Counters) -> str:
    """What a child is doing, in words."""
    if slot.state != "running":
        last = f" (last: {slot.last_exit})" if slot.last_exit else ""
        return f"is {slot.state}{last}"
    waits_for = row.count("waits_for")
    return f"waits for {WAITS_FOR.get(waits_for, 'something')}" if waits_for else "is busy"
