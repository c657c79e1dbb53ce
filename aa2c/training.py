"""`train`: a whole run as one blocking call."""

from __future__ import annotations

import time
from pathlib import Path

from aa2c.config.config import Config
from aa2c.orchestrator import Callback, Orchestrator
from aa2c.run.callback import Event
from aa2c.run.event_loop import run_here
from aa2c.run.status import Status
from aa2c.run.words import PLAIN_S, progress_line


def train(
    config: Config,
    *,
    progress: bool = False,
    callback: Callback | None = None,
    resume: str | Path | None = None,
    http: bool = False,
) -> Status:
    """Run a training to its end, blocking; the last status. Raises `Aa2cError` if it fails.

    `progress` prints a line every few seconds, as `serve` does; the others are `Orchestrator`'s.
    """
    orchestrator = Orchestrator(
        config, callback=_Progress(callback) if progress else callback, resume=resume, http=http
    )

    async def run_to_end() -> Status:
        async with orchestrator as run:
            return await run.wait()

    return run_here(run_to_end())


class _Progress:
    """A callback that prints, and then calls the program's own."""

    def __init__(self, then: Callback | None) -> None:
        self._then = then
        self._next = time.monotonic() + PLAIN_S

    def __call__(self, event: Event, status: Status, run: Orchestrator) -> object:
        now = time.monotonic()
        if event == "end" or (event == "second" and now >= self._next):
            self._next = now + PLAIN_S
            print(progress_line(status), flush=True)
        return None if self._then is None else self._then(event, status, run)
