"""Experiment trackers during a run: each has a thread of its own, and none holds up the run.

Runs in the orchestrator. What a tracker is given waits until it has taken it, however long it takes
to open. A tracker that fails is switched off with a warning; what is lost is counted, and told.
"""

from __future__ import annotations

import asyncio
import functools
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from aa2c.config.config import Config
from aa2c.run.quantities import QUANTITIES
from aa2c.run.status import Status
from aa2c.run.trackers import KINDS, Tracker

MOST_WAITING = 200_000  # rows: some 100 MB, and minutes of the fastest runs
CLOSE_TIMEOUT_S = 10.0  # without progress
MOST_CLOSE_S = 60.0
POLL_S = 0.05

Act = Callable[[Tracker], None]


class Tracking:
    """The trackers that --track names; failures and losses go to `log`.

    `env_steps_before` are those of the checkpoint that the run is resumed from.
    """

    def __init__(self, run_dir: Path, config: Config, log: Any, env_steps_before: int = 0) -> None:
        self._log = log
        self._env_steps = env_steps_before
        self._feeds = [
            _Feed(name, functools.partial(KINDS[name], run_dir, config, env_steps_before), log)
            for name in dict.fromkeys(config.track)
        ]

    def add_row(self, status: Status) -> None:
        """A second's numbers."""
        self._env_steps = status["progress"]["env_steps"]
        self._put(dict(_numbers(status)), self._env_steps)

    def add_episodes(self, episodes: Sequence[tuple[float, int]]) -> None:
        """Training episodes: raw return and length."""
        for episode_return, length in episodes:
            numbers = {"charts/episodic_return": episode_return, "charts/episodic_length": length}
            self._put(numbers, self._env_steps)

    def add_test(
        self, policy: str, env_steps: int, mean: float | None, episodes: Sequence[tuple[float, int]]
    ) -> None:
        """An evaluation of parameters of so many env steps: mean raw return, null if not finite."""
        lengths = [length for _, length in episodes]
        numbers = {f"test/{policy}_length": sum(lengths) / max(1, len(lengths))}
        if mean is not None:
            numbers[f"test/{policy}_return"] = mean
        self._put(numbers, env_steps)

    def add_video(self, policy: str, env_steps: int, path: Path) -> None:
        """A game of an evaluation."""
        for feed in self._feeds:
            feed.put(lambda tracker: tracker.log_video(f"test/{policy}_game", path, env_steps))

    def end(self) -> None:
        """There is no more to come."""
        for feed in self._feeds:
            feed.end()

    async def drain(self) -> None:
        """After `end`: let the trackers take what waits, as long as they do take it, and close."""
        done, deadline, end = -1, 0.0, time.monotonic() + MOST_CLOSE_S
        while living := [feed for feed in self._feeds if feed.is_alive]:
            if (now_done := sum(feed.done for feed in self._feeds)) != done:
                done, deadline = now_done, time.monotonic() + CLOSE_TIMEOUT_S
            are_closing = all(
                feed.is_closing for feed in living
            )  # an upload makes no progress here
            if time.monotonic() > (end if are_closing else min(deadline, end)):
                break
            await asyncio.sleep(POLL_S)
        for feed in self._feeds:
            feed.tell_losses()

    def _put(self, numbers: dict[str, float], env_steps: int) -> None:
        for feed in self._feeds:
            feed.put(lambda tracker: tracker.log(numbers, env_steps))


class _Feed:
    """What waits for a tracker, and the thread that gives it: open, act, close."""

    def __init__(self, name: str, make: Callable[[], Tracker], log: Any) -> None:
        self._name = name
        self._make = make
        self._log = log
        self._waiting: queue.SimpleQueue[Act | None] = queue.SimpleQueue()
        self._lost = 0
        self.done = 0
        self.is_closing = False
        self._thread = threading.Thread(target=self._run, name=f"aa2c-{name}", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def put(self, act: Act) -> None:
        """Wait for the tracker, unless it has failed or too much waits."""
        if not self.is_alive:
            return
        if self._waiting.qsize() < MOST_WAITING:
            self._waiting.put(act)
            return
        if not self._lost:
            reason = "it is slower than the run, or its disk is full"
            self._log.warning("a tracker loses rows", tracker=self._name, reason=reason)
        self._lost += 1

    def end(self) -> None:
        """There is no more to come."""
        self._waiting.put(None)

    def tell_losses(self) -> None:
        """What the tracker did not get."""
        if self.is_alive:
            waiting = max(0, self._waiting.qsize() - 1)  # without the end
            self._log.warning("a tracker did not finish in time", tracker=self._name, rows=waiting)
        if self._lost:
            self._log.warning("a tracker has lost rows", tracker=self._name, rows=self._lost)

    def _run(self) -> None:
        try:
            tracker = self._make()
            while (act := self._waiting.get()) is not None:
                act(tracker)
                self.done += 1
            self.is_closing = True
            tracker.close()
        except Exception as error:  # a library's, or the disk's: the run continues without it
            reason = f"{type(error).__name__}: {error}"
            waiting = self._waiting.qsize()
            self._log.warning(
                "a tracker is switched off", tracker=self._name, reason=reason, rows_lost=waiting
            )


def _numbers(status: Status) -> Iterator[tuple[str, float]]:
    for quantity in QUANTITIES:
        if quantity.tag:
            for _, value in quantity.samples(status):
                if math.isfinite(value):
                    yield quantity.tag, float(value)
