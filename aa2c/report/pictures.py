"""The loss, train and test figures of runs, and a summary table.

Runs in the command line's process. The only home of matplotlib, which takes a while to import: import
this module where it is used. Figures are objects, without pyplot's global state and windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

from aa2c.errors import ConfigError
from aa2c.report.reading import (
    POINTS,
    WINDOW,
    Columns,
    Floats,
    Run,
    group_evaluations,
    read_runs,
    smooth,
    thin,
    trailing_mean,
)
from aa2c.report.table import summarise
from aa2c.run.quantities import QUANTITIES

LOSS_PANELS = {
    quantity.name: quantity.panel + (f" [{quantity.unit}]" if quantity.unit else "")
    for quantity in QUANTITIES
    if quantity.panel
}
EPISODE_PANELS = {"return": "return, raw", "length": "length of an episode [env steps]"}
TEST_LOOKS: dict[str, dict[str, Any]] = {
    "greedy": {"linestyle": "-", "marker": "o"},
    "sampled": {"linestyle": "--", "marker": "s", "markerfacecolor": "white"},
}

SMOOTHED_SHARE = 0.03  # of the env steps drawn
COLOURS = (  # Okabe and Ito's, safe for the colour-blind; yellow last, because it is faint
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442",
)  # fmt: skip
GREY = "#555555"


def draw_report(run_dirs: Sequence[Path], out: Path | None = None) -> list[Path]:
    """Write loss.png, train.png, test.png and summary.md; returns their paths.

    `out` is by default the run's own `report` directory, or `./report` for several runs.
    Raises `ConfigError`, which names a directory that is not a run or cannot be written.
    """
    if not 1 <= len(set(run_dirs)) <= len(COLOURS):
        raise ConfigError(f"name 1 to {len(COLOURS)} runs: more could not be told apart by colour.")
    runs = read_runs(run_dirs)
    directory = out or (run_dirs[0] if len(runs) == 1 else Path()) / "report"
    pictures = {"loss.png": draw_loss, "train.png": draw_train, "test.png": draw_test}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, draw in pictures.items():
            draw(runs).savefig(directory / name, dpi=150)
        (directory / "summary.md").write_text(summarise(runs), "utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"--out {directory} cannot be written: {error.strerror}.") from None
    return [directory / name for name in (*pictures, "summary.md")]


def draw_loss(runs: Sequence[Run]) -> Figure:
    """Losses, gradient norm, learning rate and policy lag: one panel each."""
    panels = dict(LOSS_PANELS)
    if not any((np.nan_to_num(run.metrics["approx_kl"]) != 0).any() for run in runs):
        del panels["approx_kl"]  # no run has it: only mode traj does
    rows = (len(panels) + 1) // 2
    picture = Picture(runs, "Losses", (rows, 2), height=1.2 + 2.1 * rows)
    for index, (name, title) in enumerate(panels.items()):
        wide = index == 2 * rows - 2 and index == len(panels) - 1
        axes = picture.add_panel(index // 2, slice(None) if wide else index % 2, title)
        picture.draw_metric(axes, name, "no update yet")
    picture.explain("every second", width=0.8, alpha=0.35)
    picture.explain(f"mean over {picture.smoothed} env steps", width=1.8)
    return picture.finish()


def draw_train(runs: Sequence[Run]) -> Figure:
    """Returns and lengths of the training episodes, and throughput."""
    picture = Picture(runs, "Training episodes", (3, 1), height=8.5, heights=(3.2, 1.2, 1))
    for row, (column, title) in enumerate(EPISODE_PANELS.items()):
        axes = picture.add_panel(row, 0, title)
        for run, colour in zip(runs, COLOURS, strict=False):
            rows = run.episodes_of("train")
            _draw_points(axes, rows["env_steps"], rows[column], colour)
            mean = trailing_mean(rows[column])
            shown = thin(mean)
            x = rows["env_steps"][shown]
            axes.plot(x, mean[shown], color=colour, linewidth=1.8)
            if len(runs) == 1:
                std = [rows[column][max(0, i - WINDOW + 1) : i + 1].std() for i in shown]
                _draw_band(axes, x, mean[shown], np.array(std), colour)
        _say_if_empty(axes, "no training episode has finished yet")
    speed = picture.add_panel(2, 0, f"env steps per second, mean over {picture.smoothed} env steps")
    picture.draw_metric(speed, "env_steps_per_s", "no env step yet")
    speed.set_ylim(bottom=0)
    picture.explain("one episode", marker=".", alpha=0.5)
    picture.explain(f"mean of the last {WINDOW} episodes", width=1.8)
    if len(runs) == 1:
        picture.explain_band()
    return picture.finish()


def draw_test(runs: Sequence[Run]) -> Figure:
    """Returns and lengths of the test episodes: the policy alone, greedy and sampled."""
    if not any(len(run.episodes_of(kind)["return"]) for run in runs for kind in TEST_LOOKS):
        return _write_no_tests(runs)
    picture = Picture(runs, "Test episodes", (2, 1), height=7.5, heights=(2.6, 1))
    for row, (column, title) in enumerate(EPISODE_PANELS.items()):
        axes = picture.add_panel(row, 0, title)
        for number, run in enumerate(runs):
            for second, (kind, look) in enumerate(TEST_LOOKS.items()):
                # A lone run has colours to spare for telling greedy from sampled.
                colour = COLOURS[second if len(runs) == 1 else number]
                _draw_evaluations(axes, run.episodes_of(kind), column, colour, look)
    for second, (kind, look) in enumerate(TEST_LOOKS.items()):
        colour = COLOURS[second] if len(runs) == 1 else GREY
        picture.explain(f"{kind}, mean", colour=colour, **look)
    picture.explain("one episode", marker=".", alpha=0.5)
    picture.explain_band()
    return picture.finish()


def _draw_evaluations(
    axes: Axes, rows: Columns, column: str, colour: str, look: dict[str, Any]
) -> None:
    """Each evaluation's mean, band and episodes."""
    x, mean, std, _ = group_evaluations(rows, column)
    shown = thin(mean)
    size = 5 if len(shown) <= 80 else 0  # more markers would hide the line
    axes.plot(x[shown], mean[shown], color=colour, linewidth=1.6, markersize=size, **look)
    _draw_points(axes, rows["env_steps"], rows[column], colour)
    _draw_band(axes, x[shown], mean[shown], std[shown], colour)


