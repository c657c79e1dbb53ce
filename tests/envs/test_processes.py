"""Environments in processes of their own: as in the worker's, and gone with it."""

from __future__ import annotations

import multiprocessing.forkserver
import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

from aa2c.config.config import Config
from aa2c.envs.state import CannotBeSaved
from aa2c.envs.vector import make_envs
from aa2c.errors import RunFailed, StartError

HERE = "tests.envs.asked_env"


@pytest.fixture(autouse=True)
def no_server_is_left():
    yield
    multiprocessing.forkserver._forkserver._stop()


def both(num_envs=2, **options):
    return [
        make_envs(Config(vectorization=how, **options), num_envs, 3) for how in ("sync", "async")
    ]


def pids(envs):
    return [process._process.pid for process in envs._envs._processes]


@pytest.mark.parametrize(
    ("env", "kwargs"),
    [(f"{HERE}:Scripted-v0", {"kind": "dict"}), ("CartPole-v1", {"max_episode_steps": 9})],
)
def test_the_same_is_seen_of_the_same_seed(env, kwargs):
    near, far = both(env=env, env_kwargs=kwargs)
    assert far.spec == near.spec
    np.testing.assert_array_equal(far.reset(), near.reset())
    rng = np.random.default_rng(0)
    for _ in range(30):
        actions = rng.integers(0, 2, 2)
        expected, found = near.step(actions), far.step(actions)
        assert found.arrays.keys() == expected.arrays.keys()
        for name, values in expected.arrays.items():
            np.testing.assert_array_equal(found[name], values)
        assert found.episodes == expected.episodes
    assert len({os.getpid(), *pids(far)}) == 3
    near.close()
    far.close()


@pytest.mark.long
def test_code_that_is_in_this_program_alone_is_sent_and_its_signs_of_life_come_back():
    from tests.envs.asked_env import Plus, Scripted, twice

    signs = []
    config = Config(env=lambda: Scripted("tuple"), wrapper=[twice, Plus], vectorization="async")
    envs = make_envs(config, 2, 0, lambda: signs.append(0))
    assert len(signs) == 2
    envs.reset()
    assert len(signs) == 4
    assert envs.step(np.zeros(2, np.int64))["rewards"].tolist() == [3, 3]
    with pytest.raises(CannotBeSaved):
        envs.state()
    envs.close()


@pytest.mark.long
@pytest.mark.parametrize("how", [0, 1])
def test_what_fails_is_the_same_sentence_as_in_the_worker(how):
    envs = both(env=f"{HERE}:Failing-v0")[how]
    envs.reset()
    for _ in range(2):
        envs.step(np.zeros(2, np.int64))
    with pytest.raises(
        RunFailed, match=r"Failing-v0: step\(\) raised ValueError: a third step"
    ) as e:
        envs.step(np.zeros(2, np.int64))
    assert "asked_env.py:" in str(e.value)
    envs.close()


def test_what_cannot_be_made_is_the_same_sentence_as_in_the_worker():
    config = {"env": f"{HERE}:Scripted-v0", "env_kwargs": {"length": 3}}
    sentences = []
    for how in ("sync", "async"):
        with pytest.raises(
            StartError, match=r"--env-kwargs length=3 cannot be made: TypeError"
        ) as e:
            make_envs(Config(**config, vectorization=how), 2, 0)
        sentences.append(str(e.value))
    assert sentences[0] == sentences[1]


@pytest.mark.long
def test_a_process_that_ends_is_missed():
    envs = both(env=f"{HERE}:Failing-v0", env_kwargs={"how": "exit"})[1]
    envs.reset()
    for _ in range(2):
        envs.step(np.zeros(2, np.int64))
    with pytest.raises(RuntimeError, match="the process of env-0 has ended, exit code 3"):
        envs.step(np.zeros(2, np.int64))
    envs.close()


def test_atari_games_have_no_processes():
    with pytest.raises(StartError, match="--vectorization async is not for Atari games"):
        make_envs(Config(env="ALE/Pong-v5", vectorization="async"), 1, 0)


def test_they_end_with_a_worker_that_is_killed():
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.envs.asked_env"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        started = [psutil.Process(int(pid)) for pid in worker.stdout.readline().split()]
        assert len(started) == 2
        assert all(process.is_running() for process in started)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
    _, alive = psutil.wait_procs(started, 60)
    assert not alive
