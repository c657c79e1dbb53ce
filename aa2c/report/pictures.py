"""The loss, train and test figures of runs; runs of one configuration are drawn as repetitions.

Runs in the command line's process. matplotlib takes a while to import: import this module where it is
used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aa2c.report.groups import Curve
from aa2c.report.panels import (
    COLOURS,
    GREY,
    LOSS_PANELS,
    Picture,
    draw_band,
    draw_line,
    say_if_empty,
    title_of,
)
from aa2c.report.reading import (
    POINTS,
    WINDOW,
    Columns,
    Floats,
    Run,
    group_evaluations,
    thin,
    trailing_mean,
)

EPISODE_PANELS = {"return": "return, raw", "length": "length of an episode [env steps]"}
TEST_LOOKS: dict[str, dict[str, Any]] = {
    "greedy": {"linestyle": "-", "marker": "o"},
    "sampled": {"linestyle": "--", "marker": "s", "markerfacecolor": "white"},
}


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
    if picture.has_lone:
        picture.explain("every second", width=0.8, alpha=0.35)
    picture.explain(f"mean over {picture.smoothed} env steps", width=1.8)
    picture.explain_repeats()
    return picture.finish()


def draw_train(runs: Sequence[Run]) -> Figure:
    """Returns and lengths of the training episodes, and throughput."""
    picture = Picture(runs, "Training episodes", (3, 1), height=8.5, heights=(3.2, 1.2, 1))
    for row, (column, title) in enumerate(EPISODE_PANELS.items()):
        axes = picture.add_panel(row, 0, title)
        for group, colour in picture.groups():
            if group.is_repeated:
                curves = [_trailing(run, column) for run in group.runs]
                picture.draw_repeated(axes, curves, colour)
            else:
                _draw_episodes(axes, group.runs[0], column, colour, has_band=len(runs) == 1)
        say_if_empty(axes, "no training episode has finished yet")
    speed = picture.add_panel(2, 0, f"env steps per second, mean over {picture.smoothed} env steps")
    picture.draw_metric(speed, "env_steps_per_s", "no env step yet")
    speed.set_ylim(bottom=0)
    if picture.has_lone:
        picture.explain("one episode", marker=".", alpha=0.5)
    picture.explain(f"mean of the last {WINDOW} episodes", width=1.8)
    picture.explain_repeats()
    if len(runs) == 1:
        picture.explain_band()
    return picture.finish()


def _trailing(run: Run, column: str) -> Curve:
    rows = run.episodes_of("train")
    return rows["env_steps"], trailing_mean(rows[column])


def _draw_episodes(axes: Axes, run: Run, column: str, colour: str, *, has_band: bool) -> None:
    """A lone run's episodes, their trailing mean, and its band."""
    values = run.episodes_of("train")[column]
    env_steps, mean = _trailing(run, column)
    _draw_points(axes, env_steps, values, colour)
    draw_line(axes, env_steps, mean, colour, linewidth=1.8)
    if has_band:
        shown = thin(mean)
        std = [values[max(0, i - WINDOW + 1) : i + 1].std() for i in shown]
        draw_band(axes, env_steps[shown], mean[shown], np.array(std), colour)


def draw_test(runs: Sequence[Run]) -> Figure:
    """Returns and lengths of the test episodes: the policy alone, greedy and sampled."""
    if not any(len(run.episodes_of(kind)["return"]) for run in runs for kind in TEST_LOOKS):
        return _write_no_tests(runs)
    picture = Picture(runs, "Test episodes", (2, 1), height=7.5, heights=(2.6, 1))
    groups = list(picture.groups())
    for row, (column, title) in enumerate(EPISODE_PANELS.items()):
        axes = picture.add_panel(row, 0, title)
        for group, own in groups:
            for second, (kind, look) in enumerate(TEST_LOOKS.items()):
                # A lone configuration has colours to spare for telling greedy from sampled.
                colour = COLOURS[second] if len(groups) == 1 else own
                if group.is_repeated:
                    tests = (group_evaluations(run.episodes_of(kind), column) for run in group.runs)
                    curves = [(x, mean) for x, mean, _, _ in tests]
                    look = look | {"markersize": _marker_size(max(len(x) for x, _ in curves))}
                    picture.draw_repeated(axes, curves, colour, **look)
                else:
                    episodes = group.runs[0].episodes_of(kind)
                    _draw_evaluations(axes, episodes, column, colour, look)
    for second, (kind, look) in enumerate(TEST_LOOKS.items()):
        colour = COLOURS[second] if len(groups) == 1 else GREY
        picture.explain(f"{kind}, mean", colour=colour, **look)
    if picture.has_lone:
        picture.explain("one episode", marker=".", alpha=0.5)
        picture.explain_band("± one standard deviation over episodes")
    picture.explain_repeats()
    return picture.finish()


def _marker_size(points: int) -> int:
    """More markers would hide the line."""
    return 5 if points <= 80 else 0


def _draw_evaluations(
    axes: Axes, rows: Columns, column: str, colour: str, look: dict[str, Any]
) -> None:
    """Each evaluation's mean, band and episodes."""
    x, mean, std, _ = group_evaluations(rows, column)
    shown = thin(mean)
    size = _marker_size(len(shown))
    axes.plot(x[shown], mean[shown], color=colour, linewidth=1.6, markersize=size, **look)
    _draw_points(axes, rows["env_steps"], rows[column], colour)
    draw_band(axes, x[shown], mean[shown], std[shown], colour)


def _write_no_tests(runs: Sequence[Run]) -> Figure:
    """A figure that says why there is nothing to plot."""
    figure = Figure(figsize=(10, 2.5))
    figure.suptitle(title_of(runs, "Test episodes"), x=0.01, ha="left", fontsize=12)
    text = "No test episodes: the evaluator is off or has not finished an evaluation yet."
    figure.text(0.5, 0.4, text, ha="center", color=GREY)
    return figure


def _draw_points(axes: Axes, x: Floats, y: Floats, colour: str) -> None:
    """Single episodes, faint; an even sample if there are very many."""
    few = np.unique(np.linspace(0, max(len(x) - 1, 0), min(len(x), POINTS)).astype(np.intp))
    size, alpha = (3.5, 0.3) if len(few) > 500 else (5, 0.45)
    points = axes.plot(x[few], y[few], ".", color=colour, markersize=size, zorder=1.5)[0]
    points.set(alpha=alpha, markeredgewidth=0)
