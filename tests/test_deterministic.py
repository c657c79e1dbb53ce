"""--deterministic: the same seed gives the same parameters, also through a stop and a resume."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch

from aa2c import Config, ConfigError, Orchestrator, RunFailed
from aa2c.checkpoints.tensors import load_checkpoint
from aa2c.envs.state import CannotBeSaved
from aa2c.envs.vector import make_envs
from aa2c.modes.mode import MODES
from tests.conftest import until

pytestmark = pytest.mark.long

ATARI = {"env": "ALE/Pong-v5", "network": "a3c", "num_envs": 2, "num_steps": 8}
NORMALIZED = {"norm_obs": True, "norm_rewards": True}
IN_MODE = {"grad": NORMALIZED | {"grad_sync_steps": 16}, "model": NORMALIZED, "traj": NORMALIZED}
ATARI_IN_MODE = {"grad": {"grad_sync_steps": 8}, "model": {}, "traj": {}}


async def train(config, resume=None):
    """Run to the end; returns what the last checkpoint holds."""
    async with Orchestrator(config, resume=resume) as run:
        await run.wait()
    return load_checkpoint(run.dir)


def differences(one, other):
    """Names in which two checkpoints differ, of parameters, optimizer and counts."""
    found = [
        name
        for part in ("model", "optimizer")
        for name in getattr(one, part)
        if not torch.equal(getattr(one, part)[name], getattr(other, part)[name])
    ]
    counts = ("env_steps", "updates", "records")
    return found + [name for name in counts if one.counts[name] != other.counts[name]]


@pytest.mark.parametrize("mode", MODES)
async def test_the_same_seed_gives_the_same_parameters_and_another_seed_others(small, mode):
    def config(seed):
        options = IN_MODE[mode] | {"workers": 3, "total_env_steps": 3000}
        return small(mode=mode, deterministic=True, seed=seed, **options)

    first, again = [await train(config(seed)) for seed in (3, 3)]
    assert first.counts["updates"] > 5
    assert differences(first, again) == []
    if mode == "grad":
        assert differences(first, await train(config(4)))


@pytest.mark.parametrize("mode", MODES)
async def test_atari_games_are_played_alike(small, mode):
    options = ATARI | ATARI_IN_MODE[mode] | {"total_env_steps": 400}
    config = small(mode=mode, deterministic=True, **options)
    first, again = [await train(config) for _ in range(2)]
    assert first.counts["updates"] >= 3
    assert differences(first, again) == []


@pytest.mark.parametrize(
    ("mode", "env"), [("grad", "CartPole-v1"), ("model", "CartPole-v1"), ("traj", "Acrobot-v1")]
)
async def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(small, mode, env):
    options = IN_MODE[mode] | {"env": env, "total_env_steps": 8000}
    config = small(mode=mode, deterministic=True, **options)
    whole = await train(config)
    async with Orchestrator(config) as run:
        await until(lambda: run.status()["progress"]["updates"] > whole.counts["updates"] // 4)
        await run.stop()
    halfway = load_checkpoint(run.dir)
    assert 0 < halfway.counts["updates"] < whole.counts["updates"]
    rest = await train(config, resume=run.dir)
    assert differences(whole, rest) == []


async def test_a_run_on_atari_that_is_resumed_says_that_its_games_start_over(small):
    config = small(mode="traj", deterministic=True, **ATARI, total_env_steps=10**9)
    async with Orchestrator(config) as run:
        await until(lambda: run.status()["progress"]["updates"] > 2)
        await run.stop()
    async with Orchestrator(config, resume=run.dir) as run:
        await run.ready()
        await until(lambda: any("start over" in line["text"] for line in run.status()["log"]))


async def test_a_killed_worker_ends_it_and_the_run_can_be_resumed(small):
    config = small(
        mode="traj", deterministic=True, total_env_steps=10**9, checkpoint_interval_s=1.0
    )
    async with Orchestrator(config) as run:
        await run.ready()
        await until(lambda: run.status()["updater"]["checkpoint_at"])
        os.kill(run.status()["workers"][0]["pid"], signal.SIGKILL)
        with pytest.raises(RunFailed, match="--deterministic cannot continue without it"):
            await run.wait()
    async with Orchestrator(config, resume=run.dir) as run:
        await run.ready()
        await until(lambda: run.status()["run"]["state"] == "running")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "grad", "update_order": "hogwild"}, "--update-order hogwild"),
        ({"mode": "traj", "workers": 3, "batch_steps": 512, "num_steps": 128}, "--batch-steps 512"),
    ],
    ids=str,
)
def test_what_is_left_to_chance_is_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        Config(deterministic=True, **options)


@pytest.mark.parametrize("env", ["CartPole-v1", "Acrobot-v1", "MountainCar-v0"])
def test_environments_go_on_from_their_saved_state(env):
    config = Config(env=env, num_envs=3)
    first, second = make_envs(config, 3, seed=1), make_envs(config, 3, seed=2)
    first.reset()
    second.reset()
    actions = np.random.default_rng(0).integers(0, first.spec.actions.n, (60, 3))
    for row in actions[:25]:
        first.step(row)
    second.load_state(first.state())
    for row in actions[25:]:
        one, other = first.step(row), second.step(row)
        for name in ("obs", "rewards", "terminated", "truncated", "is_reset"):
            assert np.array_equal(one[name], other[name]), name
        assert one.episodes == other.episodes
    first.close()
    second.close()


def test_atari_environments_say_that_they_cannot_be_saved():
    config = Config(env="ALE/Pong-v5", num_envs=2)
    envs = make_envs(config, 2, seed=0)
    with pytest.raises(CannotBeSaved, match="emulators"):
        envs.state()
    envs.close()
