"""What serve and top show in a terminal: drawn from documents, and by real processes."""

from __future__ import annotations

import copy
import http.server
import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from aa2c import Orchestrator
from aa2c.cli import top
from aa2c.cli.terminal import Terminal, display
from aa2c.run.status import Returns, Status
from aa2c.run.words import progress_line
from tests.cli.test_main import aa2c, page_of, start, wait_for_state
from tests.conftest import until


@pytest.fixture(scope="module")
def status(tmp_path_factory: Any) -> Status:
    """The last status of a real run."""
    from aa2c import Config, train

    runs_dir = str(tmp_path_factory.mktemp("runs"))
    small = Config(workers=2, num_envs=4, total_env_steps=3000, runs_dir=runs_dir)
    return train(small)


def drawn(status: Status, width: int, rows: int = 10) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(display(status, "http://127.0.0.1:8420/", rows))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("episode_returns", "shown"),
    [
        ([], "the last episodes: none finished yet"),
        ([1.0, 3.0], "the last 2 episodes 2.0 ± 1.0"),
        ([1.0, float("nan"), float("-inf")], "the last 3 episodes not finite in 2"),
    ],
)
def test_returns_are_shown_for_what_they_are(status, episode_returns, shown):
    returns = Returns()
    returns.add(episode_returns)
    told = status | {"returns": status["returns"] | {"train": returns.summary()}}
    assert shown in progress_line(told)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_display_fits_and_shows_the_run(status, width):
    lines = drawn(status, width)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    for shown in ("CartPole-v1, mode grad", "finished", "env steps/s", "http://127.0.0.1:8420/"):
        assert shown in text
    words = " ".join(text.split())
    assert status["throughput"]["advice"] in words
    assert "of 3,000 env steps" in words


def test_cpu_memory_and_lag_of_each_process_are_shown(status):
    running = copy.deepcopy(status)
    for child in (running["updater"], running["evaluator"], *running["workers"]):
        child |= {"state": "running", "cpu_share": 0.256, "rss_bytes": 426_700_000}
    running["workers"][1] |= {"policy_lag": 1.24, "restarts": 2, "last_exit": "SIGKILL"}
    rows = [line.split() for line in drawn(running, 80)]
    shown = {" ".join(row[:2]): row for row in rows if "426.7" in row}
    assert [*shown] == ["updater running", "evaluator running", "worker 0", "worker 1"]
    assert all("26%" in row for row in shown.values())
    assert "1.2" in shown["worker 1"]
    assert "SIGKILL" in "\n".join(drawn(running, 80))
    running["evaluator"] |= {"state": "off"}
    assert "evaluator" not in "\n".join(drawn(running, 80))


def test_of_many_workers_those_in_trouble_are_shown(status):
    many = copy.deepcopy(status)
    worker, ring = many["workers"][0], many["rings"][0]
    many["workers"] = [worker | {"id": i, "state": "running", "restarts": 0} for i in range(64)]
    many["rings"] = [ring | {"worker": i} for i in range(64)]
    many["workers"][50] |= {"state": "stopped", "restarts": 7, "last_exit": "SIGSEGV"}
    text = "\n".join(drawn(many, 100, rows=5))
    assert "SIGSEGV" in text
    assert "and 59 more workers" in text


def test_a_status_before_the_first_update_and_a_failed_one_can_be_drawn(status):
    empty = copy.deepcopy(status)
    empty["losses"] = dict.fromkeys(empty["losses"])
    empty["returns"]["train"] |= {"mean": None, "std": None}
    empty["progress"]["time_left_s"] = None
    empty["run"] |= {"state": "failed", "error": "the disk is full"}
    assert any("the disk is full" in line for line in drawn(empty, 80))


def read_terminal(process: subprocess.Popen[Any], fd: int, until: str, timeout: float = 60) -> str:
    """What a process shows on its terminal until it has shown this."""
    shown, deadline = "", time.monotonic() + timeout
    while until not in shown and time.monotonic() < deadline:
        if select.select([fd], [], [], 0.2)[0]:
            try:
                shown += os.read(fd, 65536).decode()
            except OSError:  # the other side is gone
                break
    return shown


@contextmanager
def on_a_terminal(*arguments: str, cwd: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(
        [sys.executable, "-m", "aa2c", *arguments], cwd=cwd, stdin=theirs, stdout=theirs,
        stderr=theirs, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.long
def test_top_shows_a_run_in_a_terminal_and_in_lines_and_ends_with_it(tmp_path):
    process = start("--total-env-steps", "100000000", "--keep-serving", cwd=tmp_path)
    try:
        url = page_of(process)
        wait_for_state(url, "running")
        with on_a_terminal("top", "--url", url, cwd=tmp_path) as (watching, fd):
            shown = read_terminal(watching, fd, "The updater waits") + read_terminal(
                watching, fd, "worker"
            )
            assert re.search(r"CartPole-v1, mode grad", shown)
            watching.send_signal(signal.SIGINT)
            assert watching.wait(20) == 0
        with subprocess.Popen(
            [sys.executable, "-m", "aa2c", "top", "--url", f"{url}#token=x"],
            cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        ) as lines:  # fmt: skip
            assert lines.stdout is not None
            assert "watching  CartPole-v1, mode grad" in lines.stdout.readline()
            assert "bottleneck" in lines.stdout.readline()
            lines.send_signal(signal.SIGINT)
            assert lines.wait(20) == 0
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.mark.long
async def test_top_tells_how_a_run_ended(small, tmp_path):
    import asyncio

    async with Orchestrator(small(total_env_steps=500, port=0), http=True) as run:
        await run.wait()
        result = await asyncio.to_thread(aa2c, "top", "--url", run.url, cwd=tmp_path)
    assert result.returncode == 0
    assert "finished: " in result.stdout
    async with Orchestrator(small(env_kwargs={"nope": 1}, port=0), http=True) as run:
        await until(lambda: run.state == "failed")
        result = await asyncio.to_thread(aa2c, "top", "--url", run.url, cwd=tmp_path)
    assert (result.returncode, "nope" in result.stderr) == (1, True)


class Stranger(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if "good" in self.path else 404)
        self.end_headers()
        self.wfile.write(b"{}" if "json" in self.path else b"hello")

    def log_message(self, *_: Any) -> None: ...


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "404"),
        ("good/", "is not the address of an aa2c run"),
        ("goodjson/", "is not the address"),
    ],
)
def test_what_is_no_run_is_told_in_a_sentence(path, says, command):
    with http.server.HTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{path}"
        result = command("top", "--url", url)
        server.shutdown()
    assert (result.returncode, result.stdout) == (2, "")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/", "ftp://x/", "nonsense", "http://", "http://[::1/", "http://x:y/"]
)
def test_an_address_without_a_run_is_told_in_a_sentence(url, command):
    result = command("top", "--url", url)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"aa2c: --url {url}")
    assert result.stderr.count("\n") == 1


def test_top_gives_a_run_up_that_does_not_answer_for_long(monkeypatch, capsys):
    monkeypatch.setattr(top, "LOST_S", 0.5)
    terminal = Terminal(quiet=False)
    assert top._again(terminal, lambda: top.read_status("http://127.0.0.1:1/", "")) is None
    assert "connection lost" in capsys.readouterr().out
