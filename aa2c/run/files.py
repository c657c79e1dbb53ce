"""What a run leaves on disk: its directory, configuration, and rows of metrics, episodes and marks.

Runs in the orchestrator, the only writer of these files except the log.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from aa2c.config.config import Config
from aa2c.config.toml import to_toml
from aa2c.errors import Aa2cError, ConfigError, StartError
from aa2c.run.episodes import COLUMNS
from aa2c.strict_json import strict_json

DISK_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
    errno.ENOENT, errno.EISDIR, errno.ENOTDIR,
}  # fmt: skip
TAIL_BYTES = 65536  # at the end of a file, which have its last rows
TOKEN, ADDRESS, LOCK = "token", "address", "lock"


def make_run_dir(config: Config) -> Path:
    """Make a new directory for the run. Raises `ConfigError`, which names --name or --runs-dir."""
    slug = re.sub(r"[^\w.-]+", "-", config.env_name).strip("-")[:64]
    stamp = time.strftime("%Y%m%d-%H%M%S")
    names = [config.name] if config.name else [f"{slug}-{config.mode}-{stamp}"]
    names += [] if config.name else [f"{names[0]}-{i}" for i in range(2, 100)]
    for name in names:
        path = Path(config.runs_dir).absolute() / name
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise ConfigError(f"--name {name[:40]}… is too long for a directory.") from None
            raise ConfigError(
                f"--runs-dir {config.runs_dir} cannot be written: {error.strerror}."
            ) from None
        return path
    raise ConfigError(f"--name {names[0]} already exists in {config.runs_dir}: choose another.")


@contextlib.contextmanager
def undone_if_it_fails(run_dir: Path, *, is_new: bool) -> Iterator[None]:
    """Remove a new directory if its run cannot be started. Turns `OSError` into `Aa2cError`."""
    try:
        yield
    except BaseException as error:
        if is_new:
            shutil.rmtree(run_dir, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            where = f"--runs-dir {run_dir.parent}" if is_new else f"--resume {run_dir}"
            raise ConfigError(f"{where} cannot be written: {error.strerror}.") from None
        if isinstance(error, OSError):
            raise StartError(f"the run cannot be started: {error.strerror or error}.") from error
        raise


def undo_failed_start(run_dir: Path, error: Aa2cError | None, status: dict[str, Any]) -> None:
    """Remove the directory of a run that never came up, where nothing was learned.

    Unless its error points there.
    """
    is_needed = status["progress"]["updates"] or str(run_dir) in str(error)
    if isinstance(error, StartError) and not is_needed:
        shutil.rmtree(run_dir, ignore_errors=True)


def write_access(run_dir: Path, url: str, token: str) -> None:
    """Keep where a run is served, and its token, which only its owner can read.

    Not on a full disk: the terminal has both.
    """
    with contextlib.suppress(OSError):
        path = run_dir / TOKEN
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token)
        _replace(run_dir / ADDRESS, url)


def remove_address(run_dir: Path) -> None:
    """The run is no longer served."""
    with contextlib.suppress(OSError):
        (run_dir / ADDRESS).unlink(missing_ok=True)


def read_access(run_dir: Path) -> tuple[str, str]:
    """Where a run is served, and its token; empty where there is none, or none for us to read."""
    return _text(run_dir / ADDRESS), _text(run_dir / TOKEN)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""


def is_trained(run_dir: Path) -> bool:
    """Whether a process has the run's lock."""
    with contextlib.suppress(OSError), (run_dir / LOCK).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # given back at once
        except BlockingIOError:
            return True
    return False


class Recording:
    """Writes config.toml, then a row per second and per episode; a resumed run appends.

    Raises `ConfigError` if another process trains the run.
    """

    def __init__(self, run_dir: Path, config: Config) -> None:
        self._run_dir = run_dir
        self._config = config
        self._open()

    def _open(self) -> None:
        run_dir = self._run_dir
        with contextlib.ExitStack() as opened:
            lock = opened.enter_context(_lock(run_dir))
            _replace(run_dir / "config.toml", to_toml(self._config))
            metrics, episodes, marks = (
                opened.enter_context(_open_to_append(run_dir / name, buffering))
                for name, buffering in (
                    ("metrics.jsonl", 1),
                    ("episodes.csv", -1),
                    ("marks.jsonl", 1),
                )
            )
            opened.pop_all()
        self._lock, self._metrics, self._episodes, self._marks = lock, metrics, episodes, marks
        self._episode_rows = csv.writer(episodes)
        if not episodes.tell():
            self._episode_rows.writerow(COLUMNS)

    def reopen_if_removed(self) -> bool:
        """Recreate the files if the directory was removed, so that checkpoints can be resumed.

        True if it was removed. Raises `OSError`.
        """
        try:
            if os.path.samestat(os.stat(self._run_dir / LOCK), os.fstat(self._lock.fileno())):
                return False
        except FileNotFoundError:
            self._run_dir.mkdir(parents=True, exist_ok=True)
        removed = self._files()
        self._open()
        _close(removed)
        return True

    def _files(self) -> tuple[IO[Any], ...]:
        return self._metrics, self._episodes, self._marks, self._lock

    def write_metrics(self, row: dict[str, Any]) -> None:
        """One row, and the episodes since the last one. Raises `OSError`."""
        self._metrics.write(strict_json(row) + "\n")
        self._episodes.flush()

    def write_mark(self, mark: dict[str, Any]) -> None:
        """One row: something that was done to the run. On a full disk it is lost."""
        with contextlib.suppress(OSError):
            self._marks.write(strict_json(mark) + "\n")

    def write_episodes(
        self,
        time_s: float,
        env_steps: int,
        kind: str,
        worker: int | None,
        episodes: Iterable[tuple[float, int]],
    ) -> None:
        """One row per episode: a worker's, or a test episode, greedy or sampled.

        On a full disk some are lost, which `write_metrics` reports.
        """
        with contextlib.suppress(OSError):
            for episode_return, length in episodes:
                self._episode_rows.writerow(
                    (round(time_s, 3), env_steps, kind, worker, episode_return, length)
                )

    def close(self) -> None:
        """Close the files, even on a full disk."""
        _close(self._files())


def _close(files: Iterable[IO[Any]]) -> None:
    for file in files:
        with contextlib.suppress(OSError):
            file.close()


def _replace(path: Path, text: str) -> None:
    """Replace a file atomically: on a full disk the old one stays."""
    new = path.with_name(f".{path.name}")
    new.write_text(text)
    new.replace(path)


def _lock(run_dir: Path) -> IO[bytes]:
    """A lock on the run, which the kernel releases when this process ends."""
    file = (run_dir / LOCK).open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigError(f"--resume {run_dir}: this run is already being trained.") from None
    return file


def metrics_row(status: dict[str, Any]) -> dict[str, Any]:
    """A run's numbers: its status without the parts about processes."""
    parts = ("progress", "throughput", "returns", "losses", "policy_lag")
    return {"time_s": status["run"]["uptime_s"]} | {part: status[part] for part in parts}


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a .jsonl file, none if there is no file; damaged lines are skipped."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict):
                    yield row


def last_rows(path: Path) -> list[dict[str, Any]]:
    """The last rows of a .jsonl file, the newest first; none if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return []
    rows = []
    for line in reversed(lines):
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
    return rows


def _open_to_append(path: Path, buffering: int) -> IO[str]:
    """Open for appending lines; first terminates one that a kill cut off."""
    file = path.open("a+b")
    if file.tell():
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")
    file.close()
    return path.open("a", buffering, newline="")
