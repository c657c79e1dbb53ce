"""What its owner does to a run while it goes on, and what the run then does: real processes."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import psutil
import pytest

from aa2c import ConfigError, Orchestrator
from aa2c.checkpoints.files import read_checkpoint
from aa2c.errors import ControlRefused
from aa2c.ports import Counters, Report
from tests.conftest import until

pytestmark = pytest.mark.long

ENDLESS = 10**9
EVALUATION = {"eval_episodes": 1, "eval_max_steps": 10}
EVALUATION_BEATS = 30  # of both policies: two games of ten steps, and what is between them


def env_steps(run: Orchestrator) -> int:
    return run.status()["progress"]["env_steps"]


async def goes_on(run: Orchestrator) -> None:
    before = env_steps(run)
    await until(lambda: env_steps(run) > before)


async def until_beaten(rows: list[Counters], beats: int) -> None:
    """Wait until each of these has looked that many times whether it may go on."""
    targets = [row.count("beats") + beats for row in rows]
    await until(lambda: all(r.count("beats") >= t for r, t in zip(rows, targets, strict=True)))


@pytest.mark.parametrize("mode", ["grad", "model", "traj"])
async def test_a_run_obeys_its_owner(small, mode):
    """One run for all acts, because a run takes seconds to come up."""
    config = small(mode=mode, total_env_steps=ENDLESS, anneal_learning_rate=False)
    async with Orchestrator(config) as run:
        with pytest.raises(ControlRefused, match="the run is starting"):
            run.controls.pause()
        await run.ready()
        await until(lambda: run.state == "running")
        await _it_rests_while_it_is_paused(run)
        await _it_saves_when_asked(run)
        await _it_takes_new_values(run)
        await _it_gets_and_gives_back_workers(run)
        await _it_shows_what_a_worker_sees(run)
        kinds = [mark["kind"] for mark in run.status()["marks"]]
        run.controls.stop()
        await run.wait()
        with pytest.raises(ControlRefused, match="already ended"):
            run.controls.stop()
    paused, changed = ["pause", "resume"], ["checkpoint", "set", "set", "rollback"]
    assert kinds == [*paused, *changed, "workers", "workers", "workers", *paused]
    rows = [json.loads(line) for line in (run.dir / "marks.jsonl").read_text().splitlines()]
    assert [row["kind"] for row in rows] == [*kinds, "stop"]
    texts = [json.loads(line)["event"] for line in (run.dir / "log.jsonl").read_text().splitlines()]
    assert {"paused", "resumed", "checkpoint", "workers 2 → 4"} <= set(texts)
    saved = read_checkpoint(run.dir, lambda it: it).config
    assert saved.learning_rate == 0.0  # what was set goes on with --resume


async def _it_rests_while_it_is_paused(run):
    await goes_on(run)
    assert run.controls.pause() == "paused"
    assert run.state == "paused"
    telemetry = run._engine.telemetry
    rows = [telemetry.workers[i] for i in range(2)]
    await until_beaten(rows, 2)  # the second is of one who rests
    await until_beaten([telemetry.updater], 20)  # in which it learns from what they had sent
    before = env_steps(run)
    await until_beaten(rows, 10)  # a resting worker without beats would be taken for a hung one
    assert env_steps(run) == before
    pid = run.status()["workers"][0]["pid"]
    psutil.Process(pid).kill()
    await until(lambda: run.status()["workers"][0]["generation"] == 1)
    await until(lambda: run.status()["workers"][0]["state"] == "running")
    assert env_steps(run) == before, "a worker that was started again rests, too"
    assert run.controls.resume() == "resumed"
    assert run.state == "running"
    await goes_on(run)


async def _it_saves_when_asked(run):
    said = await run.controls.checkpoint()
    assert said.startswith("written: ")
    saved = read_checkpoint(run.dir, lambda it: it)
    assert str(saved.path) == said.removeprefix("written: ")
    assert 0 < saved.counts["env_steps"] <= env_steps(run)


async def _it_takes_new_values(run):
    await until(lambda: run.status()["losses"]["learning_rate"] == run.config.learning_rate)
    assert run.controls.set({"learning_rate": 0, "ent_coef": "15e-1"}) == "set"
    await until(lambda: run.status()["losses"]["learning_rate"] == 0.0)
    settings = run.status()["settings"]
    assert settings["learning_rate"] == {"value": 0.0, "minimum": 0, "maximum": 1}
    assert settings["ent_coef"]["value"] == 1.5
    assert ("clip_coef" in settings) == (run.config.mode == "traj")
    assert "eval_interval_s" not in settings, "there is no evaluator"
    _it_refuses_what_cannot_be(run, settings)
    run.controls.hear({"kind": Report.OPTIONS_UNDONE, "options": {"ent_coef": [0.0]}})
    assert run.status()["settings"]["ent_coef"]["value"] == 0.0
    assert run.status()["marks"][-1]["text"] == "ent_coef 1.5 → 0, as before it was set"


def _it_refuses_what_cannot_be(run, settings):
    for name, value, why in (
        ("learning_rate", -1, "--learning-rate -1.0 must be at least 0"),
        ("learning_rate", float("nan"), "not a finite number"),
        ("learning_rate", 10**400, "is not a number"),
        ("learning_rate", True, "--learning-rate True is not a number"),
        ("ent_coef", "0,1", "--ent-coef '0,1' is not a number"),
        ("ent_coef", [0.1, 0.2], "is not a number"),
        ("seed", 3, "'seed' cannot be changed during a run"),
        ("__class__", 3, "cannot be changed during a run"),
        ("eval_interval_s", 3, "cannot be changed during a run"),
    ):
        with pytest.raises(ConfigError, match=why):
            run.controls.set({"max_grad_norm": 9.0, name: value})
    assert run.status()["settings"] == settings, "all or nothing"


async def _it_gets_and_gives_back_workers(run):
    least = run.config.least_workers
    for count in (0, -1, least - 1, 19, 2.0, "3", True, None):
        with pytest.raises(ConfigError, match=f"--workers .* must be in {least} … 18"):
            await run.controls.set_workers(count)
    await run.controls.set_workers(4)
    await until(lambda: all(w["env_steps"] for w in run.status()["workers"]))
    assert len(run.status()["workers"]) == len(run.status()["rings"]) == 4
    pids = [worker["pid"] for worker in run.status()["workers"]]
    total = env_steps(run)
    await run.controls.set_workers(least)
    assert [w["id"] for w in run.status()["workers"]] == list(range(least))
    assert not any(psutil.pid_exists(pid) for pid in pids[least:])
    await until(
        lambda: len(run._engine._memory._rings) == least
    )  # theirs were emptied and given back
    assert env_steps(run) >= total
    await goes_on(run)
    await run.controls.set_workers(3)
    newest = run.status()["workers"][2]
    assert newest["generation"] == 1
    assert newest["restarts"] == 0, "nothing had died"
    await until(lambda: run.status()["workers"][2]["env_steps"] > newest["env_steps"])


async def _it_shows_what_a_worker_sees(run):
    frames = await run.controls.frames()
    rows = len(frames["values"])
    assert all(abs(angle) < 0.42 for _, _, angle, _ in frames["values"]), "of CartPole"
    assert (1 <= rows <= 16, {len(row) for row in frames["values"]}) == (True, {4})
    run.controls.pause()
    with pytest.raises(ControlRefused, match="paused"):
        await run.controls.frames()
    run.controls.resume()


async def test_the_evaluator_obeys_too(small):
    config = small(total_env_steps=ENDLESS, eval_interval_s=3600.0, **EVALUATION)
    async with Orchestrator(config) as run:
        await run.ready()

        def evaluations() -> int:
            return run.status()["evaluator"]["evaluations"]

        await until(lambda: evaluations() == 1)
        run.controls.set({"eval_interval_s": 0.2})
        await until(lambda: evaluations() >= 3)
        run.controls.set({"eval_interval_s": 0})
        row = run._engine.telemetry.evaluator
        await until_beaten([row], EVALUATION_BEATS)  # what had been begun is done
        before = evaluations()
        await until_beaten([row], EVALUATION_BEATS)
        assert evaluations() == before
        run.controls.set({"eval_interval_s": 3600})
        await until(lambda: evaluations() == before + 1)


async def test_a_run_goes_on_with_the_history_it_had(small):
    config = small(total_env_steps=20_000)
    async with Orchestrator(config) as run:
        await run.ready()
        await until(lambda: run.state == "running")
        run.controls.set({"ent_coef": 0.125})
        await run.wait()
    marks, before = run.status()["marks"], run._history.document()["series"]
    wanted = replace(read_checkpoint(run.dir, lambda it: it).config, total_env_steps=40_000)
    assert wanted.ent_coef == (0.125,)
    async with Orchestrator(wanted, resume=run.dir) as again:
        assert again.status()["marks"] == marks
        status = await again.wait()
    after = again._history.document()["series"]
    kept = sum(steps <= 20_000 for steps in before["env_steps"])
    assert after["time_s"][:kept] == before["time_s"][:kept]
    assert after["env_steps"] == sorted(after["env_steps"])
    assert after["time_s"] == sorted(after["time_s"])
    assert status["run"]["uptime_s"] > before["time_s"][-1]
    with (run.dir / "episodes.csv").open() as file:
        assert sum(1 for _ in csv.DictReader(file)) >= status["returns"]["train"]["count"]
