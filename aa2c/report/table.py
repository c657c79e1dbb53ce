"""The summary table: one row per run, in Markdown.

Runs in the command line's process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from aa2c.report.reading import WINDOW, Run, group_evaluations, trailing_mean

RISE = 0.95


def summarise(runs: Sequence[Run]) -> str:
    """The Markdown of summary.md."""
    rows = [list(SUMMARY), ["---"] * len(SUMMARY)]
    rows += [[_cell(tell(run)) for tell in SUMMARY.values()] for run in runs]
    lines = ["# Report", "", *(f"| {' | '.join(row)} |" for row in rows), "", HOW_TO_READ]
    for run in runs:
        if run.resumes:
            undone = "rows that were undone by them are left out"
            lines += ["", f"Resumes of {_cell(run.name)}: {run.resumes}; {undone}."]
        if run.damaged:
            lines += ["", f"Damaged lines of {_cell(run.name)}, left out: {run.damaged}."]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")


def _env_steps(run: Run) -> float:
    return float(run.metrics["env_steps"][-1])


def _frames(run: Run) -> str:
    env = run.config.env_name
    atari = "ALE/" in env or "NoFrameskip" in env or "Deterministic" in env
    return f"{_env_steps(run) * run.config.frame_skip:,.0f}" if atari else "–"


def _in_hours(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


def _best(run: Run) -> tuple[str, str]:
    """The best mean over full windows, and the env steps after which most of the rise was done."""
    rows = run.episodes_of("train")
    means = trailing_mean(rows["return"])[WINDOW - 1 :]
    if not len(means):
        return "–", "–"
    best = means.max()
    risen = np.argmax(means >= best - (1 - RISE) * (best - means[0]))
    return f"{best:,.2f}", f"{rows['env_steps'][WINDOW - 1 :][risen]:,.0f}"


def _last(run: Run) -> str:
    last = run.episodes_of("train")["return"][-WINDOW:]
    return f"{last.mean():,.2f} ± {last.std():,.2f} (n = {len(last)})" if len(last) else "–"


def _last_test(run: Run, kind: str) -> str:
    tests = group_evaluations(run.episodes_of(kind))
    if not len(tests[0]):
        return "–"
    env_steps, mean, std, count = (column[-1] for column in tests)
    return f"{mean:,.2f} ± {std:,.2f} (n = {count:.0f}, after {env_steps:,.0f} env steps)"


SUMMARY: dict[str, Callable[[Run], str]] = {
    "run": lambda run: run.name,
    "environment": lambda run: run.config.env_name,
    "mode": lambda run: run.config.mode,
    "workers × environments": lambda run: f"{run.config.workers} × {run.config.num_envs}",
    "seed": lambda run: str(run.config.seed),
    "env steps": lambda run: f"{_env_steps(run):,.0f}",
    "frames": lambda run: _frames(run),
    "wall time [h:mm:ss]": lambda run: _in_hours(run.wall_time_s),
    "env steps/s": lambda run: f"{_env_steps(run) / max(run.wall_time_s, 1e-3):,.0f}",
    "training episodes": lambda run: f"{len(run.episodes_of('train')['return']):,}",
    f"best mean return of {WINDOW} episodes": lambda run: _best(run)[0],
    f"mean return of the last {WINDOW} episodes": lambda run: _last(run),
    f"env steps to {RISE:.0%} of the rise from the first to the best mean": lambda run: _best(run)[
        1
    ],
    "last test, greedy": lambda run: _last_test(run, "greedy"),
    "last test, sampled": lambda run: _last_test(run, "sampled"),
}
HOW_TO_READ = (
    "Returns are raw, never clipped or scaled, and of whole episodes. In training episodes and sampled "
    "tests, actions are sampled from the policy; greedy tests take its most likely action. ± is one "
    "standard deviation over episodes, n their number. "
    f"There is no best mean before {WINDOW} episodes have finished. Frames are env steps × frame skip; "
    "wall time includes start-up and pauses, and env steps/s is over all of it."
)
