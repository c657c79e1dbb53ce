"""episodes.csv: how an episode is written as a line, and read.

No line is trusted: a kill, a power cut or a full disk may have damaged it.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

COLUMNS = ("time_s", "env_steps", "kind", "worker", "return", "length")
HEADER = ",".join(COLUMNS)
POLICIES = ("greedy", "sampled")
KINDS = ("train", *POLICIES)


class Episode(NamedTuple):
    """A line, but for its worker: when it was written, and after how many env steps."""

    time_s: float
    env_steps: float
    kind: str
    episode_return: float
    length: float


def parse_episode(line: str) -> Episode:
    """A line's episode. Raises `ValueError` for the header, and for a damaged line."""
    time_s, env_steps, kind, _, episode_return, length = line.split(",")
    if kind not in KINDS:
        raise ValueError(f"there is no kind {kind!r}")
    return Episode(float(time_s), float(env_steps), kind, float(episode_return), float(length))


def episodes_before(run_dir: Path, env_steps: int) -> Iterator[tuple[float, float, float]]:
    """Time, env steps and return of the training episodes up to a checkpoint, but for undone ones.

    Env steps that fall show a resume, which undid what was beyond. Damaged lines are skipped.
    """
    path = run_dir / "episodes.csv"
    kept = array("d"), array("d"), array("d")
    if path.exists():
        with path.open(newline="", errors="replace") as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    episode = parse_episode(line)
                    if episode.kind != "train":
                        continue
                    while kept[1] and kept[1][-1] > episode.env_steps:
                        for column in kept:
                            column.pop()
                    row = episode.time_s, episode.env_steps, episode.episode_return
                    for column, value in zip(kept, row, strict=True):
                        column.append(value)
    yield from (row for row in zip(*kept, strict=True) if row[1] <= env_steps)
