"""The directory of a run: one that cannot be written, that is removed, or that two runs want."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from aa2c import Config, ConfigError, Orchestrator, RunFailed, StartError
from aa2c.errors import SharedMemoryTooSmall
from aa2c.run.files import make_run_dir, rows_of, undo_failed_start
from aa2c.shm.wakeup import Wakeup
from tests.conftest import not_checked, segments, until

COUNTS = {"env_steps": 0, "episodes": 0}


async def test_a_run_whose_directory_is_removed_says_so_and_can_be_resumed_all_the_same(small):
    config = small(total_env_steps=10**9)
    async with Orchestrator(config) as run:
        await run.ready()
        shutil.rmtree(run.dir)
        await until(lambda: "directory was removed" in str(run.status()["log"]))
        await until(lambda: list(rows_of(run.dir / "metrics.jsonl")))
        await run.controls.checkpoint()
        with pytest.raises(ConfigError, match="is already being trained"):
            await Orchestrator(config, resume=run.dir).start()
        assert (await run.stop())["run"]["state"] == "stopped"
    assert str(run.status()["log"]).count("directory was removed") == 1
    async with Orchestrator(config, resume=run.dir) as resumed:
        await resumed.ready()


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.ENOSPC, ConfigError, "--runs-dir .*runs cannot be written: No space left on device"),
        (errno.EMFILE, StartError, "the run cannot be started: Too many open files"),
    ],
)
async def test_a_start_that_fails_leaves_no_directory(small, monkeypatch, number, kind, said):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    config = small()
    monkeypatch.setattr("aa2c.run.files._replace", fail)
    with pytest.raises(kind, match=said):
        await Orchestrator(config, http=True).start()
    assert list(Path(config.runs_dir).iterdir()) == []


async def test_a_start_that_fails_keeps_no_file_open_and_no_memory(small, monkeypatch):
    """Not even while somebody holds the error: the next try needs the run's lock."""
    made = []

    def first_only():
        made.append(1)
        if len(made) > 1:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return Wakeup()

    config = small(track=("tensorboard",))
    monkeypatch.setattr("aa2c.host.memory.Wakeup", first_only)
    with pytest.raises(StartError, match="Too many open files") as kept:
        await Orchestrator(config).start()
    assert kept.value
    opened = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert [name for name in opened if config.runs_dir in name or "eventfd" in name] == []
    assert segments() == set()


@pytest.mark.parametrize(
    ("error", "updates", "is_kept"),
    [
        (StartError("--env cannot be made."), 0, False),
        (SharedMemoryTooSmall("/dev/shm is too small."), 0, False),
        (StartError("one worker of many did not come up."), 1, True),
        (StartError("it ended: see {}/log.jsonl."), 0, True),
        (RunFailed("nothing was learned."), 0, True),
        (None, 0, True),
    ],
)
def test_the_directory_of_a_run_that_never_came_up_goes_unless_somebody_needs_it(
    error, updates, is_kept, tmp_path
):
    run_dir = make_run_dir(Config(runs_dir=tmp_path))
    if error:
        error = type(error)(str(error).format(run_dir))
    undo_failed_start(run_dir, error, {"progress": {"updates": updates}})
    assert run_dir.exists() == is_kept


@pytest.fixture
def read_only(tmp_path):
    """A directory that nobody can write."""
    where = tmp_path / "read-only"
    where.mkdir()
    (where / "run" / "checkpoints").mkdir(parents=True)
    (where / "run" / "config.toml").touch()
    bind = ["mount", "--bind", where, where]
    remount = ["mount", "-o", "remount,bind,ro", where]
    for command in (bind, remount):
        if subprocess.run(command, capture_output=True).returncode:
            not_checked("a read-only file system", "nothing may be mounted here")
    yield where
    subprocess.run(["umount", where], check=True)


def refused(config, resume=None):
    async def start():
        await Orchestrator(config, resume=resume).start()

    with pytest.raises(ConfigError) as error:
        asyncio.run(start())
    return str(error.value)


def test_a_runs_dir_that_is_a_file_is_refused_before_anything_starts(small, tmp_path):
    (tmp_path / "file").touch()
    said = refused(small(runs_dir=tmp_path / "file"))
    assert said == f"--runs-dir {tmp_path}/file cannot be written: Not a directory."


def test_a_read_only_file_system_is_refused_before_anything_starts(small, read_only, monkeypatch):
    said = refused(small(runs_dir=read_only))
    assert said == f"--runs-dir {read_only} cannot be written: Read-only file system."
    run = read_only / "run"
    saved = SimpleNamespace(path=run / "checkpoints" / "step-1", counts=COUNTS)
    monkeypatch.setattr("aa2c.orchestrator.read_to_resume", lambda _: saved)
    monkeypatch.setattr("aa2c.orchestrator.dir_to_resume", lambda *_: run)
    said = refused(small(), resume=run)
    assert said == f"--resume {run} cannot be written: Read-only file system."
    assert run.exists()
