"""What happens when numbers are not finite: after too many consecutive failures, back or to the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from aa2c.config.config import Config
from aa2c.ports import Report, UpdaterPort

MOST_ROLLBACKS = 10

What = Literal["record", "update"]


class Guard:
    """Counts consecutive failures, and after `nonfinite_limit` of them rolls back or ends the run."""

    def __init__(
        self,
        config: Config,
        port: UpdaterPort,
        newest_checkpoint: Callable[[], Path | None],
        roll_back: Callable[[Path], None],
    ) -> None:
        self._limit = config.nonfinite_limit
        self._may_roll_back = config.nonfinite_action == "rollback"
        self._port = port
        self._newest_checkpoint = newest_checkpoint
        self._roll_back = roll_back
        self._consecutive = Counter[What]()
        self.has_ended_run = False

    @property
    def is_failing(self) -> bool:
        """Whether the last record or update failed."""
        return any(self._consecutive.values())

    def succeeded(self, what: What) -> None:
        """A record was accepted, or an update was finite."""
        self._consecutive[what] = 0

    def failed(self, what: What) -> None:
        """A record was refused, or an update was not finite."""
        self._consecutive[what] += 1
        if self._limit and self._consecutive[what] >= self._limit and not self.has_ended_run:
            self._consecutive.clear()
            self._act()

    def _act(self) -> None:
        rollbacks = self._port.counters.count("rollbacks")
        saved = self._newest_checkpoint() if self._may_roll_back else None
        if saved is not None and rollbacks < MOST_ROLLBACKS:
            self._roll_back(saved)
            return
        self.has_ended_run = True
        remedy = f"was rolled back {rollbacks} times" if rollbacks else "stops with what it has"
        self._port.report(
            Report.FATAL,
            message=f"losses or gradients of {self._limit} consecutive records were not finite "
            f"(--nonfinite-limit); the run {remedy}: see its set_aside/.",
        )
