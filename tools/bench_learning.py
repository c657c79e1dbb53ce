"""How well aa2c learns: tasks x modes x seeds, in a table with curves, beside what was measured before.

    python tools/bench_learning.py [--tasks cartpole ...] [--modes grad ...] [--seeds 5] [--first-seed 0]
        [--jobs N] [--runs DIR] [--flags '--workers 8' ...] [--name NAME] [--out DIR] [--before FILE]

Each run is `serve` with its mode's recipe, at the lowest priority, and as many at a time as there are
cores for: --jobs is the number of cores over a run's processes, at least 1. Runs live in --runs; a finished
one is not repeated and an interrupted one is resumed, so that the same command continues after a Ctrl-C.

A run's score is the mean return of its last 100 training episodes, with sampled actions. The table gives
median, interquartile mean (arXiv:2108.13264) with a 95 % interval by bootstrap over seeds, the worst seed,
how many reached the threshold and how many end there, the share of the last 40 % of env steps in which
the mean was there, and env steps and minutes to it. It is written to --out as results.md and results.json,
with a picture of each task; --before names an earlier results.json: where the intervals of the
interquartile means do not touch, the table says better or worse, and worse ends with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from aa2c.errors import ConfigError
from aa2c.report.reading import WINDOW, Run, read_runs, trailing_mean

FILES = Path(__file__).parent / "learning"
TASKS: dict[str, dict[str, Any]] = tomllib.loads((FILES / "tasks.toml").read_text())
MODES = ("grad", "model", "traj")
CHECKS = 50  # of a run, evenly over its env steps
LATE = 20  # of them, the last
PROCESSES = 4  # of a run that are busy


@dataclass(frozen=True)
class Case:
    """One run to make."""

    task: str
    mode: str
    seed: int
    flags: tuple[str, ...] = ()
    name: str = ""

    @property
    def directory(self) -> str:
        """Within --runs."""
        more = f"-{self.name}" if self.name else ""
        return f"{self.task}-{self.mode}{more}-{self.seed}"

    def command(self, runs: Path) -> list[str]:
        """The command line that makes the run, or continues it."""
        serve = [sys.executable, "-m", "aa2c", "serve", "--quiet", "--port", "0"]
        place = runs / self.directory
        task = TASKS[self.task]
        if (place / "checkpoints").is_dir() and any((place / "checkpoints").iterdir()):
            return [*serve, "--resume", str(place), *_consent(task.get("flags", ""))]
        return [
            *serve,
            *("--mode", self.mode, "--env", task["env"], "--seed", str(self.seed)),
            *("--total-env-steps", str(task["env_steps"]), "--eval-interval-s", "0"),
            *("--runs-dir", str(runs), "--name", self.directory),
            *shlex.split(task.get("flags", "")),
            *shlex.split(task.get(f"{self.mode}_flags", "")),
            *self.flags,
        ]


def _consent(flags: str) -> list[str]:
    """A wrapper is imported again only if it is named again."""
    words = shlex.split(flags)
    return words[words.index("--wrapper") :][:2] if "--wrapper" in words else []


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


def finished(place: Path) -> Run | None:
    """The run there, if it has used up its budget."""
    try:
        (run,) = read_runs([place])
    except ConfigError:
        return None
    return run if run.metrics["env_steps"][-1] >= run.config.total_env_steps else None


def make(case: Case, runs: Path) -> str:
    """Make or continue a run unless it is finished; what went wrong, if anything did."""
    if finished(runs / case.directory):
        return ""
    done = subprocess.run(
        ["nice", "-n", "19", *case.command(runs)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(FILES), os.getenv("PYTHONPATH", "")])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if finished(runs / case.directory):
        return ""
    return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "it was stopped"


def checks(task: str) -> NDArray[np.float64]:
    """The env steps [CHECKS] at which a task's runs are looked at."""
    return np.linspace(0, TASKS[task]["env_steps"], CHECKS + 1)[1:]


def score(run: Run, task: str) -> Score:
    """How well a run learned its task."""
    threshold, rows = TASKS[task]["threshold"], run.episodes_of("train")
    means = trailing_mean(rows["return"])
    last = np.searchsorted(rows["env_steps"], checks(task), side="right") - 1
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


