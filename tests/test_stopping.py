"""Stopping and cancelling a run, at whatever moment."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from aa2c import Orchestrator
from aa2c.checkpoints.tensors import load_checkpoint
from aa2c.modes.mode import MODES
from tests.conftest import children, now, segments, until

pytestmark = pytest.mark.long


def has_children(run):
    return any(child["pid"] for child in (run.status()["updater"], *run.status()["workers"]))


def has_learned(run):
    return run.status()["progress"]["updates"] > 0


async def train_until(run, condition):
    """A task that trains, once this holds of its run."""

    async def train():
        async with run:
            await run.wait()

    task = asyncio.create_task(train())
    await asyncio.sleep(0)  # it has begun
    await until(lambda: condition(run))
    return task


@pytest.mark.parametrize(
    "condition", [lambda run: True, has_children, lambda run: run.state == "running", has_learned]
)
async def test_cancelling_leaves_no_child_and_no_segment(small, condition):
    before = segments(), children()
    task = await train_until(Orchestrator(small(total_env_steps=10**9)), condition)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (segments(), children()) == before


async def test_cancelling_the_stop_itself_leaves_nothing_either(small):
    before = segments(), children()
    task = await train_until(Orchestrator(small(total_env_steps=10**9)), has_learned)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (segments(), children()) == before


async def test_stop_ends_a_run_early_with_a_checkpoint(small):
    async with Orchestrator(small(total_env_steps=10**9)) as run:
        await run.ready()
        await until(lambda: run.status()["progress"]["updates"] > 10)
        start = time.monotonic()
        status = await run.stop()
        assert time.monotonic() - start < 60
    assert status["run"]["state"] == "stopped"
    assert load_checkpoint(run.dir).counts["updates"] == status["progress"]["updates"]


async def test_stop_interrupts_a_long_update(small):
    config = small(mode="traj", total_env_steps=10**9, update_epochs=1000, minibatches=64)
    async with Orchestrator(config) as run:
        await run.ready()
        await until(lambda: run.status()["updater"]["pid"] and sum(
            ring["used"] for ring in run.status()["rings"]) >= 4)  # fmt: skip
        start = time.monotonic()
        await run.stop()
        assert time.monotonic() - start < 60
        assert load_checkpoint(run.dir)


async def test_stop_ends_a_run_whose_workers_are_stopped_processes(small):
    async with Orchestrator(small(total_env_steps=10**9, stop_timeout_s=5.0)) as run:
        await run.ready()
        os.kill(run.status()["workers"][0]["pid"], signal.SIGSTOP)
        start = time.monotonic()
        await run.stop()
        assert time.monotonic() - start < 60


@pytest.mark.parametrize("mode", MODES)
async def test_a_stop_while_the_updater_is_away_starts_one_more_to_save(small, mode):
    config = small(
        mode=mode,
        total_env_steps=10**9,
        checkpoint_interval_s=3600.0,
        restart_backoff_s=3600.0,
        stop_timeout_s=90.0,
    )
    async with Orchestrator(config) as run:
        await run.ready()
        await run.controls.checkpoint()
        saved = load_checkpoint(run.dir).counts["updates"]
        await until(lambda: now(run)["updates"] > saved + 5)
        os.kill(run.status()["updater"]["pid"], signal.SIGKILL)
        await until(lambda: run.status()["updater"]["state"] == "stopped")
        updates = now(run)["updates"]
        status = await run.stop()
    assert status["run"]["state"] == "stopped"
    after = load_checkpoint(run.dir)
    assert after.counts["updates"] >= updates
    if mode == "model":  # the network is in shared memory: nothing is lost
        assert after.optimizer["step"] >= updates


async def test_a_stop_while_the_updater_is_being_started_again_still_saves_or_says_so(small):
    config = small(total_env_steps=10**9, checkpoint_interval_s=1.0)
    async with Orchestrator(config) as run:
        await run.ready()
        await until(lambda: run.status()["updater"]["checkpoint_at"])
        os.kill(run.status()["updater"]["pid"], signal.SIGKILL)
        await until(lambda: run.status()["updater"]["restarts"] == 1)
        started = time.monotonic()
        status = await run.stop()
        assert time.monotonic() - started < 60
    assert status["run"]["state"] == "stopped"
    assert load_checkpoint(run.dir)