def _write_no_tests(runs: Sequence[Run]) -> Figure:
    """A figure that says why there is nothing to plot."""
    figure = Figure(figsize=(10, 2.5))
    figure.suptitle(_title(runs, "Test episodes"), x=0.01, ha="left", fontsize=12)
    text = "No test episodes: the evaluator is off or has not finished an evaluation yet."
    figure.text(0.5, 0.4, text, ha="center", color=GREY)
    return figure


def _draw_points(axes: Axes, x: Floats, y: Floats, colour: str) -> None:
    """Single episodes, faint; an even sample if there are very many."""
    few = np.unique(np.linspace(0, max(len(x) - 1, 0), min(len(x), POINTS)).astype(np.intp))
    size, alpha = (3.5, 0.3) if len(few) > 500 else (5, 0.45)
    points = axes.plot(x[few], y[few], ".", color=colour, markersize=size, zorder=1.5)[0]
    points.set(alpha=alpha, markeredgewidth=0)


def _draw_band(axes: Axes, x: Floats, mean: Floats, std: Floats, colour: str) -> None:
    low, high = mean - std, mean + std
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def _say_if_empty(axes: Axes, text: str) -> None:
    """Text in an empty panel."""
    if not any(len(np.asarray(line.get_xdata())) for line in axes.lines):
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)
        axes.set_yticks([])
        axes.grid(visible=False)


