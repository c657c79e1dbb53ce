"""A whole report: pictures, tables, and one HTML file with both.

Runs in the command line's process.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from aa2c.errors import ConfigError
from aa2c.report.groups import group_runs
from aa2c.report.page import as_html
from aa2c.report.panels import COLOURS
from aa2c.report.pictures import draw_loss, draw_test, draw_train
from aa2c.report.reading import read_runs
from aa2c.report.table import notes, summarise, tables

PICTURES = {
    "train.png": (draw_train, "Training episodes", "Curves of the returns and lengths of training "
                  "episodes, and of env steps per second, over env steps."),
    "test.png": (draw_test, "Test episodes", "Curves of the returns and lengths of test episodes, "
                 "greedy and sampled, over env steps."),
    "loss.png": (draw_loss, "Losses", "Curves of the losses, the gradient norm, the learning rate and "
                 "the policy lag over env steps."),
}  # fmt: skip
SUMMARY, PAGE = "summary.md", "report.html"


def draw_report(run_dirs: Sequence[Path], out: Path | None = None) -> list[Path]:
    """Write the pictures, summary.md and report.html; returns their paths.

    `out` is by default the run's own `report` directory, or `./report` for several runs.
    Raises `ConfigError`, which names a directory that is not a run or cannot be written.
    """
    runs = read_runs(run_dirs)
    groups = group_runs(runs)
    if not 1 <= len(groups) <= len(COLOURS):
        raise ConfigError(
            f"name runs of 1 to {len(COLOURS)} configurations, not of {len(groups)}: more could not "
            "be told apart by colour."
        )
    directory = out or (run_dirs[0] if len(runs) == 1 else Path()) / "report"
    pictures = {file: _png(draw(runs)) for file, (draw, _, _) in PICTURES.items()}
    shown = {name: (words, pictures[file]) for file, (_, name, words) in PICTURES.items()}
    envs = ", ".join(dict.fromkeys(run.config.env_name for run in runs))
    title = f"Report: {runs[0].name if len(runs) == 1 else f'{len(runs)} runs'} ({envs})"
    texts = {
        SUMMARY: summarise(runs),
        PAGE: as_html(title, tables(runs), notes(runs), shown),
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for file, png in pictures.items():
            (directory / file).write_bytes(png)
        for file, text in texts.items():
            (directory / file).write_text(text, "utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"--out {directory} cannot be written: {error.strerror}.") from None
    return [directory / file for file in (*pictures, *texts)]


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, dpi=150)
    return file.getvalue()
