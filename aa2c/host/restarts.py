"""When a child that ended is restarted, and when it is abandoned."""

from __future__ import annotations

import random
import re
import signal
import time
from collections import deque

from aa2c.config.config import Config
from aa2c.errors import StartError
from aa2c.host.incarnation import Incarnation
from aa2c.host.watch import TOO_LATE

MAX_BACKOFF_S = 5.0
MAX_DOUBLINGS = 10
FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)  # somebody killed it, which weighs 1
CRASH_WEIGHT = 20
MAX_FUTILITY = 100
SAME_ERROR_TRIES = 4
_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+")


class RestartPolicy:
    """Restarts of one child: limited within a window, after a backoff with jitter."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._restarts: deque[float] = deque()
        self._fruitless = 0
        self._futility = 0
        self._error = ""
        self._repeats = 0
        self._ended_at = 0.0

    def refuse_reason(
        self, ended: Incarnation, exit_code: int, *, produced: bool, has_come_up: bool
    ) -> str | None:
        """Count an exit; the reason not to restart, or None.

        What never came up never will; what had come up once, in an earlier incarnation, may again.
        """
        cannot = exit_code == StartError.exit_code or ended.replaced_as == TOO_LATE
        if cannot and not has_come_up:
            return "it cannot come up"
        if produced:
            self._fruitless = self._futility = 0
        else:
            self._fruitless += 1
            self._futility += 1 if exit_code in FROM_OUTSIDE else CRASH_WEIGHT
        if self._futility > MAX_FUTILITY:
            return f"it ended {self._fruitless} consecutive times without producing anything"
        window, now = self._config.restart_window_s, time.monotonic()
        if self._repeats_of_error(ended, exit_code, now) >= SAME_ERROR_TRIES:
            return f"it ended {self._repeats} consecutive times with the same error"
        while self._restarts and now - self._restarts[0] > window:
            self._restarts.popleft()
        if len(self._restarts) >= self._config.max_restarts:
            return (
                f"it was restarted {len(self._restarts)} times within {window:g} s "
                "(--max-restarts, --restart-window-s)"
            )
        self._restarts.append(now)
        return None

    def _repeats_of_error(self, ended: Incarnation, exit_code: int, now: float) -> int:
        """How many consecutive times it has ended with the same error, numbers in it aside.

        A child that had lived for a whole window before starts over.
        """
        error = _NUMBERS.sub("#", ended.error or "") if exit_code > 0 else ""
        is_same = error == self._error and now - self._ended_at < self._config.restart_window_s
        self._repeats = (self._repeats + 1 if is_same else 1) if error else 0
        self._error, self._ended_at = error, now
        return self._repeats

    @property
    def backoff_s(self) -> float:
        """How long to wait before the restart."""
        doublings = min(self._fruitless, MAX_DOUBLINGS)
        wait: float = min(MAX_BACKOFF_S, self._config.restart_backoff_s * 2.0**doublings)
        return wait * random.uniform(0.75, 1.25)
