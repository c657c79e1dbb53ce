"""The files of checkpoints: written whole or not at all, verified before they are believed.

A checkpoint is a directory, written under another name, synced, and renamed when it is whole:

    step-000000123456/ model.safetensors  optimizer.safetensors  state.json  MANIFEST.json

It counts only if every file has the size and SHA-256 that the manifest says; otherwise the one
before it is taken. Imports no torch: the orchestrator reads `state.json`, too.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from aa2c.config.config import Config
from aa2c.config.toml import structure
from aa2c.errors import StartError
from aa2c.failpoint import failpoint
from aa2c.strict_json import strict_json

T = TypeVar("T")

FORMAT = 2
KEPT_COUNTS = ("env_steps", "updates", "policy_version", "records")  # of the updater's counters
COUNTS = (*KEPT_COUNTS, "episodes")
MOST_COUNT = 2**53
STATE = "state.json"
_MANIFEST = "MANIFEST.json"


class CheckpointError(StartError):
    """There is no checkpoint that verifies, or it does not fit."""


class CheckpointFiles(NamedTuple):
    """A verified checkpoint: the bytes of its files by name, and what `state.json` says."""

    path: Path
    data: dict[str, bytes]
    state: dict[str, Any]
    passed_over: tuple[str, ...] = ()  # newer ones, and why

    @property
    def counts(self) -> dict[str, int]:
        """env_steps, updates, policy_version, records and episodes so far."""
        counts = {name: self.state["counts"][name] for name in COUNTS}
        if not all(type(count) is int and 0 <= count <= MOST_COUNT for count in counts.values()):
            raise ValueError(f"its counts are no counts: {counts}")
        return counts

    @property
    def config(self) -> Config:
        """The configuration of its run. Raises `ConfigError`."""
        return Config(**structure(self.state["config"], str(self.path)))

    @property
    def run_dir(self) -> Path:
        """The directory of its run. Raises `CheckpointError` if it does not lie in one."""
        run_dir = self.path.parent.parent
        if self.path.parent.name != "checkpoints" or not (run_dir / "config.toml").is_file():
            raise CheckpointError(f"{self.path} does not lie in the directory of a run.")
        return run_dir


def worker_file(worker: int) -> str:
    """The file with a worker's state, which checkpoints of --deterministic have."""
    return f"worker-{worker}.npz"


def worker_state(path: Path, config: Config, worker: int) -> bytes | None:
    """A worker's state in a checkpoint; None if it has none, or is of another number of workers."""
    saved = read_checkpoint(path, lambda files: files)
    is_same = saved.config.workers == config.workers and saved.config.num_envs == config.num_envs
    return saved.data.get(worker_file(worker)) if is_same else None


