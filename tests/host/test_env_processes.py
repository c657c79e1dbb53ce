"""What environments start ends with the process that they are in, whatever ends that."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection

import numpy as np
import psutil
import pytest

from aa2c.config.config import Config
from aa2c.envs.vector import make_envs
from aa2c.host.env_processes import let_start_processes
from tests.conftest import until

CONFIG = Config(env="tests.envs.server_env:Server-v0")
BLOCKED = {signal.SIGINT, signal.SIGTERM}


def child(pipe: Connection, leads_group: bool) -> None:
    """Be a worker as far as environments can tell; says what they started, and what they gave."""
    if leads_group:
        os.setpgid(0, 0)
    let_start_processes(CONFIG)
    envs = make_envs(CONFIG, 2, 0)
    envs.reset()
    rewards = envs.step(np.array([0, 1]))["rewards"].tolist()
    pipe.send((envs._envs._envs[0].unwrapped.pids + envs._envs._envs[1].unwrapped.pids, rewards))  # type: ignore[attr-defined]
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)  # are the orchestrator's to answer
    if pipe.recv() == "close":
        envs.close()
        pipe.send("closed")
        pipe.recv()
    os._exit(0)


@contextlib.contextmanager
def started(*, leads_group: bool = True):
    """A child that has come up with blocked signals, as children of a run do."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=child, args=(theirs, leads_group))
    resource_tracker.ensure_running()  # unblocks signals where it starts one
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        assert pipe.poll(60)
        pids, rewards = pipe.recv()
        assert rewards == [0, 1]
        assert len(pids) == 6
        assert all(is_alive(pid) for pid in pids)
        yield process, pipe, pids
    finally:
        process.kill()
        process.join()


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("how", ["killed", "ended"])
async def test_programs_of_environments_end_with_the_process_they_are_in(how):
    with started() as (process, pipe, pids):
        if how == "killed":
            children = psutil.Process(process.pid).children()
            (keeper,) = (p for p in children if "keeper.py" in " ".join(p.cmdline()))
            keeper.terminate()  # as all of a job are
            process.kill()
        else:
            pipe.send("end")
        await until(lambda: not any(is_alive(pid) for pid in pids), 20)


async def test_programs_of_environments_can_be_ended_by_sigterm_though_it_is_blocked_here():
    with started() as (process, pipe, pids):
        pipe.send("close")
        assert pipe.poll(20)
        assert pipe.recv() == "closed"
        assert not any(is_alive(pid) for pid in pids)
        assert process.is_alive()
        keeper = [p.pid for p in psutil.Process(process.pid).children()]
        assert len(keeper) == 1
        pipe.send("end")
        await until(lambda: not is_alive(keeper[0]), 20)


async def test_a_process_group_that_is_not_ones_own_is_left_alone():
    with started(leads_group=False) as (_, pipe, pids):
        pipe.send("close")
        assert pipe.poll(20)
        assert not any(is_alive(pid) for pid in pids)


def test_nothing_happens_for_environments_of_gymnasium():
    before = psutil.Process().children(), dict(os.environ)
    let_start_processes(Config(env="CartPole-v1"))
    assert (psutil.Process().children(), dict(os.environ)) == before
