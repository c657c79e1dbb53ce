from __future__ import annotations

import json
import re
import struct
import time

import numpy as np
import pytest

from aa2c.config.config import Config
from aa2c.config.toml import to_toml
from aa2c.errors import ConfigError
from aa2c.report.pictures import (
    Picture,
    draw_loss,
    draw_report,
    draw_test,
    draw_train,
    wall_time_ticks,
)
from aa2c.report.reading import (
    EPISODES,
    EPISODES_HEADER,
    METRICS,
    drop_undone,
    find_resumes,
    group_evaluations,
    measure_speed,
    parse_episode,
    parse_metrics,
    read_rows,
    read_runs,
    smooth,
    thin,
    trailing_mean,
)
from aa2c.report.table import summarise

NAMES = ["loss.png", "train.png", "test.png", "summary.md"]


def metrics_row(time_s, env_steps, **losses):
    """A line of metrics.jsonl, with the keys that a run writes."""
    progress = {"env_steps": env_steps, "updates": env_steps // 10, "policy_version": 3}
    losses = {
        **dict.fromkeys(("policy", "value", "entropy", "grad_norm", "learning_rate"), 0.5),
        "approx_kl": 0.0,
        **losses,
    }
    lag = {"min": 0, "mean": 1.5, "max": 3}
    row = {"time_s": time_s, "progress": progress, "losses": losses, "policy_lag": lag}
    return json.dumps(row | {"throughput": {"env_steps_per_s": 100.0}}) + "\n"


def episode_row(time_s, env_steps, kind, episode_return, length=20):
    worker = 1 if kind == "train" else ""
    return f"{time_s},{env_steps},{kind},{worker},{episode_return},{length}\r\n"


def write_run(directory, metrics=None, episodes=None, **options):
    """A run of 60 seconds at 100 env steps a second, with 300 episodes that get better."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.toml").write_text(to_toml(Config(**options)))
    if metrics is None:
        metrics = [metrics_row(float(t), t * 100) for t in range(61)]
    if episodes is None:
        episodes = [episode_row(i / 5, i * 20, "train", min(i, 200)) for i in range(1, 301)]
        for env_steps in (2000, 4000):  # evaluations end after training has gone on
            rows = [("greedy", 8), ("greedy", 10), ("sampled", 5), ("sampled", 9)]
            at = env_steps // 20 + 12
            episodes[at:at] = [
                episode_row(env_steps / 100 + 2, env_steps, kind, r + env_steps) for kind, r in rows
            ]
    (directory / "metrics.jsonl").write_text("".join(metrics))
    (directory / "episodes.csv").write_text(EPISODES_HEADER + "\r\n" + "".join(episodes))
    return directory


def size_of(png):
    data = png.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-8:-4] == b"IEND"
    return struct.unpack(">II", data[16:24])


def table_of(summary):
    """The rows of the summary's table, by column."""
    lines = [line for line in summary.splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def words(figure):
    return [t.get_text() for axes in figure.axes for t in axes.texts] + [
        t.get_text() for t in figure.texts
    ]


def test_a_run_gets_three_pictures_and_a_summary_in_its_own_directory(tmp_path):
    run = write_run(tmp_path / "run")
    paths = draw_report([run])
    assert paths == [run / "report" / name for name in NAMES]
    for path in paths[:3]:
        width, height = size_of(path)
        assert 1000 <= width <= 2000
        assert 700 <= height <= 2000
        assert path.stat().st_size > 10_000


def test_the_report_goes_where_it_is_asked_to(tmp_path):
    run = write_run(tmp_path / "run")
    assert draw_report([run], tmp_path / "a" / "b")[0] == tmp_path / "a" / "b" / "loss.png"
    assert not (run / "report").exists()
    before = (tmp_path / "a/b/summary.md").read_text()
    draw_report([run], tmp_path / "a" / "b")
    assert (tmp_path / "a/b/summary.md").read_text() == before


def test_several_runs_go_into_the_same_pictures_in_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [write_run(tmp_path / name, mode=name) for name in ("grad", "traj")]
    paths = draw_report(runs)
    assert [str(path) for path in paths] == [f"report/{name}" for name in NAMES]
    assert [row["run"] for row in table_of(paths[3].read_text())] == ["grad", "traj"]


def test_summary_numbers_are_those_computed_by_hand(tmp_path):
    returns = np.random.default_rng(3).normal(0, 1, 300) + np.linspace(-20, 10, 300)
    episodes = [episode_row(i / 5, i * 20, "train", r) for i, r in enumerate(returns, 1)]
    episodes += [episode_row(30, 2000, "greedy", r) for r in (100, 200)]
    episodes += [episode_row(40, 4000, "greedy", r) for r in (1, 2, 6)]
    options = {"env": "ALE/Pong-v5", "frame_skip": 3, "seed": 7, "workers": 2, "num_envs": 5}
    run = write_run(tmp_path / "hand", episodes=episodes, **options)
    [row] = table_of(summarise(read_runs([run])))
    means = [sum(returns[i - 100 : i]) / 100 for i in range(100, 301)]
    risen = next(i for i, m in enumerate(means) if m - means[0] >= 0.95 * (max(means) - means[0]))
    last = returns[-100:]
    rise = "env steps to 95% of the rise from the first to the best mean"
    assert row == {
        "run": "hand",
        "environment": "ALE/Pong-v5",
        "mode": "grad",
        "workers × environments": "2 × 5",
        "seed": "7",
        "env steps": "6,000",
        "frames": "18,000",
        "wall time [h:mm:ss]": "0:01:00",
        "env steps/s": "100",
        "training episodes": "300",
        "best mean return of 100 episodes": f"{max(means):.2f}",
        "mean return of the last 100 episodes": f"{last.mean():.2f} ± {last.std():.2f} (n = 100)",
        rise: f"{(100 + risen) * 20:,}",
        "last test, greedy": f"3.00 ± {np.sqrt(14 / 3):.2f} (n = 3)",
        "last test, sampled": "–",
    }


def test_only_atari_has_frames_and_fewer_episodes_than_the_window_have_no_best(tmp_path):
    run = write_run(tmp_path / "run", episodes=[episode_row(1, 100, "train", r) for r in (3, 5)])
    [row] = table_of(summarise(read_runs([run])))
    assert row["frames"] == "–"
    assert row["best mean return of 100 episodes"] == "–"
    assert row["mean return of the last 100 episodes"] == "4.00 ± 1.00 (n = 2)"


def test_the_summary_says_how_to_read_it(tmp_path):
    text = summarise(read_runs([write_run(tmp_path / "run")]))
    for word in ("raw", "whole episodes", "sampled", "greedy", "standard deviation"):
        assert word in text
    assert "amaged" not in text
    assert "esume" not in text


def test_what_a_resume_undid_is_dropped_from_both_files(tmp_path):
    """Stopped at 5000 env steps, resumed from a checkpoint at 3000."""
    metrics = [metrics_row(float(t), t * 100, value=1.0) for t in range(51)]
    metrics += [metrics_row(60.0 + t, 3000 + t * 100, value=2.0) for t in range(41)]
    episodes = [episode_row(t, t * 100, "train", 1.0) for t in range(1, 51)]
    episodes += [episode_row(33.0, 2500, "greedy", 1.0), episode_row(47.0, 4000, "greedy", 1.0)]
    episodes += [episode_row(60.0 + t, 3000 + t * 100, "train", 2.0) for t in range(41)]
    episodes += [episode_row(75.0, 4000, "greedy", 2.0)]
    run = write_run(tmp_path / "run", metrics=metrics, episodes=episodes)
    [read] = read_runs([run])
    assert read.metrics["env_steps"].tolist() == [i * 100 for i in range(71)]
    assert read.metrics["value"].tolist() == [1.0] * 30 + [2.0] * 41
    train, greedy = read.episodes_of("train"), read.episodes_of("greedy")
    assert train["env_steps"].tolist() == [i * 100 for i in range(1, 71)]
    assert train["return"].tolist() == [1.0] * 29 + [2.0] * 41
    assert (greedy["env_steps"].tolist(), greedy["return"].tolist()) == ([2500, 4000], [1, 2])
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
    (path / "episodes.csv").write_text(EPISODES_HEADER + "\n" + whole_but_for_its_end)
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
        lines.write(EPISODES_HEADER + "\n" + episode_row(60, 6000, "train", 1))
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
    assert parse_episode(line) is None


def test_an_episode_is_read():
    assert parse_episode("1.5,200,train,3,-21.0,757") == [1.5, 200, 0, -21, 757]
    assert parse_episode("1.5,200,greedy,,-21.0,757") == [1.5, 200, 1, -21, 757]
    assert parse_episode("1.5,200,sampled,,-21.0,757") == [1.5, 200, 2, -21, 757]


def test_rows_of_an_empty_file_are_empty_columns(tmp_path):
    (tmp_path / "empty").write_text("")
    columns, damaged = read_rows(tmp_path / "empty", parse_episode, EPISODES)
    assert {name: len(column) for name, column in columns.items()} == dict.fromkeys(EPISODES, 0)
    assert damaged == 0


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda run: (run / "config.toml").unlink(), "is not a run: it has no config.toml."),
        (lambda run: (run / "metrics.jsonl").unlink(), "is not a run: it has no metrics.jsonl."),
        (lambda run: (run / "config.toml").write_text("= ="), "is not TOML"),
        (lambda run: (run / "config.toml").write_bytes(b"\xff"), "is not TOML"),
        (lambda run: (run / "config.toml").write_text("wrokers = 3"), "unknown option 'wrokers'"),
        (lambda run: (run / "config.toml").write_text("workers = 0"), "--workers 0 must be"),
        (lambda run: (run / "metrics.jsonl").write_text(""), "has no rows of metrics yet"),
        (lambda run: (run / "metrics.jsonl").write_text("{"), "has no rows of metrics yet"),
    ],
)
def test_what_is_wrong_with_a_run_is_said_in_one_sentence_that_names_it(tmp_path, spoil, says):
    run = write_run(tmp_path / "run")
    spoil(run)
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        draw_report([run])
    message = str(caught.value)
    assert str(run) in message
    assert "\n" not in message
    assert not (run / "report").exists()


