"""A figure of panels over a shared axis of env steps: what all pictures of a report have in common.

Figures are objects, without pyplot's global state and windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

from aa2c.report.groups import Curve, Group, group_runs, mean_over
from aa2c.report.reading import Floats, Run, smooth, thin
from aa2c.run.quantities import QUANTITIES

LOSS_PANELS = {
    quantity.name: quantity.panel + (f" [{quantity.unit}]" if quantity.unit else "")
    for quantity in QUANTITIES
    if quantity.panel
}
SMOOTHED_SHARE = 0.03  # of the env steps drawn
COLOURS = (  # Okabe and Ito's, safe for the colour-blind; yellow last, because it is faint
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442",
)  # fmt: skip
GREY = "#555555"


class Picture:
    """A figure of panels, with one title, legend and wall-time axis, and a colour for each configuration."""

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
        self._groups = group_runs(runs)
        self.has_lone = not all(group.is_repeated for group in self._groups)
        self._figure = Figure(figsize=(10, height), layout="constrained")
        self._figure.suptitle(title_of(runs, subject), x=0.01, ha="left", fontsize=12)
        self._grid = self._figure.add_gridspec(*shape, height_ratios=heights)
        self._panels: list[Axes] = []
        self._legend: list[Artist] = []
        columns = [rows["env_steps"] for run in runs for rows in (run.metrics, run.episodes)]
        self._end = max((column[-1] for column in columns if len(column)), default=0) or 1.0
        self._width = float(f"{SMOOTHED_SHARE * self._end:.1g}")  # round, for the legend
        self.smoothed = EngFormatter(sep="")(self._width)
        if len(self._groups) > 1:
            for group, colour in self.groups():
                self.explain(drawable(group.name, 50), colour=colour, width=3)

    def groups(self) -> Iterator[tuple[Group, str]]:
        """Each configuration and its colour."""
        yield from zip(self._groups, COLOURS, strict=False)

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
        """A metric over time: of a lone run raw and smoothed, where both are informative."""
        for group, colour in self.groups():
            curves = [_known(run, name) for run in group.runs]
            smoothed = [(x, smooth(x, y, self._width)) for x, y in curves]
            if name == "learning_rate":  # noiseless, and smoothing would bend its ends
                smoothed = curves
            elif name != "env_steps_per_s" and not group.is_repeated:
                faint = 0.35 / len(self._runs) ** 0.5  # bursts of speed would flatten the rest
                draw_line(axes, *curves[0], colour, linewidth=0.8, alpha=faint, zorder=2)
            if group.is_repeated:
                self.draw_repeated(axes, smoothed, colour)
            else:
                draw_line(axes, *smoothed[0], colour, linewidth=1.8, zorder=3)
        say_if_empty(axes, empty)

    def draw_repeated(self, axes: Axes, curves: Sequence[Curve], colour: str, **look: Any) -> None:
        """A line for each run of a configuration, faint, and their mean and std."""
        for x, y in curves:
            draw_line(axes, x, y, colour, linewidth=0.8, alpha=0.4, zorder=2, **look)
        x, mean, std = mean_over(curves)
        draw_line(axes, x, mean, colour, linewidth=2.2, zorder=3, **look | {"marker": ""})
        draw_band(axes, x, mean, std, colour)

    def explain(
        self, text: str, *, colour: str = "", width: float = 1.6, alpha: float = 1.0, **look: Any
    ) -> None:
        """Add a line to the legend."""
        colour = colour or (COLOURS[0] if len(self._groups) == 1 else GREY)
        look = {"linestyle": "" if look.get("marker") == "." else "-"} | look
        self._legend.append(
            Line2D([], [], color=colour, linewidth=width, alpha=alpha, label=text, **look)
        )

    def explain_repeats(self) -> None:
        """Add the lines and the band of repeated runs to the legend."""
        if any(group.is_repeated for group in self._groups):
            self.explain("one run", width=0.8, alpha=0.6)
            self.explain("mean of the runs of a configuration", width=2.2)
            self.explain_band("± one standard deviation over runs")

    def explain_band(self, text: str = "± one standard deviation") -> None:
        """Add the shaded band to the legend."""
        colour = COLOURS[0] if len(self._groups) == 1 else GREY
        self._legend.append(Patch(facecolor=colour, alpha=0.2, label=text))

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


def title_of(runs: Sequence[Run], subject: str) -> str:
    """What is drawn, and of which runs."""
    configs = [run.config for run in runs]
    envs = ", ".join(dict.fromkeys(config.env_name for config in configs))
    modes = ", ".join(dict.fromkeys(config.mode for config in configs))
    title = f"{subject}: {drawable(envs, 60)}, mode{'s' if ',' in modes else ''} {modes}"
    if len(runs) > 1:
        return f"{title}, {len(runs)} runs"
    config = configs[0]
    crew = f"{config.workers} workers × {config.num_envs} environments, seed {config.seed}"
    return f"{title}\n{drawable(runs[0].name, 60)}: {crew}"


def drawable(text: str, length: int) -> str:
    """The text as matplotlib can draw it: no mathtext, no characters without a glyph."""
    text = text if len(text) <= length else text[: length - 3] + "..."
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text.encode("latin-1", "replace").decode("latin-1").replace("$", r"\$")


def draw_line(axes: Axes, x: Floats, y: Floats, colour: str, **look: Any) -> None:
    """A line of few points that looks like that of all."""
    shown = thin(y)
    axes.plot(x[shown], y[shown], color=colour, **look)


def draw_band(axes: Axes, x: Floats, mean: Floats, std: Floats, colour: str) -> None:
    """One standard deviation on both sides."""
    low, high = mean - std, mean + std
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def say_if_empty(axes: Axes, text: str) -> None:
    """Text in an empty panel."""
    if not any(len(np.asarray(line.get_xdata())) for line in axes.lines):
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)
        axes.set_yticks([])
        axes.grid(visible=False)


def _known(run: Run, name: str) -> Curve:
    """Env steps and values of a metric, where there are any."""
    values = run.metrics[name]
    known = np.isfinite(values)
    if name in LOSS_PANELS:
        known &= run.metrics["updates"] != 0  # zeros before the first update mean nothing
    if name == "approx_kl":
        known &= values != 0
    return run.metrics["env_steps"][known], values[known]
