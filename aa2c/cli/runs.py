"""`runs`: the runs in a directory, as a table or as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from aa2c.run.listing import FoundRun

HEAD = ("run", "state", "env", "mode", "env steps", "best mean", "age", "")


def as_json(runs: Sequence[FoundRun]) -> str:
    """All that is known of each."""
    return json.dumps([run._asdict() for run in runs], indent=2)


def as_table(runs: Sequence[FoundRun]) -> str:
    """A line for each; the address of those that are running, and why others failed."""
    if not runs:
        return "no runs here: python -m aa2c serve starts one"
    now = time.time()
    rows = [HEAD, *(_row(run, now) for run in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    numbers = range(HEAD.index("env steps"), HEAD.index(""))
    lines = []
    for row in rows:
        cells = [
            text.rjust(width) if column in numbers else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _row(run: FoundRun, now: float) -> tuple[str, ...]:
    done = f"{run.env_steps:,} of {run.total_env_steps:,}"
    mean = "–" if run.best_mean is None else f"{run.best_mean:.1f}"
    return (
        run.name, run.state, run.env, run.mode, done, mean, _age(now - run.changed_at),
        run.url or run.error,
    )  # fmt: skip


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
