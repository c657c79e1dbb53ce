"""A run whose returns fall: it is warned of everywhere, and ends with the best checkpoint."""

from __future__ import annotations

import json

import pytest

from aa2c import Orchestrator
from aa2c.checkpoints.files import best_score
from aa2c.checkpoints.tensors import load_checkpoint
from aa2c.modes.mode import MODES
from tests.conftest import until
from tests.envs.spoilt_env import HIGHEST


@pytest.mark.parametrize("mode", MODES)
async def test_a_run_whose_returns_fell_says_so_and_ends_with_its_best(small, mode, tmp_path):
    config = small(
        mode=mode, env="tests.envs.spoilt_env:Spoilt-v0", total_env_steps=2 * 10**6,
        env_kwargs={"file": str(tmp_path / "spoilt")}, keep_best=True, num_envs=2,
    )  # fmt: skip
    events = []
    async with Orchestrator(config, on_event=events.append) as run:
        await run.ready()
        checkpoints = run.dir / "checkpoints"
        await until(lambda: (best_score(checkpoints) or 0) > 0.9 * HIGHEST)
        assert run.status()["warnings"] == []
        (tmp_path / "spoilt").touch()
        await until(
            lambda: "returns_fell" in [warning["name"] for warning in run.status()["warnings"]]
        )
        status = await run.stop()
    logged = [json.loads(line) for line in (run.dir / "log.jsonl").read_text().splitlines()]
    assert [line.get("warning") for line in logged].count("returns_fell") == 1
    assert "returns_fell" in [event.get("warning") for event in events], "the terminal shows it"
    (returned,) = [event["event"] for event in events if event.get("act") == "best"]
    newest, best = load_checkpoint(run.dir), load_checkpoint(run.dir, best=True)
    assert newest.score > 0.9 * HIGHEST
    assert f"{newest.score:.1f}" in returned
    assert newest.path == best.path
    assert newest.counts["updates"] == status["progress"]["updates"]
