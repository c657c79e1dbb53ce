"""Whole runs in environments as people have them: arguments, wrappers, processes, vectors."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from aa2c import ConfigError, Orchestrator, load_policy
from aa2c.cli.main import main
from aa2c.config.toml import load_config
from tests.envs.asked_env import make_vector

pytestmark = pytest.mark.long

HERE = "tests.envs.asked_env"
ENV, FLAT, PLUS = f"{HERE}:Scripted-v0", "gymnasium.wrappers:FlattenObservation", f"{HERE}:Plus"


def episodes_of(run_dir: Path) -> set[tuple[float, int]]:
    """Return and length of all training episodes."""
    with (run_dir / "episodes.csv").open() as file:
        return {(float(row["return"]), int(row["length"])) for row in csv.DictReader(file)}


async def test_what_was_asked_of_the_environments_is_asked_again_by_eval_resume_and_load_policy(
    small, capsys
):
    asked = {"kind": "dict", "scale": 10}
    config = small(
        env=ENV, env_kwargs=asked, wrapper=(FLAT, PLUS), vectorization="async", num_envs=2,
        total_env_steps=500,
    )  # fmt: skip
    async with Orchestrator(config) as run:
        await run.wait()
    first = {(63, 3), (32, 2), (104, 4)}
    assert episodes_of(run.dir) == first
    longer = load_config(file=run.dir / "config.toml", flags={"total_env_steps": 1000})
    assert longer.env_kwargs == asked
    async with Orchestrator(longer, resume=run.dir) as resumed:
        assert (await resumed.wait())["progress"]["env_steps"] >= 1000
    assert episodes_of(run.dir) == first
    with pytest.raises(ConfigError, match=f"repeat --wrapper {FLAT} {PLUS}"):
        load_policy(run.dir, env=ENV)
    policy = load_policy(run.dir, env=ENV, wrapper=[PLUS])
    env = policy.make_env()
    obs, _ = env.reset()
    assert obs.shape == (4,)
    assert env.step(policy.predict(obs)[0])[1] == 11
    env.close()
    flags = ["--env", ENV, "--wrapper", PLUS, "--episodes", "1", "--greedy"]
    assert main(["eval", str(run.dir), *flags]) == 0
    assert "return 63.00" in capsys.readouterr().out


async def test_a_vector_of_the_program_that_resets_at_once_is_learned_from(small):
    def make(num_envs, **options):
        return make_vector(num_envs, "DISABLED", **options)

    config = small(
        vector=make, env_kwargs={"scale": 2}, mode="traj", memory="gru", memory_size=4,
        total_env_steps=1000,
    )  # fmt: skip
    async with Orchestrator(config) as run:
        status = await run.wait()
    assert status["run"]["env"].endswith("make()")
    assert episodes_of(run.dir) == {(12, 3), (6, 2), (20, 4)}
    policy = load_policy(run.dir, vector=make)
    assert policy.predict(np.zeros((3, 2)))[0].shape == (3,)
