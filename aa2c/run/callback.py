"""A program's callback: when it is called, and what its answer does to the run.

Runs in the orchestrator's event loop, which waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from aa2c.errors import Aa2cError, RunFailed
from aa2c.ports import Message, Report
from aa2c.run.episodes import POLICIES

Event = Literal["second", "evaluation", "checkpoint", "end"]


class Caller:
    """Calls `call(event, status, run)` until it raises. False ends the run, and so does an exception.

    `end` ends the run, as failed if it is given an error; `error` is what the callback raised.
    """

    def __init__(
        self,
        call: Callable[[Any, Any, Any], object] | None,
        run: Any,
        end: Callable[[Aa2cError | None], None],
    ) -> None:
        self._call = call
        self._run = run
        self._end = end
        self._checkpoint_at: float | None = None
        self.error: Exception | None = None

    def second(self) -> None:
        """Each second; a checkpoint is noticed here as well, whoever asked for it."""
        if self._call is None:
            return
        checkpoint_at = self._run.status()["updater"]["checkpoint_at"]
        if checkpoint_at != self._checkpoint_at:
            self._checkpoint_at = checkpoint_at
            self.tell("checkpoint")
        self.tell("second")

    def hear(self, message: Message) -> None:
        """Of what children say: the end of an evaluation, and the run's last checkpoint."""
        match message["kind"]:
            case Report.SAVED:
                self.tell("checkpoint")
            case Report.EVALUATED if message["policy"] == POLICIES[-1]:
                self.tell("evaluation")

    def tell(self, event: Event) -> None:
        """Call it, unless it has raised before."""
        if self._call is None or self.error is not None:
            return
        try:
            answer = self._call(event, self._run.status(), self._run)
        except Exception as error:
            self.error = error
            self._end(RunFailed(f"the callback raised {error!r}"))
        else:
            if isinstance(answer, bool | np.bool_) and not answer:
                self._end(None)
