"""A game in which an illegal action raises, trained, tested and played to the end in every mode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aa2c import Orchestrator, load_policy
from aa2c.learn.play import play
from aa2c.modes.mode import MODES
from tests.conftest import now, until

pytestmark = pytest.mark.long

BUDGET = 20_000
KINDS = {"grad": ("info", "tuple"), "model": ("method", "one"), "traj": ("obs", "two")}


def _tests(run):
    return run.status()["returns"]["test"]["sampled"]["count"]


@pytest.mark.parametrize("mode", MODES)
async def test_an_illegal_action_is_never_taken(small, mode):
    where, kind = KINDS[mode]
    env = f"tests.envs.masked_env:Masked-{where}-{kind}-v0"
    config = small(
        mode=mode,
        env=env,
        action_mask=where,
        norm_obs=True,
        num_envs=16,
        num_steps=32,
        update_epochs=1,
        minibatches=2,
        total_env_steps=10**9,
        eval_interval_s=1.0,
        eval_episodes=4,
    )
    async with Orchestrator(config) as run:
        await until(lambda: now(run)["env_steps"] >= BUDGET and _tests(run) > 0, timeout_s=100)
        status = run.status()
        await run.stop()
    children = [*status["workers"], status["evaluator"]]
    assert [child["restarts"] for child in children] == [0] * len(children)
    assert not [line for line in status["log"] if "Illegal" in str(line)]

    policy = load_policy(run.dir, env=env)
    played = play(
        replace(policy.checkpoint.config, env=env),
        policy.network,
        episodes=20,
        greedy=False,
        seed=5,
        max_steps=100,
    )
    assert {episode.length for episode in played} == {9}
    env = policy.make_env()
    for episode in range(20):
        obs, info = env.reset(seed=episode)
        is_over = False
        while not is_over:
            mask = {"obs": None, "info": info.get("action_mask")}.get(where, np.array([]))
            if where == "method":
                mask = env.get_wrapper_attr("action_masks")()
            action, _ = policy.predict(obs, action_mask=mask, deterministic=episode % 2 == 0)
            obs, _, terminated, truncated, info = env.step(action)
            is_over = terminated or truncated
    env.close()
