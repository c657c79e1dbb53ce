"""The pictures: panels, titles, legends, axes."""

from __future__ import annotations

import time

import numpy as np
import pytest

from aa2c.report.panels import Picture, wall_time_ticks
from aa2c.report.pictures import draw_loss, draw_test, draw_train
from aa2c.report.reading import read_runs
from aa2c.report.report import draw_report
from tests.report.written_run import (
    episode_row,
    legend,
    metrics_row,
    size_of,
    titles,
    words,
    write_run,
)


def test_a_run_without_test_episodes_gets_a_picture_that_says_so(tmp_path):
    run = write_run(tmp_path / "run", episodes=[episode_row(1, 100, "train", 1)])
    assert any("No test episodes" in text for text in words(draw_test(read_runs([run]))))
    assert size_of(draw_report([run])[1])[0] > 1000


def test_a_run_that_has_only_begun_is_drawn(tmp_path):
    run = write_run(tmp_path / "run", metrics=[metrics_row(0.001, 0)], episodes=[])
    assert "no training episode has finished yet" in words(draw_train(read_runs([run])))
    assert "no update yet" in words(draw_loss(read_runs([run])))
    draw_report([run])
    (run / "episodes.csv").unlink()
    draw_report([run])


def test_the_panels_are_those_of_numbers_that_the_mode_has(tmp_path):
    grad = write_run(tmp_path / "grad")
    rows = [metrics_row(float(t), t * 100, approx_kl=0.01) for t in range(9)]
    traj = write_run(tmp_path / "traj", metrics=rows, mode="traj")
    without = titles(draw_loss(read_runs([grad])))
    assert without == [
        "policy loss", "value loss", "entropy [nats]", "gradient norm", "learning rate",
        "policy lag, mean [versions]",
    ]  # fmt: skip
    assert "approx_kl [nats]" in titles(draw_loss(read_runs([grad, traj])))


def test_before_the_first_update_there_are_no_losses(tmp_path):
    metrics = [metrics_row(float(t), 5 * t, value=float(t)) for t in range(5)]
    figure = draw_loss(read_runs([write_run(tmp_path / "run", metrics=metrics)]))
    value = next(a for a in figure.axes if a.get_title(loc="left") == "value loss")
    assert value.lines[0].get_ydata().tolist() == [2, 3, 4]


def test_titles_name_the_environment_and_mode_and_the_legend_the_runs(tmp_path):
    runs = read_runs([write_run(tmp_path / mode, mode=mode) for mode in ("grad", "traj")])
    for draw in (draw_loss, draw_train, draw_test):
        figure = draw(runs)
        assert "CartPole-v1, modes grad, traj" in figure.get_suptitle()
        assert legend(figure)[:2] == ["grad", "traj"]
        alone = draw(runs[1:])
        assert "CartPole-v1, mode traj\ntraj: 3 workers" in alone.get_suptitle()


def test_each_run_has_one_colour_and_each_kind_of_test_one_line_style(tmp_path):
    runs = read_runs([write_run(tmp_path / mode, mode=mode) for mode in ("grad", "traj")])
    lines = [line for line in draw_test(runs).axes[0].lines if line.get_linestyle() != "None"]
    looks = [(line.get_color(), line.get_linestyle()) for line in lines]
    assert looks == [("#0072B2", "-"), ("#0072B2", "--"), ("#D55E00", "-"), ("#D55E00", "--")]
    assert lines[0].get_ydata().tolist() == [2009, 4009]


def test_the_wall_time_axis_is_that_of_a_lone_run(tmp_path):
    runs = read_runs([write_run(tmp_path / name) for name in "ab"])

    def labels(figure):
        return [child.get_xlabel() for axes in figure.axes for child in axes.child_axes]

    assert labels(draw_train(runs[:1])) == ["wall time [s]"]
    assert labels(draw_train(runs)) == []


def test_wall_time_ticks_sit_where_that_time_was_and_never_on_a_heap():
    time_s = np.array([0.0, 600, 1200, 1800, 3000])  # 10 minutes of start, then ever faster
    env_steps = np.array([0.0, 0, 1000, 1000, 9000])
    ticks, unit = wall_time_ticks(time_s, env_steps, apart=300)
    assert unit == "min"
    assert ticks[0] == (0, "0")
    assert ("40", 5000) in [(label, x) for x, label in ticks]
    assert np.diff([x for x, _ in ticks]).min() >= 300


@pytest.mark.parametrize(
    ("seconds", "unit"), [(0, "s"), (200, "s"), (3600, "min"), (90_000, "h"), (1e6, "days")]
)
def test_wall_time_has_a_unit_that_suits_it(seconds, unit):
    ticks, chosen = wall_time_ticks(np.array([0.0, seconds]), np.array([0.0, 100]), 1)
    assert chosen == unit
    assert all(0 <= x <= 100 for x, _ in ticks)


def test_a_long_run_is_drawn_from_few_points(tmp_path):
    metrics = [metrics_row(float(t), t * 100, value=float(t % 97)) for t in range(8000)]
    episodes = [episode_row(i / 5, i * 40, "train", i % 31) for i in range(20_000)]
    runs = read_runs([write_run(tmp_path / "run", metrics=metrics, episodes=episodes)])
    began = time.process_time()
    for draw in (draw_loss, draw_train):
        for axes in draw(runs).axes:
            assert all(len(line.get_xdata()) <= 3002 for line in axes.lines)
    assert time.process_time() - began < 10


def test_the_legend_covers_neither_a_panel_nor_its_labels(tmp_path):
    runs = read_runs([write_run(tmp_path / "run")])
    picture = Picture(runs, "Losses", (1, 1), height=4)
    axes = picture.add_panel(0, 0, "panel")
    picture.explain("a line")
    figure = picture.finish()
    figure.draw_without_rendering()
    assert not figure.legends[0].get_window_extent().overlaps(axes.get_tightbbox())
