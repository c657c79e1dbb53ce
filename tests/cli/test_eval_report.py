"""`eval` and `report`, as a person uses them, on a real run."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
import urllib.request

import pytest

from tests.cli.test_main import aa2c, page_of, start

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run that was stopped once it had been evaluated."""
    directory = tmp_path_factory.mktemp("trained")
    options = ("--total-env-steps", "1000000000", "--eval-interval-s", "1", "--eval-episodes", "2")
    process = start(*options, "--name", "r", cwd=directory)
    try:
        url = page_of(process)
        deadline = time.monotonic() + 90
        while not evaluations(url) and time.monotonic() < deadline:
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[0]
    finally:
        process.kill()
    assert process.returncode == 0
    assert "last test, greedy:" in said
    return directory / "runs" / "r"


def evaluations(url):
    status = json.loads(urllib.request.urlopen(f"{url}status").read())
    return status["evaluator"]["evaluations"]


def test_eval_tells_protocol_and_results_of_both_ways(run_dir, tmp_path, command):
    result = aa2c("eval", str(run_dir), "--episodes", "3", "--max-steps", "200", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    first, protocol, greedy, sampled = result.stdout.splitlines()
    assert re.search(r"CartPole-v1 after [\d,]+ env steps$", first)
    assert "200" in protocol
    assert "seeds from 0" in protocol
    assert greedy.startswith("greedy")
    assert sampled.startswith("sampled")
    again = command("eval", str(run_dir), "--episodes", "3", "--max-steps", "200")
    assert again.stdout == result.stdout


def test_eval_records_the_best_checkpoints_first_game(run_dir, tmp_path, command):
    options = ("--best", "--sampled", "--episodes", "1", "--max-steps", "30")
    video = tmp_path / "deep" / "game.mp4"
    result = command("eval", str(run_dir), *options, "--video", str(video))
    assert result.returncode == 0, result.stderr
    assert "greedy" not in result.stdout
    assert video.read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere"], 2, "nowhere does not exist"),
        (["RUN", "--episodes", "0"], 2, "--episodes 0 must be at least 1"),
        (["RUN", "--seed", "-1"], 2, "--seed -1 must be at least 0"),
        (["RUN", "--max-steps", "0"], 2, "--max-steps 0 must be at least 1"),
        (["RUN", "--episodes", "1", "--max-steps", "5", "--video", "x.gif"], 2, "must end in .mp4"),
    ],
)
def test_mistakes_with_eval_get_one_sentence(
    run_dir, tmp_path, monkeypatch, command, arguments, code, said
):
    monkeypatch.chdir(tmp_path)
    arguments = [str(run_dir) if argument == "RUN" else argument for argument in arguments]
    result = command("eval", *arguments)
    assert result.returncode == code
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_report_prints_where_its_pictures_are(run_dir, tmp_path, monkeypatch, command):
    copy = tmp_path / "other"
    shutil.copytree(run_dir, copy)
    one = aa2c("report", str(run_dir), cwd=tmp_path)
    assert one.returncode == 0, one.stderr
    names = ("train.png", "test.png", "loss.png", "summary.md", "report.html")
    expected = [run_dir / "report" / name for name in names]
    assert one.stdout.splitlines() == [str(path) for path in expected]
    monkeypatch.chdir(tmp_path)
    both = command("report", str(run_dir), str(copy), "--out", "both")
    assert both.returncode == 0, both.stderr
    summary = (tmp_path / "both" / "summary.md").read_text()
    assert "| r |" in summary
    assert "| other |" in summary


def test_report_of_nothing_is_refused_in_a_sentence(tmp_path, command):
    result = command("report", str(tmp_path))
    assert result.returncode == 2
    assert "is not a run" in result.stderr
    assert len(result.stderr.splitlines()) == 1
