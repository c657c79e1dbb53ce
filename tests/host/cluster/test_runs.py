"""Whole runs whose workers are on hosts: processes of this machine, without Ray."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from aa2c import Orchestrator, failpoint
from aa2c.checkpoints.tensors import load_checkpoint
from aa2c.host import journal
from aa2c.host.cluster.bridge import HEAD_IS_GONE
from tests.conftest import now, until
from tests.host.cluster.pipes import DOWN, ROOM
from tools.ray_nodes import audit, collect_journals

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def has_ray(monkeypatch):
    monkeypatch.setattr("aa2c.run.beforehand.check_requirements", lambda config: None)


async def test_a_run_on_hosts_learns_all_that_its_workers_made(on_hosts, tmp_path, monkeypatch):
    monkeypatch.setenv(ROOM, "1000")
    async with Orchestrator(on_hosts(total_env_steps=3000)) as run:
        status = await run.wait()
    assert status["run"]["state"] == "finished"
    assert status["progress"]["env_steps"] >= 3000
    told = journal.check(collect_journals(run.dir, tmp_path))
    assert told["lost"] == 0
    assert load_checkpoint(run.dir).counts["records"] == told["taken"] // 2 * 2 > 0, "whole batches"
    log = [json.loads(line) for line in (run.dir / "log.jsonl").read_text().splitlines()]
    unexpected = [line for line in log if line["level"] == "error" or "ended" in line["event"]]
    assert unexpected == []
    (warned,) = [line["event"] for line in log if "--object-store-memory" in line["event"]]
    assert "the smallest object store of the cluster 0 MB" in warned


async def test_a_run_on_hosts_survives_the_end_of_each_of_its_processes(
    on_hosts, tmp_path, monkeypatch
):
    """One after the other: a worker, a host, the updater, the engine's process, and the cluster with it."""
    down = tmp_path / "down"
    monkeypatch.setenv(DOWN, str(down))
    config = on_hosts(total_env_steps=10**9, checkpoint_interval_s=1.0)
    async with Orchestrator(config) as run:
        await run.ready()

        def workers():
            return run.status()["workers"]

        async def all_work():
            await until(lambda: all(w["state"] == "running" for w in workers()))
            steps = [w["env_steps"] for w in workers()]
            await until(
                lambda: all(w["env_steps"] > s for w, s in zip(workers(), steps, strict=True))
            )
            updates = now(run)["updates"]
            await until(lambda: now(run)["updates"] > updates)

        await run.controls.set_workers(3)
        await all_work()
        await until(lambda: len(run.status()["hosts"]) == 3)
        await run.controls.set_workers(2)
        assert len(workers()) == 2
        os.kill(workers()[0]["pid"], signal.SIGKILL)
        await until(lambda: workers()[0]["exits"] == {"SIGKILL": 1})
        await all_work()

        pid = int(run.status()["hosts"][1]["address"].removeprefix("pid "))
        left = psutil.Process(pid).children(recursive=True)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: workers()[1]["exits"] == {"host lost": 1})
        await until(lambda: not any(process.is_running() for process in left))
        await all_work()

        os.kill(run.status()["updater"]["pid"], signal.SIGKILL)
        await until(lambda: run.status()["updater"]["restarts"] == 1)
        await until(lambda: run.status()["updater"]["state"] == "running")
        await all_work()

        engine = run._engine._remote.engine
        down.touch()
        await until(lambda: HEAD_IS_GONE in (run.dir / "log.jsonl").read_text())
        os.kill(engine.pid, signal.SIGKILL)
        await until(lambda: all(w["exits"].get("engine lost") == 1 for w in workers()))
        await until(lambda: "the cluster is not there" in (run.dir / "log.jsonl").read_text())
        down.unlink()
        await all_work()
        assert engine.generation == 1
        assert run.status()["engine"]["exits"] == {"SIGKILL": 1}
        steps = now(run)["env_steps"]
        status = await run.stop()
    assert status["progress"]["env_steps"] >= steps
    assert audit(run.dir, tmp_path, status)["updaters"] == 2
    log = (run.dir / "log.jsonl").read_text()
    assert "a host is lost and is started again" in log
    assert "orchestrator failed" not in log
    assert not [path for path in Path("/dev/shm").glob("aa2c-*") if run.dir.name[-8:] in path.name]


async def test_a_bridge_that_ends_at_each_of_its_failpoints_loses_nothing_it_had_carried(
    on_hosts, tmp_path, monkeypatch
):
    places = ("bridge.before_copy", "bridge.before_commit", "bridge.after_commit")
    traps = [f"aa2c-engine.{i}:{place}=kill@9" for i, place in enumerate(places)]
    monkeypatch.setenv(failpoint.VARIABLE, ";".join(traps))
    async with Orchestrator(on_hosts(mode="grad", total_env_steps=10**9, workers=1)) as run:
        engine = run._engine._remote.engine
        await until(lambda: engine.generation == len(places), timeout_s=100)
        assert engine.exits == {"SIGKILL": len(places)}
        await until(lambda: run.status()["workers"][0]["state"] == "running")
        updates = now(run)["updates"]
        await until(lambda: now(run)["updates"] > updates)
        await run.stop()
    told = journal.check(collect_journals(run.dir, tmp_path))
    assert load_checkpoint(run.dir).counts["records"] == told["taken"]


async def test_an_environment_that_cannot_be_made_on_hosts_ends_the_run_with_its_sentence(on_hosts):
    from aa2c.errors import StartError
    from tests.envs.unmakable_env import make

    with pytest.raises(StartError, match="no licence"):
        async with Orchestrator(on_hosts(env=make)) as run:
            await run.wait()
