"""Whole reports: which files are written, the summary, and what is refused."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from aa2c.errors import ConfigError
from aa2c.report.reading import read_runs
from aa2c.report.report import draw_report
from aa2c.report.table import summarise
from tests.report.written_run import episode_row, size_of, table_of, write_run

NAMES = ["train.png", "test.png", "loss.png", "summary.md", "report.html"]


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
    assert draw_report([run], tmp_path / "a" / "b")[0] == tmp_path / "a" / "b" / "train.png"
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
        "last test, greedy": f"3.00 ± {np.sqrt(14 / 3):.2f} (n = 3, after 4,000 env steps)",
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


def test_no_runs_and_more_configurations_than_colours_are_refused(tmp_path):
    runs = [write_run(tmp_path / str(workers), workers=workers) for workers in range(1, 10)]
    for named in ([], runs):
        with pytest.raises(ConfigError, match=f"of 1 to 8 configurations, not of {len(named)}"):
            draw_report(named, tmp_path / "out")


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
