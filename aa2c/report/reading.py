"""Reading the rows of finished and unfinished runs, for the report.

Runs in the command line's process. No file is trusted: whatever cannot be used is skipped and
counted, so that a power cut, a kill or a full disk costs lines, not the report. What a resume undid
is skipped as well.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aa2c.config.config import Config
from aa2c.config.toml import load_config
from aa2c.errors import ConfigError
from aa2c.run.episodes import HEADER, KINDS, parse_episode
from aa2c.run.quantities import QUANTITIES, Keys, value_at

Floats = npt.NDArray[np.float64]
Columns = dict[str, Floats]

AXES = ("time_s", "env_steps", "updates")  # when, how far, and whether losses are known yet
METRICS = {
    quantity.name: quantity.row_keys
    for quantity in QUANTITIES
    if quantity.panel or quantity.name in AXES
}
EPISODES = ("time_s", "env_steps", "kind", "return", "length")
POINTS = 3000  # more than there are pixels
WINDOW = 100  # episodes, as on the dashboard and in the literature
LARGEST = 1e18  # a larger number is damage, and no axis could show it


@dataclass(frozen=True, eq=False)
class Run:
    """The rows of a run that were not undone, ordered by env steps."""

    name: str
    config: Config
    metrics: Columns
    episodes: Columns
    wall_time_s: float
    damaged: int
    resumes: int

    def episodes_of(self, kind: str) -> Columns:
        """The train, greedy or sampled episodes."""
        return select(self.episodes, self.episodes["kind"] == KINDS.index(kind))


def read_runs(run_dirs: Sequence[Path]) -> list[Run]:
    """The runs, named by their directories, or by their whole paths if names collide."""
    paths = list(dict.fromkeys(Path(path) for path in run_dirs))
    names = [path.absolute().name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return [_read_run(path, name) for path, name in zip(paths, names, strict=True)]


def _read_run(path: Path, name: str) -> Run:
    try:
        for file in ("config.toml", "metrics.jsonl"):
            if not (path / file).is_file():
                raise ConfigError(f"{path} is not a run: it has no {file}.")
        config = load_config(file=path / "config.toml")
        metrics, damaged = read_rows(path / "metrics.jsonl", parse_metrics, tuple(METRICS))
        episodes, unusable = _nothing(EPISODES), 0
        if (path / "episodes.csv").is_file():
            episodes, unusable = read_rows(path / "episodes.csv", episode_numbers, EPISODES)
    except ConfigError as error:
        reason = str(error).removeprefix("--config ")
        raise ConfigError(reason if str(path) in reason else f"run {path}: {reason}") from None
    except OSError as error:
        raise ConfigError(f"run {path} cannot be read: {error.strerror}.") from None
    if not len(metrics["time_s"]):
        raise ConfigError(f"run {path} has no rows of metrics yet: try again in a few seconds.")
    wall_time_s = float(metrics["time_s"].max())
    times, limits = find_resumes(metrics)
    metrics = drop_undone(metrics | {"env_steps_per_s": measure_speed(metrics)}, times, limits)
    return Run(
        name=name,
        config=config,
        metrics=metrics,
        episodes=drop_undone(episodes, times, limits),
        wall_time_s=wall_time_s,
        damaged=damaged + unusable,
        resumes=len(times),
    )


def read_rows(
    path: Path, parse: Callable[[str], list[float] | None], names: Sequence[str]
) -> tuple[Columns, int]:
    """The columns of a file, and the number of damaged lines.

    An unterminated last line is still being written: it is neither used nor counted.
    """
    values, damaged = array("d"), 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line.endswith("\n"):
                break
            row = parse(line[:-1])
            if row is None:
                damaged += 1
            else:
                values.extend(row)
    table = np.array(values, dtype=np.float64).reshape(-1, len(names))
    return dict(zip(names, table.T.copy(), strict=True)), damaged


def parse_metrics(line: str, columns: Mapping[str, Keys] = METRICS) -> list[float] | None:
    """The numbers of a row of metrics.jsonl, NaN where there is none; None for a damaged line.

    The first two columns are time and env steps, which every row has.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    values = [_number(value_at(row, keys)) for keys in columns.values()]
    return values if values[0] >= 0 and values[1] >= 0 else None  # NaN is not


def _number(value: Any) -> float:
    return float(value) if type(value) in (int, float) and abs(value) < LARGEST else math.nan


