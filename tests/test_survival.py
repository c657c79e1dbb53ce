"""What a run survives, and that it says so: each promise of the README's table has its test."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from types import SimpleNamespace

import aiohttp
import psutil
import pytest

from aa2c import Orchestrator, RunFailed, failpoint
from aa2c.checkpoints.tensors import load_checkpoint
from aa2c.host import journal
from aa2c.host.restarts import RestartPolicy
from aa2c.host.watch import TOO_LATE
from aa2c.modes.mode import MODES
from aa2c.modes.traj import rollouts_per_batch
from tests import blocking_atari
from tests.conftest import now, segments, until

pytestmark = pytest.mark.long


def saved_updates(run):
    saved_at = run.status()["updater"]["checkpoint_at"]
    return load_checkpoint(run.dir).counts["updates"] if saved_at else 0


@pytest.mark.parametrize("mode", MODES)
async def test_a_killed_updater_comes_back_from_its_checkpoint_and_the_workers_stay(
    small, mode, monkeypatch
):
    monkeypatch.setenv(journal.VARIABLE, "1")
    config = small(mode=mode, total_env_steps=10**9, checkpoint_interval_s=1.0)
    async with Orchestrator(config) as run:
        await run.ready()
        await until(lambda: saved_updates(run) > 0)  # the first may be older than the workers
        # The counters go on from here, and not from the checkpoint's.
        await until(lambda: now(run)["updates"] > saved_updates(run))
        saved_before = saved_updates(run)
        before = run.status()
        os.kill(before["updater"]["pid"], signal.SIGKILL)
        await until(lambda: run.status()["updater"]["restarts"] == 1)
        assert run.status()["updater"]["last_exit"] == "SIGKILL"
        await until(lambda: run.status()["updater"]["state"] == "running")
        updates, version = now(run)["updates"], now(run)["policy_version"]
        assert updates >= before["progress"]["updates"]
        await until(lambda: now(run)["updates"] > updates + 5)
        after = run.status()
        assert after["progress"]["policy_version"] > version
        assert [w["pid"] for w in after["workers"]] == [w["pid"] for w in before["workers"]]
        assert after["run"]["state"] == "running"
        await run.stop()
    saved = load_checkpoint(run.dir)
    assert saved.counts["updates"] >= updates
    # The optimizer went on from the checkpoint: one that began anew would have few steps.
    undone = saved.counts["updates"] - int(saved.optimizer["step"])
    assert undone <= updates - saved_before
    assert saved.optimizer["step"] >= saved_before
    records = journal.check(run.dir / "journal")
    assert records["updaters"] == 2
    lost = sum(ring["dropped"]["lost"] for ring in run.status()["rings"])
    assert lost <= config.workers * config.ring_slots


@pytest.mark.parametrize("mode", MODES)
async def test_a_killed_worker_costs_at_most_the_record_that_it_was_about_to_send(
    small, mode, monkeypatch
):
    """What it had sent is learned from: of all that its journal says was made, one may be missing."""
    monkeypatch.setenv(journal.VARIABLE, "1")
    async with Orchestrator(small(mode=mode, total_env_steps=10**9)) as run:
        await run.ready()
        for kills in (1, 2, 3):
            records = run.status()["rings"][0]["committed"]
            await until(lambda n=records: run.status()["rings"][0]["committed"] > n + 5)
            os.kill(run.status()["workers"][0]["pid"], signal.SIGKILL)
            await until(lambda n=kills: run.status()["workers"][0]["restarts"] == n)
            await until(lambda: run.status()["workers"][0]["state"] == "running")
        await run.stop()
    records = journal.check(run.dir / "journal")
    left_at_the_end = rollouts_per_batch(run.config) - 1 if mode == "traj" else 0
    assert records["lost"] <= 3 + left_at_the_end
    assert records["taken"] > 15


async def test_an_updater_killed_before_its_first_checkpoint_starts_from_the_beginning(small):
    async with Orchestrator(small(mode="traj", total_env_steps=10**9)) as run:
        await run.ready()
        await until(lambda: now(run)["updates"] > 0)
        os.kill(run.status()["updater"]["pid"], signal.SIGKILL)
        await until(lambda: run.status()["updater"]["restarts"] == 1)
        updates = now(run)["updates"]
        await until(lambda: now(run)["updates"] > updates)


async def test_an_updater_killed_while_a_resumed_run_comes_up_keeps_its_counts(small):
    config = small(total_env_steps=4000)
    async with Orchestrator(config) as run:
        await run.wait()
    before = load_checkpoint(run.dir).counts
    longer = dataclasses.replace(config, total_env_steps=before["env_steps"] + 4000)
    async with Orchestrator(longer, resume=run.dir) as run:
        await until(lambda: run.status()["updater"]["pid"])
        os.kill(run.status()["updater"]["pid"], signal.SIGKILL)
        await run.wait()
        assert run.status()["updater"]["restarts"] == 1
    after = load_checkpoint(run.dir).counts
    assert all(after[name] > before[name] for name in before), (before, after)


async def test_a_dead_workers_record_in_an_unfinished_batch_does_not_stop_its_next_incarnation(
    small, monkeypatch
):
    """It waits in the old ring until the batch is whole, for which the new ring must be read."""
    monkeypatch.setenv(journal.VARIABLE, "1")
    monkeypatch.setenv(failpoint.VARIABLE, "aa2c-worker-0:ring.before_payload=kill@2")
    config = small(
        mode="traj", workers=1, num_steps=8, batch_steps=16, ring_slots=2, total_env_steps=2000
    )
    assert rollouts_per_batch(config) == 2, "it dies when it has sent one"
    async with Orchestrator(config) as run:
        status = await asyncio.wait_for(run.wait(), 60)
    assert status["workers"][0]["exits"] == {"SIGKILL": 1}
    assert status["updater"]["exits"] == {}
    first, second = journal.read(run.dir / "journal/taken-0")[:2].tolist()
    assert (first, second) == ([0, 0, 0], [0, 1, 0]), "one batch of two incarnations"
    records = journal.check(run.dir / "journal")
    assert records["lost"] <= 1
    assert load_checkpoint(run.dir).counts["records"] == records["taken"] // 2 * 2, "whole batches"


async def test_the_network_of_mode_model_outlives_the_updater(small):
    """It is in shared memory: nothing is taken back to a checkpoint."""
    async with Orchestrator(small(mode="model", total_env_steps=10**9)) as run:
        await run.ready()
        await run.controls.checkpoint()
        early = now(run)["updates"]
        await until(lambda: now(run)["updates"] > early + 300)
        before = now(run)
        os.kill(run.status()["updater"]["pid"], signal.SIGKILL)
        await until(lambda: run.status()["updater"]["restarts"] == 1)
        await until(lambda: run.status()["updater"]["state"] == "running")
        await until(lambda: now(run)["policy_version"] > before["policy_version"])
        await run.stop()
    saved = load_checkpoint(run.dir)
    assert saved.optimizer["step"] >= saved.counts["updates"] > before["updates"]


async def test_a_run_whose_budget_ends_while_the_updater_is_away_ends_with_all_learned(small):
    async with Orchestrator(small(mode="traj", total_env_steps=6000)) as run:
        await run.ready()
        os.kill(run.status()["updater"]["pid"], signal.SIGKILL)
        status = await run.wait()
    assert status["run"]["state"] == "finished"
    assert load_checkpoint(run.dir).counts["updates"] == status["progress"]["updates"] > 0


async def test_a_worker_that_keeps_crashing_is_abandoned_and_the_others_continue(small):
    config = small(workers=3, total_env_steps=10**9, max_restarts=2, min_workers=2)
    async with Orchestrator(config) as run:
        await run.ready()

        def worker(index):
            return run.status()["workers"][index]

        async def kill_until_abandoned(index):
            while worker(index)["state"] != "abandoned":
                if pid := worker(index)["pid"]:
                    os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(0.05)

        await kill_until_abandoned(2)
        assert worker(2)["exits"] == {"SIGKILL": 3}
        updates = now(run)["updates"]
        await until(lambda: now(run)["updates"] > updates)
        with pytest.raises(RunFailed, match=r"workers left: 1 \(--min-workers 2\)"):
            await asyncio.wait_for(asyncio.gather(kill_until_abandoned(1), run.wait()), timeout=60)
    assert load_checkpoint(run.dir).counts["updates"] >= updates


def test_what_had_come_up_once_may_be_late_the_next_time(small):
    policy = RestartPolicy(small())
    late = SimpleNamespace(replaced_as=TOO_LATE, error=None)
    ends = [(late, -signal.SIGKILL), (SimpleNamespace(replaced_as=None, error="no licence"), 3)]
    for ended, exit_code in ends:
        how = {"produced": False, "has_come_up": True}
        assert policy.refuse_reason(ended, exit_code, **how) is None
        how["has_come_up"] = False
        assert policy.refuse_reason(ended, exit_code, **how) == "it cannot come up"


async def test_an_abandoned_worker_may_be_removed_and_added_again(small):
    config = small(total_env_steps=10**9, max_restarts=0)
    async with Orchestrator(config) as run:
        await run.ready()
        os.kill(run.status()["workers"][1]["pid"], signal.SIGKILL)
        await until(lambda: run.status()["workers"][1]["state"] == "abandoned")
        assert "Worker 1 is abandoned (last: SIGKILL)" in run.status()["throughput"]["advice"]
        await run.controls.set_workers(1)
        await run.controls.set_workers(2)
        await until(lambda: run.status()["workers"][1]["state"] == "running")
        steps = run.status()["workers"][1]["env_steps"]
        await until(lambda: run.status()["workers"][1]["env_steps"] > steps)


async def test_a_process_that_lives_and_gets_nothing_done_is_replaced(small):
    config = small(mode="traj", total_env_steps=10**9, update_epochs=1000, minibatches=64)
    config = dataclasses.replace(config, progress_timeout_s=3.0)
    async with Orchestrator(config) as run:
        await run.ready()
        await until(lambda: run.status()["updater"]["last_exit"] == "no progress")
        assert run.status()["workers"][0]["last_exit"] is None, "it waited for the updater"


async def test_atari_environments_that_block_for_ever_are_replaced(small, tmp_path, monkeypatch):
    monkeypatch.setenv(blocking_atari.MARK, str(tmp_path / "blocked"))
    config = small(
        env="tests.blocking_atari:ALE/Pong-v5", total_env_steps=10**9, stall_timeout_s=5.0
    )
    async with Orchestrator(dataclasses.replace(config, network="a3c")) as run:
        await run.ready()
        await until(lambda: any(w["exits"] for w in run.status()["workers"]))
        (exits,) = [w["exits"] for w in run.status()["workers"] if w["exits"]]
        assert exits == {"stalled": 1}
        await until(lambda: all(w["state"] == "running" for w in run.status()["workers"]))
        steps = now(run)["env_steps"]
        await until(lambda: now(run)["env_steps"] > steps)


async def test_a_run_that_does_not_get_on_says_who_waits_for_whom(small):
    config = small(mode="traj", total_env_steps=10**9, no_progress_s=2.0, port=0)
    async with Orchestrator(config, http=True) as run, aiohttp.ClientSession() as session:
        await run.ready()
        updater = run.status()["updater"]["pid"]
        os.kill(updater, signal.SIGSTOP)
        await until(lambda: run.status()["run"]["stall"])
        stall = run.status()["run"]["stall"]
        assert "worker 0 waits for a free slot in its ring" in stall
        assert "for more than 2 s" in stall
        assert (await session.get(f"{run.url}readyz")).status == 503
        metrics = await (await session.get(f"{run.url}metrics")).text()
        assert "aa2c_run_stalled 1.0" in metrics
        assert any("the run has stalled" in line["text"] for line in run.status()["log"])
        os.kill(updater, signal.SIGCONT)
        await until(lambda: run.status()["run"]["stall"] is None)
        assert (await session.get(f"{run.url}readyz")).status == 200
        run.controls.pause()
        await asyncio.sleep(config.no_progress_s + 1)  # a clock of its own must not have run
        assert run.status()["run"]["stall"] is None, "a pause is no stall"


async def test_a_checkpoint_that_cannot_be_written_costs_itself_and_nothing_else(small):
    config = small(total_env_steps=10**9, checkpoint_interval_s=1.0)
    async with Orchestrator(config) as run:
        await run.ready()
        await until(lambda: run.status()["updater"]["checkpoint_at"])
        (run.dir / "checkpoints").rename(run.dir / "hidden")
        (run.dir / "checkpoints").write_text("in the way")
        await until(lambda: "a checkpoint was not written" in str(run.status()["log"]))
        updates = now(run)["updates"]
        await until(lambda: now(run)["updates"] > updates)
        (run.dir / "checkpoints").unlink()
        (run.dir / "hidden").rename(run.dir / "checkpoints")
        await run.stop()
    assert run.status()["updater"]["exits"] == {}
    assert load_checkpoint(run.dir).counts["updates"] > updates


@pytest.mark.parametrize("role", ["worker", "updater", "evaluator"])
async def test_a_restart_leaks_nothing(small, role):
    config = small(total_env_steps=10**9, eval_interval_s=0.5, eval_episodes=1)
    async with Orchestrator(config) as run:
        await run.ready()
        count = len(segments())

        def child():
            status = run.status()
            return status["workers"][0] if role == "worker" else status[role]

        async def kill_and_come_back():
            await until(lambda: child()["state"] == "running")
            restarts = child()["restarts"]
            os.kill(child()["pid"], signal.SIGKILL)
            await until(lambda: child()["restarts"] > restarts)
            await until(lambda: child()["state"] == "running")
            await until(lambda: len(segments()) == count)  # the ring of the killed one is retired

        def held():
            return psutil.Process().num_fds(), psutil.Process().num_threads()

        await kill_and_come_back()
        fds, threads = held()
        for _ in range(3):
            await kill_and_come_back()
        await until(lambda: held()[0] <= fds + 1 and held()[1] <= threads)
