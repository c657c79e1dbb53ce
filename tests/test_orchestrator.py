"""Runs with real processes: supervision, embedding, cancellation."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import psutil
import pytest

import aa2c
from aa2c import Orchestrator, RunFailed, StartError
from aa2c.checkpoints.tensors import load_checkpoint
from aa2c.errors import SharedMemoryTooSmall
from aa2c.modes.mode import MODES
from aa2c.shm import segment as shm
from tests.conftest import segments, until


@pytest.mark.parametrize("mode", MODES)
async def test_a_run_comes_up_trains_to_its_budget_and_ends_finished(small, mode):
    async with Orchestrator(small(mode=mode, total_env_steps=5000)) as run:
        await run.ready()
        # On a busy machine the first worker may use up the budget before the last one is there.
        assert run.status()["run"]["state"] in ("running", "stopping", "finished")
        status = await run.wait()
    assert status["run"]["state"] == "finished"
    assert status["progress"]["env_steps"] >= 5000
    assert status["progress"]["updates"] > 0
    assert status["progress"]["episodes"] == status["returns"]["train"]["count"] > 0
    assert run.status() == status
    run_dir = Path(status["run"]["dir"])
    assert load_checkpoint(run_dir).counts["updates"] > 0
    assert (run_dir / "output.log").read_text() == "", "nobody has anything to complain of"


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES)
async def test_the_smallest_budget_suffices_for_an_update(small, mode):
    async with Orchestrator(small(mode=mode, total_env_steps=1)) as run:
        status = await run.wait()
    assert status["run"]["state"] == "finished"
    assert status["progress"]["updates"] > 0


@pytest.mark.long
async def test_a_budget_that_is_used_up_before_the_last_worker_has_come_up_is_no_failure(small):
    async with Orchestrator(small(mode="model", total_env_steps=500)) as run:
        await until(lambda: run.status()["workers"][1]["pid"])
        os.kill(run.status()["workers"][1]["pid"], signal.SIGSTOP)
        await run.ready()
        assert (await run.wait())["run"]["state"] == "finished"


@pytest.mark.long
async def test_the_run_directory_holds_config_log_metrics_and_episodes(small):
    async with Orchestrator(small(total_env_steps=3000)) as run:
        status = await run.wait()
    directory = Path(status["run"]["dir"])
    assert aa2c.load_config(file=directory / "config.toml") == run.config
    lines = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    assert {"start", "running", "finished"} <= {line["event"] for line in lines}
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["progress"] == status["progress"]
    header, *episodes = (directory / "episodes.csv").read_text().splitlines()
    assert header == "time_s,env_steps,kind,worker,return,length"
    assert all(row.split(",")[2] == "train" for row in episodes)
    assert len(episodes) == status["progress"]["episodes"]


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES)
async def test_a_killed_worker_is_started_again_and_the_run_goes_on(small, mode):
    async with Orchestrator(small(mode=mode, total_env_steps=10**9)) as run:
        await run.ready()
        before = run.status()
        os.kill(before["workers"][1]["pid"], signal.SIGKILL)
        await until(lambda: run.status()["workers"][1]["last_exit"] == "SIGKILL")
        await until(lambda: run.status()["workers"][1]["state"] == "running")
        worker = run.status()["workers"][1]
        assert (worker["generation"], worker["restarts"]) == (1, 1)
        assert worker["env_steps"] >= before["workers"][1]["env_steps"]
        steps, committed = worker["env_steps"], run.status()["rings"][1]["committed"]
        # Two, because the env steps of the first may have been counted already.
        await until(lambda: run.status()["rings"][1]["committed"] > committed + 1)
        assert run.status()["workers"][1]["env_steps"] > steps
        dropped = [ring["dropped"] for ring in run.status()["rings"]]
        assert not any(count for reasons in dropped for count in reasons.values())


@pytest.mark.long
async def test_counters_never_go_back_while_workers_are_killed_again_and_again(small):
    async with Orchestrator(small(total_env_steps=10**9)) as run:
        await run.ready()
        seen = {"env_steps": 0, "updates": 0, "policy_version": 0, "episodes": 0, "committed": 0}

        def look():
            status = run.status()
            committed = sum(ring["committed"] for ring in status["rings"])
            now = status["progress"] | {"committed": committed}
            assert all(now[name] >= value for name, value in seen.items()), (seen, now)
            seen.update({name: now[name] for name in seen})
            return status

        for kill in range(4):
            victim = look()["workers"][kill % 2]
            os.kill(victim["pid"], signal.SIGKILL)
            await until(lambda n=victim["restarts"], i=kill % 2: (
                look()["workers"][i]["restarts"] > n
                and look()["workers"][i]["state"] == "running"
            ))  # fmt: skip
        updates = seen["updates"]
        await until(lambda: look()["progress"]["updates"] > updates)


@pytest.mark.long
async def test_old_rings_are_removed_once_they_are_empty(small):
    async with Orchestrator(small(total_env_steps=10**9)) as run:
        await run.ready()
        count = len(segments())
        for generation in (1, 2):
            os.kill(run.status()["workers"][0]["pid"], signal.SIGKILL)
            await until(lambda g=generation: run.status()["workers"][0]["generation"] == g)
            await until(lambda: run.status()["workers"][0]["state"] == "running")
        await until(lambda: len(segments()) == count)


@pytest.mark.long
async def test_a_hung_worker_is_replaced(small):
    async with Orchestrator(small(total_env_steps=10**9, stall_timeout_s=2.0)) as run:
        await run.ready()
        os.kill(run.status()["workers"][0]["pid"], signal.SIGSTOP)
        await until(lambda: run.status()["workers"][0]["generation"] == 1)
        await until(lambda: run.status()["workers"][0]["state"] == "running")


@pytest.mark.long
async def test_an_updater_that_is_killed_too_often_ends_the_run_with_its_reason(small):
    async with Orchestrator(small(total_env_steps=10**9, max_restarts=0)) as run:
        await run.ready()
        os.kill(run.status()["updater"]["pid"], signal.SIGKILL)
        with pytest.raises(RunFailed, match=r"aa2c-updater ended \(SIGKILL\)"):
            await run.wait()
        assert run.status()["run"]["state"] == "failed"
        assert "SIGKILL" in run.status()["run"]["error"]


async def test_an_environment_that_cannot_be_made_ends_the_run_with_its_cause(small):
    async with Orchestrator(small(env_kwargs={"nope": 1})) as run:
        with pytest.raises(StartError, match="--env-kwargs nope=1 cannot be made: TypeError"):
            await run.wait()
    assert not run.dir.exists(), "nothing was learned"


@pytest.mark.long
async def test_a_worker_that_always_crashes_ends_the_run(small):
    config = small(env="tests.crashing_env:Crashing-v0", total_env_steps=10**9, max_restarts=2)
    async with Orchestrator(config) as run:
        with pytest.raises(RunFailed, match=r"RuntimeError: as planned.* restarted 2 times"):
            await run.wait()
    log = (run.dir / "log.jsonl").read_text()
    assert "Traceback" in log


async def test_what_dev_shm_cannot_hold_is_refused_before_it_is_made(small, monkeypatch):
    before = segments()
    real = os.statvfs(shm.SHM_DIR)

    class Tiny:
        f_bavail = 100 * 1024 // real.f_frsize
        f_frsize = real.f_frsize

    monkeypatch.setattr(shm.os, "statvfs", lambda _: Tiny)
    async with Orchestrator(small(hidden_sizes=(512, 512))) as run:
        with pytest.raises(SharedMemoryTooSmall, match=r"needs \d+ MiB: enlarge it"):
            await run.wait()
    assert segments() == before
    assert not run.dir.exists()


@pytest.mark.long
async def test_two_runs_in_one_loop_do_not_disturb_each_other(small):
    async with (
        Orchestrator(small(total_env_steps=3000, workers=1, name="a")) as first,
        Orchestrator(small(total_env_steps=3000, workers=1, name="b")) as second,
    ):
        done = await asyncio.gather(first.wait(), second.wait())
    assert [status["run"]["state"] for status in done] == ["finished", "finished"]


@pytest.mark.long
def test_a_run_works_in_a_thread_that_is_not_the_main_one(small):
    result = []
    thread = threading.Thread(
        target=lambda: result.append(aa2c.train(small(total_env_steps=2000, workers=1)))
    )
    thread.start()
    thread.join(60)
    assert result[0]["run"]["state"] == "finished"


@pytest.mark.long
def test_killing_the_orchestrator_leaves_no_child_and_the_next_run_cleans_up(small, tmp_path):
    script = textwrap.dedent(
        f"""
        import asyncio, json
        from aa2c import Orchestrator, Config

        async def main():
            config = Config(total_env_steps=10**9, workers=2, num_envs=4, runs_dir={str(tmp_path)!r})
            async with Orchestrator(config) as run:
                await run.ready()
                while run.status()["evaluator"]["state"] != "running":
                    await asyncio.sleep(0.05)
                print(json.dumps(run.status()), flush=True)
                await run.wait()

        if __name__ == "__main__":
            asyncio.run(main())
        """
    )
    program = tmp_path / "program.py"
    program.write_text(script)
    before = segments()
    with subprocess.Popen(
        [sys.executable, program], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        status = json.loads(process.stdout.readline())
        children = (*status["workers"], status["updater"], status["evaluator"])
        pids = [child["pid"] for child in children]
        assert segments() > before
        os.killpg(process.pid, signal.SIGKILL)  # its resource tracker dies, too
    gone, alive = psutil.wait_procs(
        [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=5
    )
    assert not alive, gone
    assert segments() > before
    aa2c.train(small(total_env_steps=1000))  # the next start
    assert segments() == before


@pytest.mark.long
async def test_a_worker_killed_before_memory_is_made_does_not_end_the_run(small):
    config = small(total_env_steps=10**9, restart_backoff_s=3.0)
    async with Orchestrator(config) as run:
        await until(lambda: run.status()["workers"][0]["pid"])
        os.kill(run.status()["workers"][0]["pid"], signal.SIGKILL)
        await run.ready()
        assert run.status()["workers"][0]["generation"] == 1


@pytest.mark.long
async def test_a_worker_that_takes_too_long_to_come_up_ends_the_run(small):
    config = small(env="tests.crashing_env:Slow-v0", start_timeout_s=9.0)
    async with Orchestrator(config) as run:
        with pytest.raises(StartError, match=r"no sign of life for 9 s .* see .*/log.jsonl"):
            await run.wait()
    assert (run.dir / "log.jsonl").exists(), "the error points there"


@pytest.mark.long
async def test_a_worker_that_crashes_before_it_produces_is_abandoned(small):
    config = small(env="tests.crashing_env:Broken-v0", total_env_steps=10**9)
    async with Orchestrator(config) as run:
        with pytest.raises(
            RunFailed, match=r"as planned.* ended 4 consecutive times with the same error"
        ):
            await run.wait()


@pytest.mark.long
@pytest.mark.parametrize("env", ["InfiniteReward-v0", "NaNObservation-v0"])
async def test_a_run_that_learns_nothing_says_so(small, env):
    config = small(env=f"tests.crashing_env:{env}", total_env_steps=2000)
    async with Orchestrator(config) as run:
        with pytest.raises(RunFailed, match=r"10 consecutive records were not finite"):
            await run.wait()
        json.dumps(run.status(), allow_nan=False)


@pytest.mark.long
async def test_a_last_checkpoint_that_cannot_be_written_fails_the_run(small):
    async with Orchestrator(small(total_env_steps=10**9)) as run:
        await run.ready()
        (run.dir / "checkpoints").write_text("in the way")
        with pytest.raises(RunFailed, match="the last checkpoint was not written"):
            await run.stop()


@pytest.mark.long
async def test_the_updater_outlives_a_sigterm_to_all_and_writes_the_last_checkpoint(small):
    async with Orchestrator(small(total_env_steps=10**9)) as run:
        await run.ready()
        await until(lambda: run.status()["progress"]["updates"] > 0)
        for process in psutil.Process().children():
            if process.name().startswith("aa2c-"):
                process.terminate()
        await run.stop()
        assert load_checkpoint(run.dir).counts["updates"] > 0


@pytest.mark.long
async def test_a_full_disk_costs_rows_which_is_told_and_the_run_goes_on(small):
    async with Orchestrator(small(total_env_steps=10**9)) as run:
        await run.ready()
        recording = run._history._recording
        files = [recording._metrics, recording._episodes, recording._marks, run._log_file]
        kept = [os.dup(file.fileno()) for file in files]
        full = os.open("/dev/full", os.O_WRONLY)
        for file in files:
            os.dup2(full, file.fileno())
        os.close(full)

        def warnings():
            told = [line["text"] for line in run.status()["log"]]
            return [text for text in told if "cannot be written" in text]

        await until(lambda: any("No space left on device: rows are lost" in w for w in warnings()))
        episodes, updates = (run.status()["progress"][name] for name in ("episodes", "updates"))
        await until(lambda: run.status()["progress"]["episodes"] > episodes + 1000)
        assert run.status()["progress"]["updates"] > updates
        run.controls.set({"learning_rate": 1e-4})
        for file, descriptor in zip(files, kept, strict=True):
            os.dup2(descriptor, file.fileno())
            os.close(descriptor)
        rows = len((run.dir / "metrics.jsonl").read_bytes().splitlines())
        await until(lambda: len((run.dir / "metrics.jsonl").read_bytes().splitlines()) > rows + 1)
        assert len(warnings()) == 1
        assert (await run.stop())["run"]["state"] == "stopped"
    assert load_checkpoint(run.dir).counts["updates"] > updates


def test_a_run_that_was_not_started_says_so(small):
    run = Orchestrator(small())
    with pytest.raises(RuntimeError, match="has not been started"):
        run.status()