class Picture:
    """A figure of panels over a shared axis of env steps, with one title, legend and wall-time axis."""

    def __init__(
        self,
        runs: Sequence[Run],
        subject: str,
        shape: tuple[int, int],
        *,
        height: float,
        heights: Sequence[float] | None = None,
    ) -> None:
        self._runs = runs
        self._figure = Figure(figsize=(10, height), layout="constrained")
        self._figure.suptitle(_title(runs, subject), x=0.01, ha="left", fontsize=12)
        self._grid = self._figure.add_gridspec(*shape, height_ratios=heights)
        self._panels: list[Axes] = []
        self._legend: list[Artist] = []
        columns = [rows["env_steps"] for run in runs for rows in (run.metrics, run.episodes)]
        self._end = max((column[-1] for column in columns if len(column)), default=0) or 1.0
        self._width = float(f"{SMOOTHED_SHARE * self._end:.1g}")  # round, for the legend
        self.smoothed = EngFormatter(sep="")(self._width)
        if len(runs) > 1:
            for run, colour in zip(runs, COLOURS, strict=False):
                self.explain(_drawable(run.name, 50), colour=colour, width=3)

    def add_panel(self, row: int, column: int | slice, title: str) -> Axes:
        """A panel in the grid."""
        shared = self._panels[0] if self._panels else None
        axes = self._figure.add_subplot(self._grid[row, column], sharex=shared)
        axes.set_title(title, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=9, color=GREY, labelcolor="#333333")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        self._panels.append(axes)
        return axes

    def draw_metric(self, axes: Axes, name: str, empty: str) -> None:
        """A metric over time, raw and smoothed where both are informative."""
        faint = 0.35 / len(self._runs) ** 0.5
        for run, colour in zip(self._runs, COLOURS, strict=False):
            known = np.isfinite(run.metrics[name])
            if name in LOSS_PANELS:
                known &= run.metrics["updates"] != 0  # zeros before the first update mean nothing
            if name == "approx_kl":
                known &= run.metrics[name] != 0
            x, y = run.metrics["env_steps"][known], run.metrics[name][known]
            lines = [(y, 0.8, faint, 2.0), (smooth(x, y, self._width), 1.8, 1.0, 3.0)]
            if name == "learning_rate":  # noiseless, and smoothing would bend its ends
                lines = [(y, 1.8, 1.0, 3.0)]
            elif name == "env_steps_per_s":  # bursts would flatten everything else
                del lines[0]
            for values, width, alpha, over in lines:
                shown = thin(values)
                line = axes.plot(x[shown], values[shown], color=colour, zorder=over)[0]
                line.set(linewidth=width, alpha=alpha)
        _say_if_empty(axes, empty)

    def explain(
        self, text: str, *, colour: str = "", width: float = 1.6, alpha: float = 1.0, **look: Any
    ) -> None:
        """Add a line to the legend."""
        colour = colour or (COLOURS[0] if len(self._runs) == 1 else GREY)
        look = {"linestyle": "" if look.get("marker") == "." else "-"} | look
        self._legend.append(
            Line2D([], [], color=colour, linewidth=width, alpha=alpha, label=text, **look)
        )

    def explain_band(self) -> None:
        """Add the shaded band to the legend."""
        colour = COLOURS[0] if len(self._runs) == 1 else GREY
        self._legend.append(Patch(facecolor=colour, alpha=0.2, label="± one standard deviation"))

    def finish(self) -> Figure:
        """The figure, with axes, wall time and legend."""
        for axes in self._panels:
            axes.set_xlim(0, 1.01 * self._end)  # so that the last marker is whole
            place = axes.get_subplotspec()
            assert place is not None
            axes.tick_params(labelbottom=place.is_last_row() or self._grid.ncols > 1)
            if place.is_last_row():
                axes.set_xlabel("env steps", fontsize=9)
            # Runs differ in speed, so that one time axis would mislead.
            if place.is_first_row() and len(self._runs) == 1:
                self._add_wall_time(axes)
        longest = max(len(str(artist.get_label())) for artist in self._legend)
        columns = max(1, min(len(self._legend), 150 // (longest + 8)))
        self._figure.legend(
            handles=self._legend, loc="outside lower left", ncols=columns, frameon=False, fontsize=9
        )
        return self._figure

    def _add_wall_time(self, axes: Axes) -> None:
        """A wall-time axis on top, whose ticks never crowd."""
        metrics = self._runs[0].metrics
        ticks, unit = wall_time_ticks(metrics["time_s"], metrics["env_steps"], 0.045 * self._end)
        above = axes.secondary_xaxis("top")
        above.set_xticks([x for x, _ in ticks], [label for _, label in ticks])
        above.tick_params(labelsize=9, color=GREY, labelcolor=GREY)
        above.spines["top"].set_color("#aaaaaa")
        above.set_xlabel(f"wall time [{unit}]", fontsize=9, color=GREY, loc="right")
        axes.set_title(axes.get_title(loc="left"), loc="left", fontsize=10, y=1, pad=22)


def wall_time_ticks(
    time_s: Floats, env_steps: Floats, apart: float
) -> tuple[list[tuple[float, str]], str]:
    """Env steps and labels of round times, at least `apart` env steps apart, and their unit."""
    end = float(time_s.max(initial=0))
    units = ((4 * 86400, 86400, "days"), (4 * 3600, 3600, "h"), (300, 60, "min"), (0, 1, "s"))
    seconds, unit = next((size, unit) for least, size, unit in units if end >= least)
    ticks: list[tuple[float, str]] = []
    for value in MaxNLocator(nbins=9, steps=[1, 2, 5, 10]).tick_values(0, end / seconds):
        x = float(np.interp(value * seconds, np.maximum.accumulate(time_s), env_steps))
        if 0 <= value * seconds <= end and (not ticks or x - ticks[-1][0] >= apart):
            ticks.append((x, f"{value:g}"))
    return ticks, unit


def _title(runs: Sequence[Run], subject: str) -> str:
    configs = [run.config for run in runs]
    envs = ", ".join(dict.fromkeys(config.env_name for config in configs))
    modes = ", ".join(dict.fromkeys(config.mode for config in configs))
    title = f"{subject}: {_drawable(envs, 60)}, mode{'s' if ',' in modes else ''} {modes}"
    if len(runs) > 1:
        return title
    config = configs[0]
    crew = f"{config.workers} workers × {config.num_envs} environments, seed {config.seed}"
    return f"{title}\n{_drawable(runs[0].name, 60)}: {crew}"


def _drawable(text: str, length: int) -> str:
    """The text as matplotlib can draw it: no mathtext, no characters without a glyph."""
    text = text if len(text) <= length else text[: length - 3] + "..."
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text.encode("latin-1", "replace").decode("latin-1").replace("$", r"\$")
