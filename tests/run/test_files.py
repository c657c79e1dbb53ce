"""The directory of a run: one that cannot be written, that is removed, or that two runs want."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from aa2c import ConfigError, Orchestrator, StartError
from aa2c.run.files import rows_of
from tests.conftest import until


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
        assert (await run.stop())["run"]["state"] == "finished"
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
