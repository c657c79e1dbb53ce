"""Reading a run's files: rows, damage, resumes, and the statistics of them."""

from __future__ import annotations

import numpy as np
import pytest

from aa2c.report.reading import (
    EPISODES,
    METRICS,
    drop_undone,
    episode_numbers,
    find_resumes,
    group_evaluations,
    measure_speed,
    parse_metrics,
    read_rows,
    read_runs,
    smooth,
    thin,
    trailing_mean,
)
from aa2c.report.report import draw_report
from aa2c.report.table import summarise
from aa2c.run.episodes import HEADER
from tests.report.written_run import episode_row, metrics_row, table_of, write_run


def test_what_a_resume_undid_is_dropped_from_both_files(tmp_path):
    """Stopped at 5000 env steps, resumed from a checkpoint at 3000."""
    metrics = [metrics_row(float(t), t * 100, value=1.0) for t in range(51)]
    metrics += [metrics_row(60.0 + t, 3000 + t * 100, value=2.0) for t in range(41)]
    episodes = [episode_row(t, t * 100, "train", 1.0) for t in range(1, 51)]
    episodes += [episode_row(33.0, 2500, "greedy", 1.0), episode_row(47.0, 4000, "greedy", 1.0)]
    episodes += [episode_row(49.0, 3000, "greedy", 1.0)]  # of the checkpoint itself
    episodes += [episode_row(60.0 + t, 3000 + t * 100, "train", 2.0) for t in range(41)]
    episodes += [episode_row(75.0, 4000, "greedy", 2.0)]
    run = write_run(tmp_path / "run", metrics=metrics, episodes=episodes)
    [read] = read_runs([run])
    assert read.metrics["env_steps"].tolist() == [i * 100 for i in range(71)]
    assert read.metrics["value"].tolist() == [1.0] * 30 + [2.0] * 41
    train, greedy = read.episodes_of("train"), read.episodes_of("greedy")
    assert train["env_steps"].tolist() == [i * 100 for i in range(1, 71)]
    assert train["return"].tolist() == [1.0] * 29 + [2.0] * 41
    assert (greedy["env_steps"].tolist(), greedy["return"].tolist()) == (
        [2500, 3000, 4000], [1, 1, 2]
    )  # fmt: skip
    text = summarise([read])
    assert "Resumes of run: 1;" in text
    assert table_of(text)[0]["wall time [h:mm:ss]"] == "0:01:40"
    draw_report([run])


def test_a_later_resume_may_undo_an_earlier_one():
    steps = np.array([0, 10, 20, 30, 20, 30, 40, 10, 20], float)
    rows = {"time_s": np.arange(9.0), "env_steps": steps}
    times, limits = find_resumes(rows)
    assert (times.tolist(), limits.tolist()) == ([4, 7], [10, 10])
    assert drop_undone(rows, times, limits)["time_s"].tolist() == [0, 7, 8]


def test_an_evaluation_that_ends_late_is_not_taken_for_a_resume(tmp_path):
    [run] = read_runs([write_run(tmp_path / "run")])
    assert run.resumes == 0
    assert len(run.episodes_of("train")["return"]) == 300
    assert run.episodes_of("greedy")["return"].tolist() == [2008, 2010, 4008, 4010]


def test_a_last_line_that_is_being_written_is_neither_used_nor_counted(tmp_path):
    path = write_run(tmp_path / "run")
    for file, cut in (("metrics.jsonl", '{"time_s": 61.0, "pro'), ("episodes.csv", "60.1,60")):
        with (path / file).open("a") as lines:
            lines.write(cut)
    whole_but_for_its_end = episode_row(60.2, 6010, "train", 123).strip()
    [run] = read_runs([path])
    assert (len(run.metrics["time_s"]), run.damaged) == (61, 0)
    (path / "episodes.csv").write_text(HEADER + "\n" + whole_but_for_its_end)
    [run] = read_runs([path])
    assert (len(run.episodes["time_s"]), run.damaged) == (0, 0)


def test_damaged_lines_are_left_out_counted_and_told(tmp_path):
    path = write_run(tmp_path / "run")
    for file, damage in (
        ("metrics.jsonl", [b"{]\n", b"\0\0\0\0\n", b"\xff\xfe\n", b"\n", b"[1, 2]\n"]),
        ("episodes.csv", [b"1,2,train\n", b"60,6000,tr60,6000,train,1,2.0,20\n", b"\0\n"]),
    ):
        lines = (path / file).read_bytes().splitlines(keepends=True)
        (path / file).write_bytes(b"".join([*lines[:5], *damage, *lines[5:]]))
    [run] = read_runs([path])
    assert (len(run.metrics["time_s"]), len(run.episodes["time_s"])) == (61, 308)
    assert run.damaged == 8
    assert "Damaged lines of run, left out: 8." in summarise([run])


def test_a_header_that_a_resumed_run_repeats_is_no_damage(tmp_path):
    path = write_run(tmp_path / "run")
    with (path / "episodes.csv").open("a") as lines:
        lines.write(HEADER + "\n" + episode_row(60, 6000, "train", 1))
    [run] = read_runs([path])
    assert (len(run.episodes["time_s"]), run.damaged) == (309, 0)


