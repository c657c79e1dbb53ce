"""`runs`: what became of the runs in a directory, by their files."""

from __future__ import annotations

import fcntl
import json
import os
import re

import pytest

from aa2c import Config, Orchestrator
from aa2c.config.toml import to_toml
from aa2c.run.files import write_access
from aa2c.run.listing import list_runs
from tests.conftest import until


def written(runs, name, *events, env_steps=0, score=None, changed_at=0.0):
    """The files of a run of 1000 env steps."""
    run = runs / name
    run.mkdir(parents=True)
    (run / "config.toml").write_text(to_toml(Config(total_env_steps=1000, mode="traj")))
    lines = [{"process": "orchestrator", "event": event, "error": why} for event, why in events]
    chatter = {"process": "worker-0", "event": "finished"}
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, chatter]))
    row = {"progress": {"env_steps": env_steps, "total_env_steps": 1000}}
    (run / "metrics.jsonl").write_text(f'{json.dumps(row)}\n{{"progress": ')  # cut off
    os.utime(run / "metrics.jsonl", (changed_at, changed_at))
    if score is not None:
        checkpoint = run / "checkpoints" / "step-1"
        checkpoint.mkdir(parents=True)
        (checkpoint / "state.json").write_text(json.dumps({"score": score}))
    return run


BEGUN = (("start", ""), ("running", ""))


@pytest.mark.parametrize(
    ("events", "env_steps", "state"),
    [
        ((*BEGUN, ("finished", "")), 1003, "finished"),
        ((*BEGUN, ("stopped", "")), 999, "stopped"),
        ((*BEGUN, ("failed", "no luck")), 5, "failed"),
        (BEGUN, 5, "crashed"),
        ((*BEGUN, ("stopped", ""), *BEGUN), 999, "crashed"),
        ((), 0, "crashed"),
    ],
)
def test_a_run_that_has_ended_says_how(tmp_path, events, env_steps, state):
    written(tmp_path, "it", *events, env_steps=env_steps, score=12.5)
    (found,) = list_runs(tmp_path)
    assert (found.state, found.env_steps, found.total_env_steps) == (state, env_steps, 1000)
    assert (found.env, found.mode, found.best_mean) == ("CartPole-v1", "traj", 12.5)
    assert found.error == ("no luck" if state == "failed" else "")
    assert list_runs(tmp_path / "it") == [found]


def test_one_that_is_trained_has_its_address_and_the_newest_comes_first(tmp_path, command):
    old = written(tmp_path, "old", *BEGUN, ("finished", ""), env_steps=1000, changed_at=1e9)
    new = written(tmp_path, "new", *BEGUN, env_steps=7, changed_at=2e9)
    for run in (old, new):
        write_access(run, "http://127.0.0.1:9/", "secret")
    with (new / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        first, second = list_runs(tmp_path)
        shown = command("runs", str(tmp_path)).stdout
    assert (first.name, first.state, first.url) == ("new", "running", "http://127.0.0.1:9/")
    assert (second.name, second.state, second.url) == ("old", "finished", "")
    head, *lines = shown.splitlines()
    assert head.split()[:4] == ["run", "state", "env", "mode"]
    assert re.match(r"new +running +CartPole-v1 +traj +7 of 1,000 +– +0 s +http:", lines[0])
    assert json.loads(command("runs", str(tmp_path), "--json").stdout)[1]["name"] == "old"


def test_files_that_are_damaged_or_missing_cost_their_part_only(tmp_path, command):
    run = tmp_path / "it"
    run.mkdir()
    (run / "config.toml").write_bytes(b"\xff\x00 = [")
    (run / "log.jsonl").write_bytes(b"\xff\n[]\n{}")
    (tmp_path / "no-run").mkdir()
    (found,) = list_runs(tmp_path)
    assert (found.name, found.state, found.env_steps, found.best_mean) == ("it", "crashed", 0, None)
    assert command("runs", str(run / "..")).returncode == 0
    (run / "config.toml").write_text('total_env_steps = "abc"')
    (run / "metrics.jsonl").write_text('{"progress": {"env_steps": null}}\n')
    assert command("runs", str(run / "..")).stdout.count("0 of 0") == 1
    assert "no runs here" in command("runs", str(tmp_path / "no-run")).stdout


@pytest.mark.long
async def test_a_run_of_this_machine_is_found_watched_and_called_stopped(small, command):
    import asyncio

    config = small(total_env_steps=10**9, port=0)
    async with Orchestrator(config, http=True) as run:
        await run.ready()
        await until(lambda: run.state == "running")
        (found,) = await asyncio.to_thread(list_runs, run.dir)
        assert (found.state, found.url) == ("running", run.url)
        watching = asyncio.create_task(asyncio.to_thread(command, "top", str(run.dir)))
        await run.stop()
        done = await watching
        assert (done.returncode, "stopped: " in done.stdout) == (0, True), done.stderr
    (found,) = list_runs(run.dir)
    assert (found.state, found.url) == ("stopped", "")
