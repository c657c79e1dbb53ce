"""The tables of a report: configurations over their runs, the options that differ, each run.

Runs in the command line's process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from aa2c.report.groups import Group, differences, group_runs
from aa2c.report.reading import WINDOW, Run, group_evaluations, trailing_mean

RISE = 0.95
CONFIGURATIONS, OPTIONS, RUNS = "Configurations", "Options that differ", "Runs"


class Table(NamedTuple):
    """Rows of text; the first cell of each says what the row is about."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(runs: Sequence[Run]) -> list[Table]:
    """Of repeated runs their statistics, of several configurations how they differ, and the runs."""
    groups = group_runs(runs)
    found = [_configurations(groups)] if any(group.is_repeated for group in groups) else []
    if len(groups) > 1:
        rows = [(name, *values) for name, values in differences(groups).items()]
        found.append(Table(OPTIONS, ("option", *(group.name for group in groups)), rows))
    return [
        *found,
        Table(RUNS, [*SUMMARY], [[tell(run) for tell in SUMMARY.values()] for run in runs]),
    ]


def notes(runs: Sequence[Run]) -> list[str]:
    """How to read the tables, and what of the runs is not in them."""
    said = [HOW_TO_READ]
    if any(group.is_repeated for group in group_runs(runs)):
        said.append(HOW_TO_READ_REPEATED)
    for run in runs:
        if run.resumes:
            undone = "rows that were undone by them are left out"
            said.append(f"Resumes of {run.name}: {run.resumes}; {undone}.")
        if run.damaged:
            said.append(f"Damaged lines of {run.name}, left out: {run.damaged}.")
    return said


def summarise(runs: Sequence[Run]) -> str:
    """The Markdown of summary.md."""
    lines = ["# Report", ""]
    for title, columns, rows in tables(runs):
        lines += [f"## {title}", ""]
        cells = [columns, ["---"] * len(columns), *rows]
        lines += [f"| {' | '.join(map(_escaped, row))} |" for row in cells]
        lines.append("")
    return "\n".join(lines) + "\n" + "\n\n".join(map(_escaped, notes(runs))) + "\n"


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")


def _configurations(groups: Sequence[Group]) -> Table:
    rows = [
        [
            group.name,
            ", ".join(str(run.config.seed) for run in group.runs),
            *(_over_runs([score(run) for run in group.runs]) for score in SCORES.values()),
        ]
        for group in groups
    ]
    return Table(CONFIGURATIONS, ("configuration", "seeds", *SCORES), rows)


def _over_runs(scores: Sequence[float | None]) -> str:
    """Mean, std and worst of what the runs reached, and of how many, if some reached nothing."""
    known = [score for score in scores if score is not None]
    if not known:
        return "–"
    if len(scores) == 1:
        return f"{known[0]:,.2f}"
    spread = f" ± {np.std(known, ddof=1):,.2f}" if len(known) > 1 else ""
    of = f" ({len(known)} of {len(scores)} runs)" if len(known) < len(scores) else ""
    return f"{np.mean(known):,.2f}{spread}, worst {min(known):,.2f}{of}"


def _env_steps(run: Run) -> float:
    return float(run.metrics["env_steps"][-1])


def _speed(run: Run) -> float:
    return _env_steps(run) / max(run.wall_time_s, 1e-3)


def _frames(run: Run) -> str:
    env = run.config.env_name
    atari = "ALE/" in env or "NoFrameskip" in env or "Deterministic" in env
    return f"{_env_steps(run) * run.config.frame_skip:,.0f}" if atari else "–"


def _in_hours(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


def _best(run: Run) -> tuple[float, float] | None:
    """The best mean over full windows, and the env steps after which most of the rise was done."""
    rows = run.episodes_of("train")
    means = trailing_mean(rows["return"])[WINDOW - 1 :]
    if not len(means):
        return None
    best = means.max()
    risen = np.argmax(means >= best - (1 - RISE) * (best - means[0]))
    return float(best), float(rows["env_steps"][WINDOW - 1 :][risen])


def _best_mean(run: Run) -> float | None:
    best = _best(run)
    return best and best[0]


def _told(best: tuple[float, float] | None, which: int, digits: int) -> str:
    return "–" if best is None else f"{best[which]:,.{digits}f}"


def _last_mean(run: Run) -> float | None:
    last = run.episodes_of("train")["return"][-WINDOW:]
    return float(last.mean()) if len(last) else None


def _last(run: Run) -> str:
    last = run.episodes_of("train")["return"][-WINDOW:]
    return f"{last.mean():,.2f} ± {last.std():,.2f} (n = {len(last)})" if len(last) else "–"


def _last_test_mean(run: Run, kind: str) -> float | None:
    _, means, _, _ = group_evaluations(run.episodes_of(kind))
    return float(means[-1]) if len(means) else None


def _last_test(run: Run, kind: str) -> str:
    tests = group_evaluations(run.episodes_of(kind))
    if not len(tests[0]):
        return "–"
    env_steps, mean, std, count = (column[-1] for column in tests)
    return f"{mean:,.2f} ± {std:,.2f} (n = {count:.0f}, after {env_steps:,.0f} env steps)"


BEST, LAST = f"best mean return of {WINDOW} episodes", f"mean return of the last {WINDOW} episodes"
GREEDY, SAMPLED = "last test, greedy", "last test, sampled"

SUMMARY: dict[str, Callable[[Run], str]] = {
    "run": lambda run: run.name,
    "environment": lambda run: run.config.env_name,
    "mode": lambda run: run.config.mode,
    "workers × environments": lambda run: f"{run.config.workers} × {run.config.num_envs}",
    "seed": lambda run: str(run.config.seed),
    "env steps": lambda run: f"{_env_steps(run):,.0f}",
    "frames": _frames,
    "wall time [h:mm:ss]": lambda run: _in_hours(run.wall_time_s),
    "env steps/s": lambda run: f"{_speed(run):,.0f}",
    "training episodes": lambda run: f"{len(run.episodes_of('train')['return']):,}",
    BEST: lambda run: _told(_best(run), 0, 2),
    LAST: _last,
    f"env steps to {RISE:.0%} of the rise from the first to the best mean": lambda run: _told(
        _best(run), 1, 0
    ),
    GREEDY: lambda run: _last_test(run, "greedy"),
    SAMPLED: lambda run: _last_test(run, "sampled"),
}
SCORES: dict[str, Callable[[Run], float | None]] = {
    LAST: _last_mean,
    BEST: _best_mean,
    GREEDY: lambda run: _last_test_mean(run, "greedy"),
    SAMPLED: lambda run: _last_test_mean(run, "sampled"),
    "env steps/s": _speed,
}
HOW_TO_READ = (
    "Returns are raw, never clipped or scaled, and of whole episodes. In training episodes and sampled "
    "tests, actions are sampled from the policy; greedy tests take its most likely action. ± is one "
    "standard deviation over episodes, n their number. "
    f"There is no best mean before {WINDOW} episodes have finished. Frames are env steps × frame skip; "
    "wall time includes start-up and pauses, and env steps/s is over all of it."
)
HOW_TO_READ_REPEATED = (
    "A configuration is all runs whose options agree but for the seed, the name and where they were "
    "kept, served and tracked. Its numbers are means over runs ± one sample standard deviation over "
    "runs, and the worst run; in the pictures, means reach as far as every run does."
)