def episode_numbers(line: str) -> list[float] | None:
    """The numbers of a row of episodes.csv; none for the header, None for a damaged line."""
    if line == HEADER:
        return []
    try:
        time_s, env_steps, kind, episode_return, length = parse_episode(line)
    except ValueError:
        return None
    sane = all(0 <= number < LARGEST for number in (time_s, env_steps, length))
    sane &= abs(episode_return) < LARGEST  # not a number is not
    return [time_s, env_steps, KINDS.index(kind), episode_return, length] if sane else None


def _nothing(names: Sequence[str]) -> Columns:
    return {name: np.empty(0) for name in names}


def select(rows: Columns, which: npt.NDArray[Any]) -> Columns:
    """The rows at these indices, or where a mask is true."""
    return {name: column[which] for name, column in rows.items()}


def find_resumes(metrics: Columns) -> tuple[Floats, Floats]:
    """The times at which the run was resumed, and the env steps from which on each undid everything.

    Metrics show this, episodes do not: an evaluation ends while training continues, so that its env
    steps are lower than those of the row before it even without a resume.
    """
    env_steps = metrics["env_steps"]
    first = np.flatnonzero(np.diff(env_steps) < 0) + 1
    limits = np.minimum.accumulate(env_steps[first][::-1])[::-1]  # a later resume may undo more
    return np.maximum.accumulate(metrics["time_s"])[first], limits


def drop_undone(rows: Columns, times: Floats, limits: Floats) -> Columns:
    """The rows that no later resume undid, ordered by env steps.

    An evaluation of the checkpoint that was resumed from stands at its env steps, and counts.
    """
    limit = np.append(limits, np.inf)[np.searchsorted(times, rows["time_s"], side="right")]
    is_kept = rows["env_steps"] < limit
    if "kind" in rows:
        is_kept |= (rows["env_steps"] == limit) & (rows["kind"] != KINDS.index("train"))
    kept = select(rows, is_kept)
    return select(kept, np.argsort(kept["env_steps"], kind="stable"))


def measure_speed(metrics: Columns) -> Floats:
    """Env steps per second since the previous row; NaN during start-up and across a resume.

    The rate that a run reports is a mean over ten seconds, in which start-up looks like slowness.
    """
    passed, made = np.diff(metrics["time_s"]), np.diff(metrics["env_steps"])
    known = (passed > 0) & (made >= 0) & (metrics["env_steps"][1:] > 0)
    speed = np.full(len(metrics["time_s"]), np.nan)
    speed[1:][known] = made[known] / passed[known]
    return speed


def thin(values: Floats, points: int = POINTS) -> npt.NDArray[np.intp]:
    """Indices of a few values that draw the same line: the minimum and maximum of each bin."""
    count = len(values)
    if count <= points:
        return np.arange(count)
    edges = np.linspace(0, count, points // 2).astype(np.intp)
    found = [0, count - 1]
    for low, high in pairwise(edges):
        part = values[low:high]
        found += [low + part.argmin(), low + part.argmax()]
    return np.unique(found)


def smooth(x: Floats, y: Floats, width: float) -> Floats:
    """The mean of all y within a window of `width` around each x; x must be sorted."""
    total = np.concatenate(([0.0], np.cumsum(y)))
    low = np.searchsorted(x, x - width / 2, side="left")
    high = np.searchsorted(x, x + width / 2, side="right")
    smoothed: Floats = (total[high] - total[low]) / (high - low)
    return smoothed


def trailing_mean(values: Floats, window: int = WINDOW) -> Floats:
    """The mean of the last `window` values at each value; of fewer at the start."""
    head = values[: window - 1]
    means = np.cumsum(head) / np.arange(1, len(head) + 1)
    if len(values) < window:
        return means
    windows = np.lib.stride_tricks.sliding_window_view(values, window)
    return np.concatenate((means, windows.mean(axis=1)))


def group_evaluations(episodes: Columns, column: str = "return") -> tuple[Floats, ...]:
    """Env steps, mean, std and count of each evaluation's test episodes."""
    env_steps, index, count = np.unique(
        episodes["env_steps"], return_inverse=True, return_counts=True
    )
    mean = np.bincount(index, episodes[column]) / count
    std = np.sqrt(np.bincount(index, (episodes[column] - mean[index]) ** 2) / count)
    return env_steps, mean, std, count.astype(np.float64)
