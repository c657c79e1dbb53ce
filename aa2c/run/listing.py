"""The runs in a directory, as far as their files tell. No file is trusted: what is damaged is left out."""

from __future__ import annotations

import contextlib
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from aa2c.checkpoints.files import best_score
from aa2c.errors import ConfigError
from aa2c.run.files import is_trained, last_rows, read_access
from aa2c.run.status import ENDED_STATES


class FoundRun(NamedTuple):
    """A run: where it is in its life, how far it came, and how well it did.

    `state` is starting, running, finished, stopped (before its budget was used up), failed, or
    crashed (nobody could write how it ended). `best_mean` is that of the best checkpoint.
    """

    dir: str
    name: str
    state: str
    env: str
    mode: str
    env_steps: int
    total_env_steps: int
    best_mean: float | None
    changed_at: float
    url: str
    error: str


def list_runs(directory: Path) -> list[FoundRun]:
    """The run that this is, or those in it, newest first. Raises `ConfigError` if it cannot be read."""
    try:
        found = [directory] if _is_run(directory) else list(filter(_is_run, directory.iterdir()))
    except FileNotFoundError:
        raise ConfigError(
            f"there is no directory {directory}: give the one that is serve's --runs-dir."
        ) from None
    except OSError as error:
        raise ConfigError(f"{directory} cannot be read: {error.strerror}.") from None
    return sorted(map(_look_at, found), key=lambda run: run.changed_at, reverse=True)


def _is_run(path: Path) -> bool:
    return (path / "config.toml").is_file()


def _look_at(path: Path) -> FoundRun:
    config: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, RecursionError):
        config = tomllib.loads((path / "config.toml").read_text())
    total = config.get("total_env_steps")
    last = next(iter(last_rows(path / "metrics.jsonl")), {})
    progress = last.get("progress")
    env_steps = progress.get("env_steps") if isinstance(progress, dict) else 0
    state, error = _state_of(path)
    is_living = state in ("starting", "running")
    return FoundRun(
        dir=str(path),
        name=path.absolute().name,
        state=state,
        env=str(config.get("vector") or config.get("env", "")),
        mode=str(config.get("mode", "")),
        env_steps=env_steps if isinstance(env_steps, int) else 0,
        total_env_steps=total if isinstance(total, int) else 0,
        best_mean=best_score(path / "checkpoints"),
        changed_at=_changed_at(path),
        url=read_access(path)[0] if is_living else "",
        error=error,
    )


def _state_of(path: Path) -> tuple[str, str]:
    """Where a run is in its life, by its log, and what made it fail."""
    is_living = is_trained(path)
    for row in last_rows(path / "log.jsonl"):
        event = row.get("event") if row.get("process") == "orchestrator" else None
        if is_living and event in ("start", "running"):
            return "starting" if event == "start" else "running", ""
        if not is_living and event in ENDED_STATES:
            return event, str(row.get("error", ""))
        if not is_living and event in ("start", "running"):
            break
    return ("running" if is_living else "crashed"), ""


def _changed_at(path: Path) -> float:
    """When a run last wrote a row, or else when it began."""
    for name in ("metrics.jsonl", "config.toml"):
        with contextlib.suppress(OSError):
            return (path / name).stat().st_mtime
    return 0.0
