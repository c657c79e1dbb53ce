"""The command line, as a person uses it: real processes, output and exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import segments

FAST = ("--port", "0", "--workers", "1", "--num-envs", "4", "--eval-interval-s", "0")


def aa2c(*arguments: str, cwd: Path, timeout: float = 90) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aa2c", *arguments],
        cwd=cwd,
        timeout=timeout,
        text=True,
        capture_output=True,
    )


def start(*arguments: str, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "aa2c", "serve", *FAST, *arguments],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **options,
    )


def page_of(process: subprocess.Popen[str]) -> str:
    """The URL that serve prints first, without the token."""
    return process.stdout.readline().split()[-1].partition("#token=")[0]


def wait_for_state(url: str, state: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if json.load(urllib.request.urlopen(f"{url}status"))["run"]["state"] == state:
            return
        time.sleep(0.1)
    pytest.fail(f"the run did not get to {state}")


def test_serve_prints_the_page_progress_and_a_summary_and_exits_0(tmp_path):
    few = ("--total-env-steps", "3000", "--eval-interval-s", "60")
    done = aa2c("serve", *FAST, *few, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"http://127\.0\.0\.1:\d+/#token=[\w-]{43}\n", done.stdout)
    assert re.search(r"finished: \d+,\d\d\d env steps in .* updates, \d+ episodes", done.stdout)
    assert re.search(r"return of the last \d+ episodes", done.stdout)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_run_cleanly_and_exits_0(tmp_path, number):
    before = segments()
    with start("--total-env-steps", "1000000000", cwd=tmp_path) as process:
        wait_for_state(page_of(process), "running")
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert segments() <= before
    assert list(tmp_path.glob("runs/*/checkpoints/step-*/MANIFEST.json"))


@pytest.mark.long
def test_ctrl_c_while_it_comes_up_exits_0_too(tmp_path):
    with start("--total-env-steps", "1000000000", cwd=tmp_path, start_new_session=True) as process:
        page_of(process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to children, too
        output, _ = process.communicate(timeout=15)
    assert process.returncode == 0, output
    assert "Traceback" not in output


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_heard_while_the_libraries_are_still_loading(tmp_path, number):
    with start("--total-env-steps", "1000000000", cwd=tmp_path) as process:
        loaded = Path(f"/proc/{process.pid}/maps")
        while "_multiarray_umath" not in loaded.read_text():  # NumPy
            assert process.poll() is None
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "Traceback" not in output


@pytest.mark.long
def test_a_run_whose_output_nobody_reads_any_more_stops_and_keeps_what_it_has(tmp_path):
    with start("--total-env-steps", "1000000000", cwd=tmp_path) as process:
        wait_for_state(page_of(process), "running")
        process.stdout.close()
        process.wait(timeout=30)
    assert list(tmp_path.glob("runs/*/checkpoints/step-*/MANIFEST.json"))


@pytest.mark.long
def test_keep_serving_leaves_the_endpoint_up_until_it_is_told_to_stop(tmp_path):
    with start("--total-env-steps", "1000", "--keep-serving", cwd=tmp_path) as process:
        url = page_of(process)
        wait_for_state(url, "finished")
        assert urllib.request.urlopen(f"{url}metrics").status == 200
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (["serve", "--workers", "0"], 2, "--workers 0 must be at least 1"),
        (["serve", "--wrokers", "3"], 2, "--workers"),
        (["serve", "--workers", "three"], 2, "--workers"),
        (["serve", "--mode", "guess"], 2, "--mode"),
        (["serve", "--ent-coef", "0.1", "0.2"], 2, "--ent-coef has 2 values for 3 workers"),
        (["serve", "--grad-sync-steps", "9"], 2, "--grad-sync-steps 9 must be a multiple of"),
        (["serve", "--config", "missing.toml"], 2, "--config missing.toml cannot be read"),
        (["serve", "--preset", "grad/pongg"], 2, "--preset grad/pongg does not exist"),
        (["serve", "--learning-rate", "nan"], 2, "--learning-rate is not a finite number"),
        (["serve", "--host", "no.such.name"], 2, "--host no.such.name"),
        (["serve", "--network", "nowhere:make"], 2, "--network nowhere:make"),
        (["serve", "--runs-dir", "/proc/nowhere"], 2, "--runs-dir /proc/nowhere cannot be"),
        (["serve", "--resume", "nowhere"], 2, "--resume nowhere does not exist"),
        (
            ["serve", "--mode", "model", "--max-policy-lag", "1"],
            2,
            "--max-policy-lag needs --mode grad or traj",
        ),
        (
            ["serve", "--mode", "traj", "--update-order", "sum"],
            2,
            "--update-order needs --mode grad or model",
        ),
        (["serve", "--advantage", "vtrace"], 2, "--advantage needs --mode traj"),
        (["serve", "--learning-rate", "3"], 2, "--learning-rate 3.0 must be at most 1"),
        (["presets", "all"], 2, "all"),
        (["srve"], 2, "did you mean serve?"),
        (["serve", "--env", "tests.envs.strange_env:Text-v0"], 3, "TransformObservation"),
        (["serve", "--env", "no_such_module:X-v0"], 2, "no_such_module"),
        (["serve", "--env", "CartPole-v7"], 2, "CartPole"),
        (["serve", "--env", "tests.envs.strange_env:Nope-v0"], 2, "Nope"),
    ],
)
def test_a_mistake_gets_a_sentence_and_its_exit_code(
    tmp_path, monkeypatch, command, arguments, exit_code, says
):
    monkeypatch.chdir(tmp_path)
    free_port = ["--port", "0"] if arguments[0] == "serve" else []
    done = command(*arguments, *free_port)
    assert done.returncode == exit_code, done.stderr
    assert says in done.stderr


def test_a_mistake_is_no_traceback(tmp_path):
    done = aa2c("serve", "--workers", "0", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("aa2c: --workers 0 must be at least 1")


def test_a_broken_config_file_is_named_with_its_key(tmp_path, command):
    file = tmp_path / "my.toml"
    for text, says in (
        ("wrokers = 3", "unknown option 'wrokers'; did you mean workers?"),
        ("workers = '3.5'", "workers = '3.5' is not an integer"),
        ("workers = [", "is not TOML"),
        ("mode = 'fast'", "--mode 'fast' is not one of grad"),
    ):
        file.write_text(text)
        done = command("config", "--config", str(file))
        assert done.returncode == 2
        assert says in done.stderr


def test_config_prints_the_resolved_options_in_order_of_precedence(tmp_path):
    (tmp_path / "my.toml").write_text("workers = 5\nnum_envs = 7\n")
    done = aa2c(
        "config", "--preset", "grad/atari", "--config", "my.toml", "--workers", "6", cwd=tmp_path
    )
    resolved = tomllib.loads(done.stdout)
    assert (resolved["workers"], resolved["num_envs"], resolved["reward_clip"]) == (6, 7, 1.0)
    assert resolved["gamma"] == 0.99


def test_help_needs_no_torch(tmp_path):
    code = (
        "import sys, aa2c.cli.main\n"
        "try: aa2c.cli.main.main(['serve', '--help-all'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'gymnasium' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert "--update-threads" in done.stdout


@pytest.mark.long
def test_a_terminal_gets_a_live_line(tmp_path):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "aa2c", "serve", *FAST, "--total-env-steps", "20000"],
        cwd=tmp_path,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 1)[0]:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    assert process.wait(10) == 0
    assert b"updates/s" in shown
    assert b"finished" in shown