def test_a_directory_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere is not a run"):
        draw_report([tmp_path / "nowhere"])


def test_a_file_in_the_way_of_the_report_is_named(tmp_path):
    run = write_run(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--out .*file cannot be written"):
        draw_report([run], tmp_path / "file")


def test_no_runs_and_more_runs_than_colours_are_refused(tmp_path):
    for count in (0, 9):
        with pytest.raises(ConfigError, match="1 to 8 runs"):
            draw_report([tmp_path / str(i) for i in range(count)])


def test_a_run_without_test_episodes_gets_a_picture_that_says_so(tmp_path):
    run = write_run(tmp_path / "run", episodes=[episode_row(1, 100, "train", 1)])
    assert any("No test episodes" in text for text in words(draw_test(read_runs([run]))))
    assert size_of(draw_report([run])[2])[0] > 1000


def test_a_run_that_has_only_begun_is_drawn(tmp_path):
    run = write_run(tmp_path / "run", metrics=[metrics_row(0.001, 0)], episodes=[])
    assert "no training episode has finished yet" in words(draw_train(read_runs([run])))
    assert "no update yet" in words(draw_loss(read_runs([run])))
    draw_report([run])
    (run / "episodes.csv").unlink()
    draw_report([run])


def test_hostile_contents_are_drawn_or_left_out_and_never_crash(tmp_path):
    rows = [
        {"time_s": 5, "progress": {"env_steps": 900}, "losses": "none", "policy_lag": {"mean": []}},
        {"time_s": 1e17, "progress": {"env_steps": 1e17}, "losses": {"value": -1e17}},
        {"time_s": 3, "progress": {"env_steps": 7, "updates": "many"}, "throughput": None},
        {"time_s": 0, "progress": {"env_steps": 2**52}, "losses": {"approx_kl": 1e-300}},
    ]
    metrics = [json.dumps(row) + "\n" for row in rows]
    episodes = [episode_row(1e17, 3, "train", 1e17), episode_row(0, 0, "sampled", -1e17)]
    run = write_run(
        tmp_path / "_$x_^{$|*é漢\n\t😀", metrics=metrics, episodes=episodes, env="a:$\\frac$|b"
    )
    twin = write_run(tmp_path / "other" / run.name)
    draw_report([run])
    paths = draw_report([run, twin, twin], tmp_path / "out")
    assert len(table_of(paths[3].read_text())) == 2


def test_runs_that_are_called_the_same_are_told_apart_by_their_paths(tmp_path):
    runs = [write_run(tmp_path / parent / "run") for parent in "ab"]
    assert [run.name for run in read_runs(runs)] == [str(path) for path in runs]


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
    runs = read_runs([write_run(tmp_path / name) for name in "ab"])
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
