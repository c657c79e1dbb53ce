"""Children that are started again: what their start may lack, and how the run takes it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import time
from types import SimpleNamespace

import pytest

from aa2c import Orchestrator
from aa2c.modes.mode import MODES
from aa2c.shm.segment import SHM_DIR
from tests.conftest import segments, until


def no_room(_):
    return SimpleNamespace(f_bavail=0, f_frsize=4096)


def no_pages(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.long
@pytest.mark.parametrize(("call", "refuse"), [("statvfs", no_room), ("posix_fallocate", no_pages)])
async def test_a_worker_for_whose_new_ring_there_is_no_room_is_started_again_until_there_is(
    small, call, refuse, monkeypatch
):
    """/dev/shm is full, or fills up between the look and the taking; the others go on."""
    config = small(total_env_steps=10**9, restart_backoff_s=0.01, max_restarts=1000)
    async with Orchestrator(config) as run:
        await run.ready()
        with monkeypatch.context() as patch:
            patch.setattr(os, call, refuse)  # in the orchestrator, which makes all segments
            before = segments()
            os.kill(run.status()["workers"][0]["pid"], signal.SIGKILL)
            await until(lambda: run.status()["workers"][0]["restarts"] >= 3)
            steps = run.status()["workers"][1]["env_steps"]
            await until(lambda: run.status()["workers"][1]["env_steps"] > steps)
            updates = run.status()["progress"]["updates"]
            await until(lambda: run.status()["progress"]["updates"] > updates)
            assert run.status()["run"]["state"] == "degraded"
            assert segments() <= before
        await until(lambda: run.status()["workers"][0]["state"] == "running")
        steps = run.status()["workers"][0]["env_steps"]
        await until(lambda: run.status()["workers"][0]["env_steps"] > steps)
        await run.stop()
    lines = [json.loads(line) for line in (run.dir / "log.jsonl").read_text().splitlines()]
    told = [line for line in lines if line["event"] == "child ended and is started again"]
    assert sum("/dev/shm has" in line.get("reason", "") for line in told) >= 2


def of_one(small, tmp_path, monkeypatch, **options):
    """A run whose environment only one process may have, once."""
    monkeypatch.setenv("ONLY_ONE", str(tmp_path / "only one"))
    env = "tests.host.odd_envs:HostExclusive-v0"
    return small(env=env, workers=1, num_envs=1, restart_backoff_s=0.01, **options)


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES)
async def test_an_environment_that_only_one_may_have_is_made_once(
    small, mode, tmp_path, monkeypatch
):
    config = of_one(small, tmp_path, monkeypatch, mode=mode, total_env_steps=500)
    async with Orchestrator(config) as run:
        status = await run.wait()
    assert status["progress"]["updates"] > 0
    assert status["workers"][0]["restarts"] == status["updater"]["restarts"] == 0


@pytest.mark.long
async def test_a_restart_makes_no_second_one_either(small, tmp_path, monkeypatch):
    """A worker's environment ends with it, and a new updater is told what the first one was."""
    config = of_one(small, tmp_path, monkeypatch, total_env_steps=10**9)
    async with Orchestrator(config) as run:
        await run.ready()
        for child in (run.status()["workers"][0], run.status()["updater"]):
            os.kill(child["pid"], signal.SIGKILL)
        for of in (lambda: run.status()["workers"][0], lambda: run.status()["updater"]):
            await until(lambda of=of: of()["restarts"] == 1 and of()["state"] == "running")
        updates = run.status()["progress"]["updates"]
        await until(lambda: run.status()["progress"]["updates"] > updates)
        status = await run.stop()
    assert status["workers"][0]["restarts"] == status["updater"]["restarts"] == 1


@pytest.mark.long
async def test_children_are_restarted_though_the_run_lost_its_names_in_dev_shm(small):
    """Some systems clear /dev/shm when a user logs out; the memory itself stays."""
    config = small(mode="model", total_env_steps=10**9, restart_backoff_s=0.01)
    async with Orchestrator(config) as run:
        await run.ready()
        for name in segments():
            if run.id in name:
                (SHM_DIR / name).unlink()
        for child in (run.status()["workers"][0], run.status()["updater"]):
            os.kill(child["pid"], signal.SIGKILL)
        await until(lambda: run.status()["workers"][0]["restarts"] == 1)
        await until(lambda: run.status()["workers"][0]["state"] == "running")
        await until(lambda: run.status()["updater"]["state"] == "running")
        steps = run.status()["workers"][0]["env_steps"]
        await until(lambda: run.status()["workers"][0]["env_steps"] > steps)
        status = await run.stop()
    assert status["workers"][0]["restarts"] == status["updater"]["restarts"] == 1


async def test_a_stop_waits_for_nobody_who_is_still_coming_up(small):
    """There is nothing to save: not a second of the time to stop is used."""
    config = small(env="tests.host.odd_envs:HostSlowToMake-v0", stop_timeout_s=300.0)
    async with asyncio.timeout(120), Orchestrator(config) as run:
        await until(lambda: run.status()["workers"][1]["pid"])
        status = await run.stop()
    assert status["run"]["state"] == "stopped"


@pytest.mark.long
async def test_a_machine_that_sleeps_during_a_stop_gets_its_last_checkpoint(small):
    """Time in which nobody ran is no part of the time to stop."""
    async with Orchestrator(small(total_env_steps=10**9, stop_timeout_s=4.0)) as run:
        await run.ready()
        await until(lambda: run.status()["progress"]["updates"] > 0)
        pids = [c["pid"] for c in (run.status()["updater"], *run.status()["workers"])]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        stopping = asyncio.create_task(run.stop())
        await until(lambda: run.status()["run"]["state"] == "stopping")
        time.sleep(5.0)  # noqa: ASYNC251 (the orchestrator sleeps, too)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # woken by the stop, it has ended
                os.kill(pid, signal.SIGCONT)
        status = await stopping
    assert status["run"]["state"] == "stopped"
    assert list(run.dir.glob("checkpoints/step-*/MANIFEST.json"))
