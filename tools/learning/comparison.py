"""Two tables of bench_learning.py compared: which cells became worse beyond chance.

Of each cell (task, mode, condition) that both tables have, two things are tested on the scores of the
single runs, one-sided: the interquartile mean of final returns, by permutation, and the env steps to
the threshold, by Mann and Whitney's ranks, in which a run that never reached it comes last. Holm's
procedure over all tests of a table keeps the chance of any false alarm in it below LEVEL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.05
RESAMPLES = 20_000  # of a permutation test; with up to 8 runs on both sides all are enumerated
SAME = ("task", "env_steps", "threshold", "mode", "condition")  # in cells that can be compared

Row = dict[str, Any]


def interquartile_mean(values: NDArray[np.float64], axis: int = -1) -> Any:
    """The mean of the middle half of the values."""
    return stats.trim_mean(values, 0.25, axis=axis)


@dataclass(frozen=True)
class Change:
    """What one test found in a cell; `p` is its p-value for worse."""

    row: Row
    old: Row
    what: str
    p: float

    def __str__(self) -> str:
        """A sentence's part."""
        name = " ".join(self.row[key] for key in ("task", "mode", "condition"))
        was, now = _shown(self.old[self.what]), _shown(self.row[self.what])
        label = {"iqm": "IQM", "steps_to": "median env steps to the threshold"}[self.what]
        return f"{name}: {label} {now}, was {was} (p = {self.p:.2g})"


def _shown(value: float | None) -> str:
    return "never" if value is None else f"{value:,.1f}".removesuffix(".0")


def counterpart(row: Row, before: Sequence[Row]) -> Row | None:
    """The cell of the earlier table that this one may be compared with; single runs say too little."""
    for old in before:
        if all(old.get(key) == row[key] for key in SAME):
            return old if min(len(row["scores"]), len(old["scores"])) > 1 else None
    return None


def found_worse(rows: Sequence[Row], before: Sequence[Row]) -> list[Change]:
    """What became worse beyond chance."""
    changes = []
    for row in rows:
        if old := counterpart(row, before):
            changes.append(Change(row, old, "iqm", _p_lower(_finals(row), _finals(old))))
            changes.append(Change(row, old, "steps_to", _p_later(_steps(row), _steps(old))))
    changes.sort(key=lambda change: change.p)
    for place, change in enumerate(changes):
        if change.p > LEVEL / (len(changes) - place):
            return changes[:place]
    return changes


def _finals(row: Row) -> NDArray[np.float64]:
    return np.array([score["final"] for score in row["scores"]], dtype=float)


def _steps(row: Row) -> NDArray[np.float64]:
    steps = (score["steps_to"] for score in row["scores"])
    return np.array([np.inf if step is None else step for step in steps])


def _p_lower(new: NDArray[np.float64], old: NDArray[np.float64]) -> float:
    """How often chance alone makes the interquartile mean of the new finals so much lower."""
    found = stats.permutation_test(
        (new, old),
        lambda a, b, axis: interquartile_mean(a, axis) - interquartile_mean(b, axis),
        alternative="less",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=2000,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def _p_later(new: NDArray[np.float64], old: NDArray[np.float64]) -> float:
    """How often chance alone makes the threshold so much later."""
    if len({*new, *old}) == 1:
        return 1.0
    return float(stats.mannwhitneyu(new, old, alternative="greater").pvalue)
