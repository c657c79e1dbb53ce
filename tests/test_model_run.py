"""Mode model in real runs: many workers on one network, and one of them dies with its lock."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from aa2c import Orchestrator
from aa2c.checkpoints.tensors import load_checkpoint
from aa2c.shm.segment import Segment, name_prefix
from aa2c.shm.shared_model import SharedModel
from tests.conftest import until
from tests.lock_holder import lock_holder, stop_holder

FOREVER = 10**9
SLOW_STEPS = {"hidden_sizes": (512, 512), "num_envs": 2, "eval_interval_s": 0.0}  # some ms each
CATCH_S = 30.0
RESTART_S = 120.0  # a busy machine imports torch slowly

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


class Watched:
    """The shared model of a run, seen from outside."""

    def __init__(self, run):
        self.segment = name_prefix(run.id) + "board"
        self._memory = Segment.attach(self.segment)
        self._model = SharedModel(self._memory, [], is_locked=True)
        self.close = self._model.close
        self._run = run

    @property
    def version(self):
        return self._model.version

    @property
    def is_marked(self):
        """Whether a step is being made, or was torn: the version word is odd."""
        return self._memory.buf[0] % 2 == 1

    async def stop_holder(self, in_step=None):
        """Stop a worker that has the lock: in the middle of its step, or not, or either.

        Its number and pid. All have been at work before.
        """
        await until(lambda: all(r["committed"] > 2 for r in self._run.status()["rings"]))
        deadline = time.monotonic() + CATCH_S
        while time.monotonic() < deadline:
            pids = [worker["pid"] for worker in self._run.status()["workers"]]
            pid = stop_holder(self.segment, pids, 0.1)
            if pid is not None and in_step in (None, self.is_marked):
                return pids.index(pid), pid
            if pid is not None:
                os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(0.001)
        raise TimeoutError


@pytest.fixture
def watch():
    """Watch the shared model of a run; closed at the end of the test."""
    watched = []

    def watch(run):
        watched.append(Watched(run))
        return watched[-1]

    yield watch
    for each in watched:
        each.close()


@pytest.mark.parametrize("act_on", ["live", "snapshot"])
@pytest.mark.parametrize("update_order", ["fifo", "hogwild"])
async def test_workers_on_one_network_train_to_their_budget(small, update_order, act_on):
    config = small(
        mode="model",
        update_order=update_order,
        act_on=act_on,
        total_env_steps=10_000,
        eval_interval_s=0.0,
    )
    versions = []
    async with Orchestrator(config) as run:
        await run.ready()
        while run.status()["run"]["state"] == "running":
            versions.append(run.status()["progress"]["policy_version"])
            await asyncio.sleep(0.02)
        status = await run.wait()
    progress, updates = status["progress"], status["progress"]["updates"]
    assert versions == sorted(versions)
    assert status["run"]["state"] == "finished"
    learned = updates * config.num_envs * config.num_steps
    in_flight = config.workers * config.num_envs * config.num_steps  # when the run was ended
    assert 10_000 <= progress["env_steps"] <= learned + in_flight
    assert progress["policy_version"] == updates + 1
    assert progress["episodes"] == status["returns"]["train"]["count"] > 0
    assert all(worker["env_steps"] for worker in status["workers"])
    lag = status["policy_lag"]
    assert 0 <= lag["min"] <= lag["mean"] <= lag["max"]
    assert lag["max"] >= 1
    assert 0 <= status["losses"]["learning_rate"] < 0.2 * config.learning_rate
    assert (status["updater"]["torn_steps"], status["updater"]["rejected"]) == (0, 0)

    saved = load_checkpoint(Path(status["run"]["dir"]))
    assert saved.counts["updates"] == updates
    assert saved.counts["policy_version"] == updates + 1
    steps = saved.optimizer["step"].item()
    assert steps == updates if update_order == "fifo" else 0 < steps <= updates
    assert all(tensor.isfinite().all() for tensor in saved.optimizer.values())


@pytest.mark.parametrize(("act_on", "in_step"), [("live", True), ("snapshot", False)])
async def test_a_worker_killed_while_it_has_the_lock_stops_nobody_else(
    small, watch, act_on, in_step
):
    config = small(mode="model", act_on=act_on, total_env_steps=FOREVER, **SLOW_STEPS)
    async with Orchestrator(config) as run:
        await run.ready()
        model = watch(run)
        worker, pid = await model.stop_holder(in_step)
        version, updates = model.version, run.status()["progress"]["updates"]
        other = run._engine.telemetry.workers[1 - worker]
        await until(lambda: other.count("waits_for"))  # for its step, or to copy the parameters
        beats = other.count("beats")
        await until(lambda: other.count("beats") > beats + 10)
        assert lock_holder(model.segment) == pid
        assert (model.version, model.is_marked) == (version, in_step)
        assert run.status()["progress"]["updates"] <= version - 1

        os.kill(pid, signal.SIGKILL)
        await until(lambda: model.version >= version + 3)
        await until(lambda: run.status()["progress"]["updates"] > updates + 3)
        await until(lambda: run.status()["workers"][worker]["generation"] == 1)
        await until(lambda: run.status()["workers"][worker]["state"] == "running", RESTART_S)
        status = await run.stop()
    assert status["run"]["state"] == "stopped"
    assert status["workers"][worker]["last_exit"] == "SIGKILL"
    assert status["workers"][1 - worker]["restarts"] == 0
    assert status["updater"]["torn_steps"] == in_step
    progress = status["progress"]
    assert progress["policy_version"] - 1 - progress["updates"] in (0, 1)
    assert load_checkpoint(run.dir).counts["policy_version"] == progress["policy_version"]


@pytest.mark.parametrize("act_on", ["live", "snapshot"])
async def test_a_worker_that_hangs_while_it_has_the_lock_is_replaced_and_who_waits_is_not(
    small, watch, act_on
):
    options = SLOW_STEPS | {"stall_timeout_s": 4.0}
    config = small(mode="model", act_on=act_on, total_env_steps=FOREVER, **options)
    async with Orchestrator(config) as run:
        await run.ready()
        model = watch(run)
        worker, pid = await model.stop_holder()
        version = model.version
        await until(lambda: run.status()["workers"][worker]["generation"] == 1)
        await until(lambda: model.version >= version + 3)
        assert lock_holder(model.segment) != pid
        status = await run.stop()
    assert status["workers"][worker]["last_exit"] == "stalled"
    assert status["workers"][1 - worker]["restarts"] == 0
    assert "no sign of life for 4 s" in (run.dir / "log.jsonl").read_text()


async def test_a_run_can_be_stopped_while_a_stopped_worker_has_the_lock(small, watch):
    config = small(mode="model", total_env_steps=FOREVER, stop_timeout_s=5.0, **SLOW_STEPS)
    async with Orchestrator(config) as run:
        await run.ready()
        await watch(run).stop_holder()
        start = time.monotonic()
        status = await run.stop()
        assert time.monotonic() - start < 60
    assert status["run"]["state"] == "stopped"
    assert load_checkpoint(run.dir).counts["updates"] == status["progress"]["updates"]
