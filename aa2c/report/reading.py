"""The rows that runs have left: read for the report, whether a run is finished or not.

Runs in the process of the command line. It trusts no file: whatever cannot be used is left out and
counted, so that a power cut, a kill or a full disk costs lines and not the report. What a resume
undid is left out, too.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aa2c.config.config import Config
from aa2c.config.toml import load_config
from aa2c.errors import ConfigError
from aa2c.run.quantities import QUANTITIES, value_at

Floats = npt.NDArray[np.float64]
Columns = dict[str, Floats]

AXES = ("time_s", "env_steps", "updates")  # of rows: when, how far, whether losses count
METRICS = {
    quantity.name: quantity.row_keys
    for quantity in QUANTITIES
    if quantity.panel or quantity.name in AXES
}
EPISODES = ("time_s", "env_steps", "kind", "return", "length")
EPISODES_HEADER = "time_s,env_steps,kind,worker,return,length"
KINDS = ("train", "greedy", "sampled")
POINTS = 3000  # more than there are pixels
WINDOW = 100  # episodes; the window of the page and of the literature
LARGEST = 1e18  # beyond it a number is damage, and an axis could not show it


@dataclass(frozen=True, eq=False)
class Run:
    """What is drawn of a run: rows that count, in the order of their env steps."""

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
    """The runs, named by their directories; by their whole paths if these are called the same."""
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
            episodes, unusable = read_rows(path / "episodes.csv", parse_episode, EPISODES)
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
    """The columns of a file, and how many of its lines could not be used.

    A last line without an end is still being written, and neither used nor counted.
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


def parse_metrics(line: str) -> list[float] | None:
    """The numbers of a row of metrics.jsonl, NaN where there is none; None for a damaged line."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    values = [_number(value_at(row, keys)) for keys in METRICS.values()]
    return values if values[0] >= 0 and values[1] >= 0 else None  # NaN is not


def _number(value: Any) -> float:
    return float(value) if type(value) in (int, float) and abs(value) < LARGEST else math.nan


def parse_episode(line: str) -> list[float] | None:
    """The numbers of a row of episodes.csv; none for the header, None for a damaged line."""
    if line == EPISODES_HEADER:
        return []
    try:
        time_s, env_steps, kind, _, episode_return, length = line.split(",")
        row = [float(time_s), float(env_steps), KINDS.index(kind)]
        row += [float(episode_return), float(length)]
    except ValueError:
        return None
    sane = 0 <= row[0] < LARGEST and 0 <= row[1] < LARGEST and 0 <= row[4] < LARGEST
    return row if sane and abs(row[3]) < LARGEST else None


def _nothing(names: Sequence[str]) -> Columns:
    return {name: np.empty(0) for name in names}


def select(rows: Columns, which: npt.NDArray[Any]) -> Columns:
    """The rows of these indices, or where a mask is true."""
    return {name: column[which] for name, column in rows.items()}


def find_resumes(metrics: Columns) -> tuple[Floats, Floats]:
    """When the run was resumed, and for each time the env steps from which on all was undone.

    Metrics tell it and episodes do not: an evaluation ends after training has gone on, so that
    its env steps lie below those of the row before without any resume.
    """
    env_steps = metrics["env_steps"]
    first = np.flatnonzero(np.diff(env_steps) < 0) + 1
    limits = np.minimum.accumulate(env_steps[first][::-1])[::-1]  # a later resume may go further
    return np.maximum.accumulate(metrics["time_s"])[first], limits


def drop_undone(rows: Columns, times: Floats, limits: Floats) -> Columns:
    """The rows that no later resume undid, in the order of their env steps."""
    limit = np.append(limits, np.inf)[np.searchsorted(times, rows["time_s"], side="right")]
    kept = select(rows, rows["env_steps"] < limit)
    return select(kept, np.argsort(kept["env_steps"], kind="stable"))


def measure_speed(metrics: Columns) -> Floats:
    """Env steps per second since the row before; NaN during start-up and across a resume.

    The rate that a run reports is over ten seconds, which takes start-up for slowness.
    """
    passed, made = np.diff(metrics["time_s"]), np.diff(metrics["env_steps"])
    known = (passed > 0) & (made >= 0) & (metrics["env_steps"][1:] > 0)
    speed = np.full(len(metrics["time_s"]), np.nan)
    speed[1:][known] = made[known] / passed[known]
    return speed


def thin(values: Floats, points: int = POINTS) -> npt.NDArray[np.intp]:
    """Indices of few values that draw the same line: the least and the greatest of each bin."""
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
    """The mean of all y within `width` around each x, which must be sorted."""
    total = np.concatenate(([0.0], np.cumsum(y)))
    low = np.searchsorted(x, x - width / 2, side="left")
    high = np.searchsorted(x, x + width / 2, side="right")
    smoothed: Floats = (total[high] - total[low]) / (high - low)
    return smoothed


def trailing_mean(values: Floats, window: int = WINDOW) -> Floats:
    """The mean of each value and those before it, `window` together; fewer at the start."""
    head = values[: window - 1]
    means = np.cumsum(head) / np.arange(1, len(head) + 1)
    if len(values) < window:
        return means
    windows = np.lib.stride_tricks.sliding_window_view(values, window)
    return np.concatenate((means, windows.mean(axis=1)))


def group_evaluations(episodes: Columns, column: str = "return") -> tuple[Floats, ...]:
    """Of test episodes: env steps, mean, standard deviation and count of each evaluation."""
    env_steps, index, count = np.unique(
        episodes["env_steps"], return_inverse=True, return_counts=True
    )
    mean = np.bincount(index, episodes[column]) / count
    deviation = np.sqrt(np.bincount(index, (episodes[column] - mean[index]) ** 2) / count)
    return env_steps, mean, deviation, count.astype(np.float64)
