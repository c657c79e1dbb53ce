"""Machines as they are: how a run behaves where something is missing that it takes for granted."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tests.conftest import not_checked, program

SERVE = ("serve", "--port", "0", "--workers", "1", "--num-envs", "4", "--eval-interval-s", "0")
SMALL = (*SERVE, "--total-env-steps", "500", "--name", "run")


def aa2c(*arguments, cwd, before="", around=(), **options):
    """The command line, in a process in which `before` was run first."""
    code = f"{before}\nimport sys\nfrom aa2c.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    command = [*around, sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100, **options)


@pytest.mark.long
def test_without_standard_descriptors_a_run_trains_as_with_them(tmp_path):
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    done = aa2c(*SMALL, cwd=tmp_path, around=closed)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.glob("runs/run/checkpoints/step-*/MANIFEST.json"))
    assert (tmp_path / "runs/run/output.log").read_text() == ""


@pytest.mark.parametrize("name", ["serve", "bench", "eval", "top", "presets", "config", "doctor"])
def test_every_command_refuses_another_system_in_one_sentence(monkeypatch, command, name):
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    done = command(name)
    assert done.returncode == 3
    assert done.stderr.startswith("aa2c: aa2c runs on Linux only, and this is Darwin: use ")
    assert len(done.stderr.splitlines()) == 1


def limited(soft, hard):
    return f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))"


@pytest.mark.long
def test_of_the_open_files_that_it_may_have_a_run_takes_what_it_needs(tmp_path):
    done = aa2c(*SMALL, cwd=tmp_path, before=limited(24, 4096))
    assert done.returncode == 0, done.stderr


def test_too_few_open_files_are_refused_with_the_remedy_and_nothing_is_left(tmp_path):
    done = aa2c(*SMALL, cwd=tmp_path, before=limited(32, 32))
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("aa2c: this run needs ")
    assert "ulimit -n 1024" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.glob("runs/*")) == []


@pytest.mark.long
@pytest.mark.parametrize(
    "missing",
    [
        "del os.pidfd_open, os.eventfd",
        "def none(*_):\n    raise OSError(errno.ENOSYS, 'Function not implemented')\n"
        "os.pidfd_open = os.eventfd = none",
    ],
    ids=["Python was built without", "the kernel is without"],
)
def test_a_kernel_without_pidfd_and_eventfd_trains_as_well(tmp_path, missing):
    done = aa2c(*SMALL, cwd=tmp_path, before=f"import os, errno\n{missing}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("runs/run/checkpoints/step-*/MANIFEST.json"))


def unshare(*options):
    """A command that runs another in namespaces of its own."""
    found = program("a run in namespaces of its own", "unshare")
    command = [found, *options]
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        not_checked("a run in namespaces of its own", "they cannot be made here")
    return command


@pytest.mark.long
def test_a_user_without_a_name_or_a_home_can_train(tmp_path):
    around = unshare("--user", "--map-user=54321", "--map-group=54321")
    nobody = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(filter(None, sys.path))}
    done = aa2c(*SMALL, cwd=tmp_path, around=around, env=nobody)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("mount -t tmpfs -o ro tmpfs /dev/shm", "/dev/shm cannot be written (Read-only file system)"),
        ("mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9",
         "/dev/shm cannot be used (No such file or directory)"),
    ],
    ids=["read-only", "none"],
)  # fmt: skip
def test_a_missing_dev_shm_is_refused_with_the_remedy(tmp_path, change, said):
    around = [*unshare("--mount"), "sh", "-c", f'{change} && exec "$@"', "sh"]
    done = aa2c(*SMALL, cwd=tmp_path, around=around)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert done.stderr.startswith(f"aa2c: {said}: ")
    assert "mount -t tmpfs -o mode=1777 tmpfs /dev/shm" in done.stderr
    assert list(tmp_path.glob("runs/*")) == []


ORPHANS = """
import os, threading, time
from pathlib import Path

def orphan():
    if os.fork() == 0:
        os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "0.1")
        os._exit(0)

def zombies():
    for stat in Path("/proc").glob("[0-9]*/stat"):
        state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        if (state, parent) == ("Z", "1"):
            yield stat.parent.name

def watch():
    orphan()
    os.wait()
    seen = False
    while True:
        time.sleep(0.1)
        found = list(zombies())
        seen = seen or bool(found)
        if seen and not found:
            print("all orphans were reaped", flush=True)
            os.kill(1, 15)
            return

assert os.getpid() == 1
threading.Thread(target=watch, daemon=True).start()
"""


@pytest.mark.long
def test_the_first_process_of_a_container_reaps_the_orphans_of_others(tmp_path):
    around = unshare("--pid", "--fork", "--kill-child", "--mount-proc")
    long = (*SERVE, "--total-env-steps", "1000000000")
    done = aa2c(*long, cwd=tmp_path, around=around, before=ORPHANS)
    assert done.returncode == 0, done.stderr
    assert "all orphans were reaped" in done.stdout
