"""Losses and gradients that are not finite are never applied."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aa2c import Orchestrator, RunFailed
from aa2c.checkpoints.tensors import load_checkpoint
from aa2c.modes.mode import MODES
from tests.conftest import now, until

pytestmark = pytest.mark.long

SPOILT = {
    "env": "tests.crashing_env:SpoiltReward-v0",
    "workers": 1,
    "num_steps": 16,
    "grad_sync_steps": 16,
    "total_env_steps": 10**9,
    "nonfinite_limit": 3,
}


@pytest.mark.parametrize("mode", MODES)
async def test_numbers_that_are_not_finite_lead_back_to_a_checkpoint(small, mode):
    config = small(**SPOILT, mode=mode, checkpoint_interval_s=1.0, anneal_learning_rate=False)
    async with Orchestrator(config) as run:
        await run.ready()
        await until(lambda: run.status()["updater"]["rollbacks"] > 0)
        await until(lambda: any(mark["kind"] == "rollback" for mark in run.status()["marks"]))
        updates, rejected = now(run)["updates"], run.status()["updater"]["rejected"]
        assert rejected >= 3
        await until(lambda: now(run)["updates"] > updates + 50)
        rollbacks = run.status()["updater"]["rollbacks"]
        rate = run.status()["losses"]["learning_rate"]
        assert rate == pytest.approx(config.learning_rate / 2**rollbacks)
        await run.stop()
    kept = sorted((run.dir / "set_aside").iterdir())
    assert 0 < len(kept) <= 11  # worker and updater may both have seen room for the tenth
    with np.load(kept[0], allow_pickle=False) as file:
        assert json.loads(str(file["told"]))
        assert not np.isfinite(file["rewards" if "rewards" in file else "grad"]).all()
    saved = load_checkpoint(run.dir)
    assert all(bool(tensor.isfinite().all()) for tensor in saved.model.values())


async def test_numbers_that_are_not_finite_end_the_run_where_that_is_wanted(small):
    config = small(**SPOILT, nonfinite_action="stop")
    async with Orchestrator(config) as run:
        with pytest.raises(RunFailed, match=r"3 consecutive records were not finite"):
            await run.wait()
    assert load_checkpoint(run.dir).counts["updates"] > 0
