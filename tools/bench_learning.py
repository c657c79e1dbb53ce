"""How well aa2c learns: tasks x modes x conditions x seeds, in a table with curves, beside the last release's.

    python tools/bench_learning.py [--tasks cartpole ...] [--modes grad ...] [--seeds 8] [--first-seed 0]
        [--conditions usual workers-1 workers-8 pinned slow-worker] [--jobs N] [--nice N] [--runs DIR]
        [--flags '--gamma 0.97' --name NAME] [--out DIR] [--before FILE] [--only-report]
    python tools/bench_learning.py --of RUN ... --threshold 18 [--out DIR]

Each run is `serve` with its mode's recipe, at the lowest priority unless --nice says otherwise, and as many
at a time as there are cores for: --jobs is the number of cores over a run's processes, at least 1. Runs live
in --runs; a finished one is not repeated and an interrupted one is resumed, so that the same command continues
after a Ctrl-C. With --only-report it makes none. All figures are computed from the runs' own files.

A run's score is the mean return of its last 100 training episodes, with sampled actions. The table gives
median, interquartile mean (arXiv:2108.13264) with a 95 % interval by bootstrap over seeds, the worst seed,
how many reached the threshold and how many end there, the share of the last 40 % of env steps in which
the mean was there, and env steps and minutes to it. It is written to --out as results.md and results.json,
with a picture of each task and condition.

The table is compared with the last release's, in tools/learning/baseline.json, or with the results.json that
--before names: what became worse beyond chance is said (learning/comparison.py tells how), and the exit code is 1.

--of computes the same table from any runs, finished or not, without making or comparing any.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from learning.comparison import Row, counterpart, found_worse, interquartile_mean
from learning.runs import CONDITIONS, FILES, TASKS, USUAL, Case, Condition, Maker, finished
from numpy.typing import NDArray
from scipy import stats

from aa2c.errors import ConfigError
from aa2c.report.reading import WINDOW, Run, read_runs, trailing_mean

MODES = ("grad", "model", "traj")
BASELINE = FILES / "baseline.json"
CHECKS = 50  # of a run, evenly over its env steps
LATE = 20  # of them, the last
PROCESSES = 4  # of a run that are busy


@dataclass(frozen=True)
class Score:
    """What one run came to; of a run that never reached the threshold, `steps_to` is infinite.

    `curve` [CHECKS] are the mean returns of the last 100 episodes at each check.
    """

    curve: NDArray[np.float64]
    final: float
    steps_to: float
    minutes_to: float
    late_share: float


KEPT = ("final", "steps_to", "minutes_to", "late_share")  # of each run's score


@dataclass(frozen=True)
class Cell:
    """A row of the table: what its runs have in common."""

    task: str
    env: str
    env_steps: int
    threshold: float
    mode: str
    condition: str


def checks(env_steps: int) -> NDArray[np.float64]:
    """The env steps [CHECKS] at which runs with this budget are looked at."""
    return np.linspace(0, env_steps, CHECKS + 1)[1:]


def score(run: Run, threshold: float) -> Score:
    """How well a run learned its task. At least one of its episodes has ended."""
    rows = run.episodes_of("train")
    means = trailing_mean(rows["return"])
    last = np.searchsorted(rows["env_steps"], checks(run.config.total_env_steps), side="right") - 1
    curve = np.where(last >= 0, means[last], np.nan)
    reached = np.flatnonzero(means[WINDOW - 1 :] >= threshold)
    first = reached[0] + WINDOW - 1 if len(reached) else None
    return Score(
        curve=curve,
        final=float(means[-1]),
        steps_to=float(rows["env_steps"][first]) if first is not None else np.inf,
        minutes_to=float(rows["time_s"][first]) / 60 if first is not None else np.inf,
        late_share=float((curve[-LATE:] >= threshold).mean()),
    )


def interval(values: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval of the interquartile mean, by bootstrap over seeds."""
    if len(set(values)) < 2:
        return values[0], values[0]
    found = stats.bootstrap(
        (np.array(values),), interquartile_mean, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(found.low), float(found.high)


def summarise(cell: Cell, scores: Sequence[Score]) -> Row:
    """One row of the table, for JSON."""
    finals = [one.final for one in scores]
    low, high = interval(finals)
    return vars(cell) | {
        "seeds": len(scores),
        "median": float(np.median(finals)),
        "iqm": float(interquartile_mean(np.array(finals))),
        "low": low,
        "high": high,
        "worst": min(finals),
        "reached": sum(one.steps_to < np.inf for one in scores),
        "ended": sum(final >= cell.threshold for final in finals),
        "late_share": float(np.mean([one.late_share for one in scores])),
        "steps_to": _finite(np.median([one.steps_to for one in scores])),
        "minutes_to": _finite(np.median([one.minutes_to for one in scores])),
        "scores": [{name: _finite(getattr(one, name)) for name in KEPT} for one in scores],
    }


def _finite(value: float | np.floating[Any]) -> float | None:
    return float(value) if np.isfinite(value) else None


HEADER = (
    "task", "mode", "condition", "seeds", "median", "IQM [95 %]", "worst", "reached", "ended there",
    "late share", "env steps to", "minutes to", "IQM before",
)  # fmt: skip


def in_markdown(rows: Sequence[Row], before: Sequence[Row]) -> str:
    """The table."""
    lines = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    for row in rows:
        steps, minutes, old = row["steps_to"], row["minutes_to"], counterpart(row, before)
        cells = [
            f"{row['task']} ≥ {row['threshold']:g}",
            row["mode"],
            row["condition"],
            str(row["seeds"]),
            f"{row['median']:.1f}",
            f"{row['iqm']:.1f} [{row['low']:.1f}, {row['high']:.1f}]",
            f"{row['worst']:.1f}",
            f"{row['reached']} of {row['seeds']}",
            f"{row['ended']} of {row['seeds']}",
            f"{row['late_share']:.0%}",
            "–" if steps is None else f"{steps:,.0f}",
            "–" if minutes is None else f"{minutes:.1f}",
            f"{old['iqm']:.1f}" if old else "–",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(curves: dict[Cell, NDArray[np.float64]], path: Path) -> None:
    """The median curve of each mode, with the range between the quartiles, and the worst seed dotted."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for cell, returns in curves.items():
        known = ~np.isnan(returns).all(axis=0)  # not before a first episode has ended
        at, returns = checks(cell.env_steps)[known], returns[:, known]
        low, middle, high = np.nanpercentile(returns, (25, 50, 75), axis=0)
        (line,) = axes.plot(at, middle, label=f"{cell.mode}, {len(returns)} seeds")
        axes.fill_between(at, low, high, alpha=0.25, color=line.get_color())
        axes.plot(at, np.nanmin(returns, axis=0), ":", color=line.get_color(), linewidth=1)
        axes.axhline(cell.threshold, color="grey", linewidth=0.8)
    axes.set(xlabel="env steps", ylabel="mean return of 100 episodes")
    axes.set_title(f"{cell.env}, {cell.condition}")
    axes.legend()
    figure.savefig(path, dpi=110)


def report(found: dict[Cell, list[Score]], out: Path, before: Sequence[Row]) -> int:
    """Write the table and pictures; 1 if something became worse than before."""
    out.mkdir(parents=True, exist_ok=True)
    rows = [summarise(cell, scores) for cell, scores in found.items()]
    pictures: dict[str, dict[Cell, NDArray[np.float64]]] = {}
    for cell, scores in found.items():
        drawn = pictures.setdefault(f"{cell.task.replace('/', '-')}-{cell.condition}.png", {})
        drawn[cell] = np.array([one.curve for one in scores])
    for name, curves in pictures.items():
        draw(curves, out / name)
    table = in_markdown(rows, before)
    (out / "results.md").write_text(table)
    (out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(table)
    worse = found_worse(rows, before)
    for change in worse:
        print(f"Worse than before, beyond chance: {change}.")
    compared = sum(counterpart(row, before) is not None for row in rows)
    print(f"{compared} of {len(rows)} rows compared with earlier ones.")
    return int(bool(worse))


def of_cases(cases: Sequence[Case], runs: Path) -> dict[Cell, list[Score]]:
    """The scores of those that are finished."""
    found: dict[Cell, list[Score]] = {}
    for case in sorted(cases, key=lambda case: (case.task, case.condition.name, case.mode)):
        if run := finished(runs / case.directory):
            task = TASKS[case.task]
            sizes = task["env"], task["env_steps"], task["threshold"]
            cell = Cell(case.task, *sizes, case.mode, case.condition.name)
            found.setdefault(cell, []).append(score(run, cell.threshold))
    return found


def of_runs(runs: Sequence[Run], threshold: float) -> dict[Cell, list[Score]]:
    """The scores of any runs in which an episode has ended."""
    found: dict[Cell, list[Score]] = {}
    for run in runs:
        of = run.config
        workers = f"workers-{of.workers}"
        cell = Cell(of.env, of.env, of.total_env_steps, threshold, of.mode, workers)
        if len(run.episodes_of("train")["return"]):
            found.setdefault(cell, []).append(score(run, threshold))
    return found


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["cartpole"])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=[USUAL.name])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1) // PROCESSES))
    parser.add_argument("--nice", type=int, default=19)
    parser.add_argument("--runs", type=Path, default=Path("runs/learning"))
    parser.add_argument("--flags", default="", help="more flags of serve, in one string")
    parser.add_argument("--name", default="", help="tells conditions with such flags apart")
    parser.add_argument("--out", type=Path, default=Path("learning"))
    parser.add_argument("--before", type=Path, default=BASELINE, help="an earlier results.json")
    parser.add_argument("--only-report", action="store_true", help="of the runs that are there")
    parser.add_argument("--of", nargs="+", type=Path, metavar="RUN", help="report these runs")
    parser.add_argument("--threshold", type=float, help="of the runs of --of")
    given = parser.parse_args(arguments)
    if bool(given.flags) != bool(given.name):
        parser.error("--flags and --name need each other")
    if bool(given.of) != (given.threshold is not None):
        parser.error("--of and --threshold need each other")
    return given


def conditions_of(given: argparse.Namespace) -> list[Condition]:
    """Those asked for, each with --flags."""
    chosen = [CONDITIONS[name] for name in given.conditions]
    if not given.name:
        return chosen
    flags = tuple(shlex.split(given.flags))
    return [replace(c, name=f"{c.name}-{given.name}", flags=c.flags + flags) for c in chosen]


def main(arguments: Sequence[str]) -> int:
    """Make all runs, then report them."""
    given = parse(arguments)
    if given.of:
        return report(of_runs(read_runs(given.of), given.threshold), given.out, [])
    before = json.loads(given.before.read_text())
    cases = [
        Case(task, mode, seed, condition)
        for seed in range(given.first_seed, given.first_seed + given.seeds)
        for task in given.tasks
        for condition in conditions_of(given)
        for mode in given.modes
    ]
    if not given.only_report:
        given.runs.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(given.jobs) as pool:
            results = pool.map(Maker(given.runs, given.nice).make, cases)
            for case, wrong in zip(cases, results, strict=True):
                print(f"{case.directory}: {wrong or 'done'}", file=sys.stderr, flush=True)
    return report(of_cases(cases, given.runs), given.out, before)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ConfigError, OSError) as error:
        sys.exit(f"bench_learning: {error}")
