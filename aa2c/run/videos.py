"""The video of the newest policy: asked for by the run's owner, recorded by the evaluator.

Runs in the orchestrator. There is one, in the run's directory: the next replaces it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from aa2c.engine import Engine
from aa2c.errors import ControlRefused
from aa2c.ports import Message

KEYS = [
    "policy_version",
    "env_steps",
    "episode_return",
    "length",
    "is_cut",
    "duration_s",
    "bytes",
    "error",
]
ELSEWHERE = "python -m aa2c eval RUN --video game.mp4 records one, too"


class Videos:
    """The newest request and its outcome: requested, recording, then ready or failed."""

    def __init__(
        self, engine: Engine, *, has_evaluator: bool, is_training: Callable[[], bool]
    ) -> None:
        self._engine = engine
        self._has_evaluator = has_evaluator
        self._is_training = is_training
        self._number = 0
        self._told: Message | None = None

    def ask(self) -> str:
        """Ask for a new one. Raises `ControlRefused` where that is in vain."""
        if not self._has_evaluator:
            why = "off (--eval-interval-s 0)"
            raise ControlRefused(f"the evaluator records videos, and is {why}: {ELSEWHERE}.")
        if self._engine.evaluator.state == "abandoned":
            raise ControlRefused(f"the evaluator records videos, and was abandoned: {ELSEWHERE}.")
        if self._state() in ("requested", "recording"):
            raise ControlRefused("a video is being recorded: wait for it.")
        self._number += 1
        self._told = None
        self._engine.control.set("videos_wanted", self._number)
        return "the evaluator records an episode of the newest policy"

    def hear(self, message: Message) -> None:
        """The evaluator has recorded one, or could not."""
        if message["wanted"] == self._number:
            self._told = message

    def document(self) -> dict[str, Any] | None:
        """What /status tells of the newest request; null if there was none."""
        if not self._number:
            return None
        state, told = self._state(), self._told or {}
        if state == "failed" and not told:
            told = {"error": "the evaluator or the run ended before it was recorded."}
        return {"number": self._number, "state": state} | {key: told.get(key) for key in KEYS}

    def _state(self) -> str:
        if not self._number:
            return "none"
        if self._told is not None:
            return "ready" if "path" in self._told else "failed"
        row, evaluator = self._engine.telemetry.evaluator, self._engine.evaluator
        if row.count("videos_taken") == self._number:
            return "recording" if row.count("recorder_pid") == evaluator.pid else "failed"
        is_expected = self._is_training() and evaluator.state != "abandoned"
        return "requested" if is_expected else "failed"

    def file(self) -> Path:
        """Where the newest one is. Raises `ControlRefused` if there is none."""
        if self._told is None or "path" not in self._told:
            raise ControlRefused("there is no video: POST /control/video asks for one.")
        return Path(self._told["path"])