def write_checkpoint(
    directory: Path, state: Mapping[str, Any], files: Mapping[str, bytes], keep: int
) -> Path:
    """Write a checkpoint under `directory`; remove all but the `keep` newest and the best.

    `state` becomes `state.json`; its "score" says which is the best.
    """
    head = {"format": FORMAT, "sequence": last_sequence(directory) + 1, "saved_at": time.time()}
    contents = {**files, STATE: strict_json({**head, **state}, indent=1).encode()}
    final = _unused(directory / f"step-{state['counts']['env_steps']:012d}")
    partial = directory / f".partial-{final.name}"
    for leftover in directory.glob(".partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        _write_whole(partial, contents)
    except OSError:  # half a checkpoint would only keep a full disk full
        shutil.rmtree(partial, ignore_errors=True)
        raise
    failpoint("checkpoint.before_rename")
    partial.rename(final)
    _sync_directory(directory)
    failpoint("checkpoint.after_rename")
    best = _best_first(directory)[0]
    for old in _newest_first(directory)[keep:]:
        if old not in (best, final):
            shutil.rmtree(old, ignore_errors=True)
    return final


def _write_whole(directory: Path, contents: Mapping[str, bytes]) -> None:
    directory.mkdir(parents=True)
    for name, data in contents.items():
        _write(directory / name, data)
    manifest = {name: _entry(data) for name, data in contents.items()}
    failpoint("checkpoint.before_manifest")
    _write(directory / _MANIFEST, json.dumps(manifest, indent=1).encode())
    _sync_directory(directory)


def add_to_state(path: Path, more: Mapping[str, Any]) -> None:
    """Say more in a checkpoint's `state.json`. Raises `OSError`.

    It verifies at any instant: the manifest knows both states before the new one replaces the old.
    """
    manifest = json.loads((path / _MANIFEST).read_bytes())
    before = (path / STATE).read_bytes()
    data = strict_json(json.loads(before) | more, indent=1).encode()
    manifest[STATE] = _entry(data) | {"or": [_entry(before)]}
    _replace(path / _MANIFEST, json.dumps(manifest, indent=1).encode())
    _replace(path / STATE, data)
    _sync_directory(path)


def _entry(data: bytes) -> dict[str, Any]:
    """What the manifest says of a file."""
    return {"bytes": len(data), "sha256": _sha256(data)}


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name(f".{path.name}")
    _write(new, data)
    new.replace(path)


def _unused(path: Path) -> Path:
    """The path, with a number behind it if it is there: what is there must outlive a kill here."""
    again = (path.with_name(f"{path.name}-{i}") for i in itertools.count(2))
    return path if not path.exists() else next(other for other in again if not other.exists())


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def last_sequence(directory: Path) -> int:
    """The highest sequence number of the checkpoints in a directory, 0 where there is none."""
    return int(max((sequence_of(path) for path in directory.glob("step-*")), default=0))


def sequence_of(path: Path) -> float:
    """When a checkpoint was written, among those of its run; 0 where it has no number."""
    return max(0.0, _number(path, "sequence"))


def _newest_first(directory: Path) -> list[Path]:
    """By sequence number, and of those that have none by env steps, which their names begin with.

    Clocks jump, and a run that was resumed from an older checkpoint is at fewer env steps again.
    """
    paths = directory.glob("step-*")
    return sorted(paths, key=lambda path: (sequence_of(path), path.name), reverse=True)


def _best_first(directory: Path) -> list[Path]:
    """By score, those without one last; the newer of equals first."""
    return sorted(_newest_first(directory), key=lambda path: _number(path, "score"), reverse=True)


def best_score(directory: Path) -> float | None:
    """The highest score of the checkpoints in a directory, not verified."""
    scores = [_number(path, "score") for path in directory.glob("step-*")]
    best = max(scores, default=-math.inf)
    return best if math.isfinite(best) else None


def _number(path: Path, name: str) -> float:
    """A number of a checkpoint's state, not verified; minus infinity where there is none."""
    try:
        value = float(json.loads(_regular(path / STATE).read_bytes())[name])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return -math.inf
    return value if math.isfinite(value) else -math.inf


def read_checkpoint(path: Path, parse: Callable[[CheckpointFiles], T], *, best: bool = False) -> T:
    """What `parse` makes of a checkpoint, or of the newest or best good one of a run.

    One that does not verify, or of which `parse` raises, is passed over for the next. Raises
    `CheckpointError` if there is no other.
    """
    candidates = [path]
    try:
        for directory in (path / "checkpoints", path):
            candidates += _best_first(directory) if best else _newest_first(directory)
        candidates = [each for each in candidates if (each / _MANIFEST).is_file()]
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from None
    reasons: list[str] = []
    for candidate in candidates:
        try:
            found = _read(candidate.absolute())
            return parse(found._replace(passed_over=tuple(reasons)))
        except Exception as error:  # whatever a damaged file leads to, the next may be good
            reasons.append(f"{candidate.name}: {error}")
    detail = f" ({'; '.join(reasons)})" if reasons else ""
    raise CheckpointError(f"{path} holds no checkpoint that verifies{detail}.")


def _read(path: Path) -> CheckpointFiles:
    manifest = json.loads((path / _MANIFEST).read_bytes())
    data = {}
    for name, expected in manifest.items():
        if Path(name).name != name:
            raise ValueError(f"the manifest names {name!r}, which is no file of it")
        known = [expected, *expected.pop("or", ())]
        if _regular(path / name).stat().st_size not in [entry["bytes"] for entry in known]:
            raise ValueError(f"{name} has not the size that the manifest says")
        data[name] = (path / name).read_bytes()
        if _entry(data[name]) not in known:
            raise ValueError(f"{name} does not match the manifest")
    state = json.loads(data[STATE])
    if state["format"] != FORMAT:
        raise ValueError(f"format {state['format']} is not {FORMAT}")
    files = CheckpointFiles(path, data, state)
    _ = files.counts  # raises, so that the checkpoint before this one is tried
    return files


def _regular(path: Path) -> Path:
    """The path, if reading it comes to an end. Raises `ValueError`."""
    if not path.is_file():
        raise ValueError(f"{path.name} is no file")
    return path