def interquartile_mean(values: NDArray[np.float64], axis: int = -1) -> Any:
    """The mean of the middle half of the values."""
    return stats.trim_mean(values, 0.25, axis=axis)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval of the interquartile mean, by bootstrap over seeds."""
    if len(set(values)) < 2:
        return values[0], values[0]
    found = stats.bootstrap(
        (np.array(values),), interquartile_mean, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(found.low), float(found.high)


def summarise(task: str, mode: str, name: str, scores: Sequence[Score]) -> dict[str, Any]:
    """One row of the table, for JSON."""
    finals = [one.final for one in scores]
    threshold = TASKS[task]["threshold"]
    low, high = interval(finals)
    return {
        "task": task,
        "mode": mode,
        "name": name,
        "threshold": threshold,
        "seeds": len(scores),
        "median": float(np.median(finals)),
        "iqm": float(interquartile_mean(np.array(finals))),
        "low": low,
        "high": high,
        "worst": min(finals),
        "reached": sum(one.steps_to < np.inf for one in scores),
        "ended": sum(final >= threshold for final in finals),
        "late_share": float(np.mean([one.late_share for one in scores])),
        "steps_to": _finite(np.median([one.steps_to for one in scores])),
        "minutes_to": _finite(np.median([one.minutes_to for one in scores])),
        "scores": [{name: _finite(getattr(one, name)) for name in KEPT} for one in scores],
    }


KEPT = ("final", "steps_to", "minutes_to", "late_share")  # of each run's score


def _finite(value: float | np.floating[Any]) -> float | None:
    return float(value) if np.isfinite(value) else None


def verdict(row: dict[str, Any], before: Iterable[dict[str, Any]]) -> str:
    """How a row compares with the one of the same task, mode and name that was measured before."""
    for old in before:
        if all(old[key] == row[key] for key in ("task", "mode", "name")):
            if row["high"] < old["low"]:
                return f"worse ({old['iqm']:.1f})"
            return f"better ({old['iqm']:.1f})" if row["low"] > old["high"] else "as before"
    return "–"


HEADER = (
    "task", "mode", "seeds", "median", "IQM [95 %]", "worst", "reached", "ended there",
    "late share", "env steps to", "minutes to", "before",
)  # fmt: skip


def in_markdown(rows: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]]) -> str:
    """The table."""
    lines = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    for row in rows:
        steps, minutes = row["steps_to"], row["minutes_to"]
        cells = [
            f"{row['task']} ≥ {row['threshold']:g}",
            " ".join(filter(None, (row["mode"], row["name"]))),
            str(row["seeds"]),
            f"{row['median']:.1f}",
            f"{row['iqm']:.1f} [{row['low']:.1f}, {row['high']:.1f}]",
            f"{row['worst']:.1f}",
            f"{row['reached']} of {row['seeds']}",
            f"{row['ended']} of {row['seeds']}",
            f"{row['late_share']:.0%}",
            "–" if steps is None else f"{steps:,.0f}",
            "–" if minutes is None else f"{minutes:.1f}",
            verdict(row, before),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(task: str, curves: dict[str, NDArray[np.float64]], path: Path) -> None:
    """The median curve of each mode, with the range between the quartiles, and the worst seed dotted."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    at = checks(task)
    for label, returns in curves.items():
        low, middle, high = np.nanpercentile(returns, (25, 50, 75), axis=0)
        (line,) = axes.plot(at, middle, label=f"{label}, {len(returns)} seeds")
        axes.fill_between(at, low, high, alpha=0.25, color=line.get_color())
        axes.plot(at, np.nanmin(returns, axis=0), ":", color=line.get_color(), linewidth=1)
    axes.axhline(TASKS[task]["threshold"], color="grey", linewidth=0.8)
    axes.set(xlabel="env steps", ylabel="mean return of 100 episodes", title=TASKS[task]["env"])
    axes.legend()
    figure.savefig(path, dpi=110)


def report(cases: Sequence[Case], runs: Path, out: Path, before: Path | None) -> int:
    """Write the table and pictures of the runs that are finished; 1 if something became worse."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for task in dict.fromkeys(case.task for case in cases):
        curves = {}
        for mode in dict.fromkeys(case.mode for case in cases):
            own = [c for c in cases if (c.task, c.mode) == (task, mode)]
            ended = filter(None, (finished(runs / c.directory) for c in own))
            if scores := [score(run, task) for run in ended]:
                rows.append(summarise(task, mode, own[0].name, scores))
                curves[mode] = np.array([one.curve for one in scores])
        if curves:
            draw(task, curves, out / f"{task}.png")
    earlier = json.loads(before.read_text()) if before else []
    table = in_markdown(rows, earlier)
    (out / "results.md").write_text(table)
    (out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(table)
    return int(any(verdict(row, earlier).startswith("worse") for row in rows))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["cartpole"])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1) // PROCESSES))
    parser.add_argument("--runs", type=Path, default=Path("runs/learning"))
    parser.add_argument("--flags", default="", help="more flags of serve, in one string")
    parser.add_argument("--name", default="", help="tells runs with such flags apart")
    parser.add_argument("--out", type=Path, default=Path("learning"))
    parser.add_argument("--before", type=Path, help="results.json of an earlier measurement")
    given = parser.parse_args(arguments)
    if given.flags and not given.name:
        parser.error("--flags needs a --name")
    return given


def main(arguments: Sequence[str]) -> int:
    """Make all runs, then report them."""
    given = parse(arguments)
    flags = tuple(shlex.split(given.flags))
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    cases = [
        Case(task, mode, seed, flags, given.name)
        for seed in seeds
        for task in given.tasks
        for mode in given.modes
    ]
    given.runs.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(given.jobs) as pool:
        results = pool.map(lambda case: make(case, given.runs), cases)
        for case, wrong in zip(cases, results, strict=True):
            print(f"{case.directory}: {wrong or 'done'}", file=sys.stderr, flush=True)
    return report(cases, given.runs, given.out, given.before)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
