"""Runs of one configuration as repetitions: groups, their statistics, curves and the page."""

from __future__ import annotations

import html.parser
import re

import numpy as np
import pytest

from aa2c.report.groups import differences, group_runs, mean_over
from aa2c.report.pictures import draw_loss, draw_test, draw_train
from aa2c.report.reading import read_runs
from aa2c.report.report import draw_report
from aa2c.report.table import CONFIGURATIONS, OPTIONS, summarise
from tests.report.written_run import episode_row, legend, table_of, write_run


@pytest.fixture
def runs(tmp_path):
    """Three seeds of one learning rate, two of another."""
    dirs = []
    for rate, seeds in ((0.001, (1, 2, 5)), (0.01, (1, 2))):
        for seed in seeds:
            episodes = [episode_row(i / 5, i * 20, "train", seed * 10) for i in range(1, 201)]
            episodes.append(episode_row(40, 4000, "greedy", seed * 100))
            where = {"runs_dir": str(tmp_path / str(seed)), "port": seed, "name": f"n{seed}"}
            path = tmp_path / f"{rate}-{seed}"
            dirs.append(write_run(path, episodes=episodes, learning_rate=rate, seed=seed, **where))
    return dirs


def test_runs_that_differ_in_seed_name_and_place_are_one_configuration(runs):
    groups = group_runs(read_runs(runs))
    assert [[run.config.seed for run in group.runs] for group in groups] == [[1, 2, 5], [1, 2]]
    assert differences(groups) == {"learning_rate": ["0.001", "0.01"]}
    assert [group.name for group in groups] == [
        "learning_rate 0.001 (3 runs)",
        "learning_rate 0.01 (2 runs)",
    ]


def test_a_lone_run_keeps_its_name_and_a_long_list_of_options_gives_way_to_one(tmp_path):
    lone = write_run(tmp_path / "lone")
    long = {"env": "a_module_with_a_long_name:AnEnvironmentWithALongName-v0"}
    pair = [write_run(tmp_path / f"p{seed}", seed=seed, **long) for seed in (0, 1)]
    groups = group_runs(read_runs([lone, *pair]))
    assert [group.name for group in groups] == ["lone", "p0 and 1 more"]
    short = [write_run(tmp_path / f"s{seed}", seed=seed) for seed in (0, 1)]
    assert group_runs(read_runs(short))[0].name == "env CartPole-v1, mode grad (2 runs)"


def test_the_table_has_mean_sample_std_and_worst_over_runs(runs):
    first, second = table_of(summarise(read_runs(runs)), CONFIGURATIONS)
    assert first["seeds"] == "1, 2, 5"
    std = np.std([10, 20, 50], ddof=1)
    assert first["mean return of the last 100 episodes"] == f"26.67 ± {std:.2f}, worst 10.00"
    assert second["last test, greedy"] == "150.00 ± 70.71, worst 100.00"
    assert second["last test, sampled"] == "–"


def test_a_run_that_reached_nothing_yet_is_said_to_be_missing(tmp_path):
    empty = write_run(tmp_path / "empty", episodes=[], seed=1)
    full = write_run(tmp_path / "full", episodes=[episode_row(1, 100, "train", 7)])
    [row] = table_of(summarise(read_runs([empty, full])), CONFIGURATIONS)
    assert row["mean return of the last 100 episodes"] == "7.00, worst 7.00 (1 of 2 runs)"


def test_a_name_has_as_few_options_as_tell_the_configurations_apart(tmp_path):
    dirs = [
        write_run(tmp_path / f"{i}-{seed}", seed=seed, **options)
        for i, options in enumerate(
            [{"workers": 2}, {"workers": 2, "gamma": 0.9}, {"workers": 4, "gae_lambda": 0.9}]
        )
        for seed in (0, 1)
    ]
    assert [group.name for group in group_runs(read_runs(dirs))] == [
        "workers 2, gamma 0.99 (2 runs)",
        "workers 2, gamma 0.9 (2 runs)",
        "workers 4, gamma 0.99 (2 runs)",
    ]


def test_the_options_that_differ_are_listed_with_their_values(runs, tmp_path):
    other = write_run(tmp_path / "other", mode="traj", hidden_sizes=(8, 8), minibatches=6)
    rows = table_of(summarise(read_runs([runs[0], other])), OPTIONS)
    assert {row.pop("option"): tuple(row.values()) for row in rows} == {
        "mode": ('"grad"', '"traj"'),
        "hidden_sizes": ("[64, 64]", "[8, 8]"),
        "minibatches": ("–", "6"),
    }
    one = summarise(read_runs(runs[:3]))
    assert OPTIONS not in one
    assert CONFIGURATIONS not in summarise(read_runs([runs[0], other])), "nothing is repeated"


def test_a_mean_over_curves_reaches_as_far_as_all_of_them():
    curves = [(np.array([0.0, 10]), np.array([0.0, 10])), (np.array([5.0, 20]), np.array([7.0, 7]))]
    x, mean, std = mean_over(curves)
    assert (x[0], x[-1]) == (5, 10)
    assert (mean[0], mean[-1]) == (6, 8.5)
    assert std[0] == pytest.approx(np.std([5, 7], ddof=1))
    for few in (curves[:1], [], [curves[0], (np.array([30.0]), np.array([1.0]))]):
        assert [len(part) for part in mean_over(few)] == [0, 0, 0]


def test_each_configuration_has_one_colour_and_its_runs_are_faint(runs):
    read = read_runs(runs)
    for draw in (draw_train, draw_test, draw_loss):
        figure = draw(read)
        assert legend(figure)[:2] == [group.name for group in group_runs(read)]
        assert "± one standard deviation over runs" in legend(figure)
        assert "one episode" not in legend(figure)
    axes = draw_train(read).axes[0]
    colours = [line.get_color() for line in axes.lines]
    assert colours == ["#0072B2"] * 4 + ["#D55E00"] * 3
    assert [line.get_alpha() for line in axes.lines[:4]] == [0.4, 0.4, 0.4, None]
    assert axes.lines[3].get_ydata()[-1] == pytest.approx(80 / 3)


class Page(html.parser.HTMLParser):
    """What a page asks of others, and what it says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.said += data


def test_the_page_has_everything_within_it_and_runs_nothing(runs):
    path = draw_report(runs, runs[0] / "report")[-1]
    page = Page(path.read_text())
    assert path.name == "report.html"
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert (page.tags.count("img"), page.tags.count("table")) == (3, 3)
    assert "script" not in page.tags
    assert "learning_rate 0.001 (3 runs)" in page.said
    assert re.search(r"26\.67 ± [\d.]+, worst 10\.00", page.said)


def test_a_hostile_name_is_text(tmp_path):
    run = write_run(tmp_path / "<script>alert(1)<" / "<b>", env='a:"><img src=x onerror=y>')
    page = Page(draw_report([run])[-1].read_text())
    assert "b" not in page.tags
    assert page.tags.count("img") == 3
