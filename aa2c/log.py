"""structlog set-up, the only place.

Loggers are built, never configured globally: a program that embeds aa2c keeps its own logging.
Every process appends whole JSON lines to the run's log.jsonl; one write a line, so that lines of
different processes do not mix.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import structlog

from aa2c.strict_json import strict_json

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}

EventDict = MutableMapping[str, Any]


class LogFile(io.FileIO):
    """A file for appending whole lines; while the disk is full it loses lines, never the run."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "a")

    def write(self, line: Any) -> int:
        with contextlib.suppress(OSError):
            return super().write(line)
        return len(line)


def make_logger(
    file: LogFile, process: str, *, on_event: Callable[[EventDict], None] | None = None
) -> structlog.typing.FilteringBoundLogger:
    """A logger that appends to `file` and tags each line with its process.

    `on_event` sees each event too (the terminal's readable lines).
    """

    def also_show(_: Any, __: str, event: EventDict) -> EventDict:
        if on_event is not None:
            on_event(dict(event))
        return event

    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        structlog.BytesLogger(file),
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS["info"]),
        cache_logger_on_first_use=True,
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            also_show,
            structlog.processors.JSONRenderer(serializer=_to_json),
        ],
        process=process,
    )
    return logger


def _to_json(event: Any, **_: Any) -> bytes:
    return strict_json(event, default=str).encode()


def readable(event: EventDict, *, with_prefix: bool = True) -> str:
    """One line for a person: time and level, what happened, and the rest as key=value."""
    rest = {k: v for k, v in event.items() if k not in _SHOWN_FIRST}
    pairs = " ".join(f"{key}={value}" for key, value in rest.items())
    level = "" if event["level"] == "info" else f"{event['level']}: "
    prefix = f"{event['timestamp'][11:19]} {level}" if with_prefix else ""
    return f"{prefix}{event['event']} {pairs}".rstrip()


_SHOWN_FIRST = {"timestamp", "level", "event", "process", "exception"}