@pytest.mark.parametrize(
    "line",
    [
        "null",
        "3",
        "{}",
        '{"time_s": 1}',
        '{"time_s": null, "progress": {"env_steps": 1}}',
        '{"time_s": true, "progress": {"env_steps": 1}}',
        '{"time_s": 1, "progress": {"env_steps": NaN}}',
        '{"time_s": 1, "progress": {"env_steps": -1}}',
        '{"time_s": 1, "progress": {"env_steps": "1"}}',
        '{"time_s": Infinity, "progress": {"env_steps": 1}}',
        '{"time_s": 1, "progress": [{"env_steps": 1}]}',
        '{"time_s": 1, "progress": {"env_steps": 1' + "0" * 400 + "}}",
        '{"time_s": 1, "progress": {"env_steps": 1' + "0" * 5000 + "}}",
        "[" * 100_000,
    ],
    ids=lambda line: line[:60],
)
def test_a_row_of_metrics_without_time_or_env_steps_is_damaged(line):
    assert parse_metrics(line) is None


def test_numbers_that_a_row_of_metrics_lacks_are_not_a_number():
    row = '{"time_s": 1, "progress": {"env_steps": 2}, "losses": {"value": %s}, "policy_lag": 3}'
    for value in ("null", '"a"', "NaN", "-Infinity", "1e300", "[1]", "false"):
        numbers = dict(zip(METRICS, parse_metrics(row % value), strict=True))
        assert (numbers.pop("time_s"), numbers.pop("env_steps")) == (1, 2)
        assert np.isnan(list(numbers.values())).all()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "1,2,train,0,3",
        "1,2,train,0,3,4,5",
        "1,2,test,0,3,4",
        "1,2,train,0,nan,4",
        "1,2,train,0,inf,4",
        "1,nan,train,0,3,4",
        "-1,2,train,0,3,4",
        "1,2,train,0,1e300,4",
        "1,2,train,0,,4",
        "1,2,train,0,3,-4",
    ],
)
def test_an_episode_that_cannot_be_one_is_damaged(line):
    assert episode_numbers(line) is None


def test_an_episode_is_read():
    assert episode_numbers("1.5,200,train,3,-21.0,757") == [1.5, 200, 0, -21, 757]
    assert episode_numbers("1.5,200,greedy,,-21.0,757") == [1.5, 200, 1, -21, 757]
    assert episode_numbers("1.5,200,sampled,,-21.0,757") == [1.5, 200, 2, -21, 757]


def test_rows_of_an_empty_file_are_empty_columns(tmp_path):
    (tmp_path / "empty").write_text("")
    columns, damaged = read_rows(tmp_path / "empty", episode_numbers, EPISODES)
    assert {name: len(column) for name, column in columns.items()} == dict.fromkeys(EPISODES, 0)
    assert damaged == 0


def test_speed_is_measured_without_startup_pauses_of_zero_length_and_resumes():
    rows = {
        "time_s": np.array([0.0, 9, 10, 12, 12, 20, 22]),
        "env_steps": np.array([0.0, 0, 100, 300, 300, 50, 250]),
    }
    speed = measure_speed(rows)
    assert np.isnan(speed).tolist() == [True, True, False, False, True, True, False]
    assert speed[~np.isnan(speed)].tolist() == [100, 100, 100]


def test_thinning_keeps_order_ends_and_extremes():
    values = np.random.default_rng(0).normal(size=50_000)
    values[[123, 40_000]] = 99, -99
    kept = thin(values, 1000)
    assert len(kept) <= 1002
    assert (np.diff(kept) > 0).all()
    assert {0, 123, 40_000, 49_999} <= set(kept.tolist())
    assert thin(values[:1000], 1000).tolist() == list(range(1000))
    assert thin(values[:0], 1000).tolist() == []


def test_smoothing_is_the_mean_within_a_window_of_env_steps():
    x = np.array([0.0, 1, 1, 2, 10])
    y = np.array([1.0, 2, 4, 5, 7])
    assert smooth(x, y, 2).tolist() == [7 / 3, 3, 3, 11 / 3, 7]
    assert smooth(x, y, 0).tolist() == [1, 3, 3, 5, 7]
    assert smooth(x[:0], y[:0], 2).tolist() == []


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 40])
def test_the_trailing_mean_is_over_fewer_values_at_the_start(count):
    values = np.arange(count, dtype=float) ** 2
    expected = [values[max(0, i - 4) : i + 1].mean() for i in range(count)]
    assert trailing_mean(values, 5).tolist() == pytest.approx(expected)


def test_episodes_of_one_evaluation_share_their_env_steps():
    rows = {
        "env_steps": np.array([100.0, 100, 300, 100]),
        "return": np.array([1.0, 2, 9, 6]),
        "length": np.array([5.0, 5, 7, 5]),
    }
    env_steps, mean, std, count = group_evaluations(rows)
    assert (env_steps.tolist(), mean.tolist(), count.tolist()) == ([100, 300], [3, 9], [3, 1])
    assert std.tolist() == pytest.approx([np.std([1, 2, 6]), 0])
    assert group_evaluations(rows, "length")[1].tolist() == [5, 7]
