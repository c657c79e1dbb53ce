"""A batch system's warnings before its time limit: a checkpoint, and the run goes on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from aa2c.cli import main
from aa2c.cli.signals import born_deaf
from tests.cli.test_main import page_of, start, wait_for_state


def wait_for_text(path, text, process):
    deadline = time.monotonic() + 60
    while text not in path.read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline, path.read_text()
        time.sleep(0.05)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_warning_leads_to_a_checkpoint_and_the_run_goes_on(tmp_path, number):
    """Whoever gets it, for some batch systems signal each process of a job, and however early."""
    long = ("--total-env-steps", "1000000000", "--checkpoint-interval-s", "100000")
    with start(*long, cwd=tmp_path) as process:
        wait_for_state(page_of(process), "running")  # one of its processes, or the run
        (run,) = tmp_path.glob("runs/*")
        for child in psutil.Process(process.pid).children():
            if child.name().startswith("aa2c-"):
                child.send_signal(number)
        process.send_signal(number)
        wait_for_text(run / "marks.jsonl", '"checkpoint"', process)
        saved = len(list(run.glob("checkpoints/step-*/MANIFEST.json")))
        process.send_signal(signal.SIGXCPU)
        output, _ = process.communicate(timeout=60)
    assert saved == 1
    assert process.returncode == 0, output
    assert "checkpoint written: " in output
    assert "started again" not in (run / "log.jsonl").read_text()


@pytest.mark.long
def test_ctrl_c_ends_a_measurement_with_all_its_processes_in_one_line(tmp_path):
    bench = [sys.executable, "-m", "aa2c", "bench", "--seconds", "100", "--workers", "1"]
    with subprocess.Popen(
        bench, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:  # fmt: skip
        measuring = psutil.Process(process.pid)
        while not any("spawn_main" in str(it.cmdline()) for it in measuring.children()):
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to children, too
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "")
    assert errors.splitlines()[-1] == "aa2c: interrupted"
    assert "Traceback" not in errors


def test_ctrl_c_waits_until_processes_have_been_started():
    """Even if another thread takes the signal, for Python interrupts the main thread then."""
    ended, (hears, told) = threading.Event(), socket.socketpair()
    other = threading.Thread(target=ended.wait)
    other.start()
    told.setblocking(False)
    answered_before = signal.getsignal(signal.SIGINT)
    heard_before = signal.set_wakeup_fd(told.fileno())
    started = []

    def start_some():
        with born_deaf():
            signal.pthread_kill(other.ident, signal.SIGINT)
            hears.recv(1)
            started.append("all")

    try:
        with hears, told, pytest.raises(KeyboardInterrupt):
            start_some()
    finally:
        signal.set_wakeup_fd(heard_before)
        ended.set()
        other.join()
    assert started == ["all"]
    assert signal.getsignal(signal.SIGINT) == answered_before


def test_an_interrupted_command_says_so(command, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    for name in ("eval", "report", "export"):
        monkeypatch.setitem(main.COMMANDS, name, interrupt)
        done = command(name, "runs/it")
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "aa2c: interrupted\n")


def blocks(pid, number):
    """Whether a process lets this signal wait."""
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigBlk:"))
    return int(mask, 16) >> (number - 1) & 1


@pytest.mark.long
def test_signals_to_a_whole_job_end_nobody_who_has_just_begun(tmp_path):
    """The run gets a warning as soon as its interpreter lives, and each child all of them at its birth.

    They are updater, worker, and the resource tracker of multiprocessing.
    """
    with start("--total-env-steps", "1000000000", cwd=tmp_path) as process:
        while not blocks(process.pid, signal.SIGUSR1):
            assert process.poll() is None
        process.send_signal(signal.SIGUSR1)
        born = set()
        while len(born) < 3:
            assert process.poll() is None
            for child in set(psutil.Process(process.pid).children()) - born:
                if any("aa2c.host.child" in word or "tracker" in word for word in child.cmdline()):
                    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
                        child.send_signal(number)
                    born.add(child)
        (run,) = tmp_path.glob("runs/*")
        wait_for_text(run / "marks.jsonl", '"checkpoint"', process)
        assert all(child.is_running() for child in born)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "started again" not in (run / "log.jsonl").read_text()
