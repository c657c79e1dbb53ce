"""Processes that environments start: they get signals as usual, and end with the child they serve.

Runs in worker and evaluator. However such a child ends, even by SIGKILL, somebody must kill
what its environments leave behind: a keeper, a bare interpreter in a session of its own, which waits for
our end and then kills what is left of our process group and whatever carries our mark in its
environment variables. Only environments that come neither with Gymnasium nor with ale_py get one, and
those that are to have processes of their own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import gymnasium as gym

from aa2c.config.config import Config
from aa2c.envs.failure import explain_failures
from aa2c.envs.find import find_env
from aa2c.envs.registered import KNOWN_EVERYWHERE

MARK = "AA2C_ENVIRONMENTS_OF"
_KEEPER = str(Path(__file__).with_name("keeper.py"))


def let_start_processes(config: Config) -> None:
    """Let what the environments of this child process start get signals as usual, and end with it.

    Call it before they are made. Raises `StartError` for an environment that cannot be found.
    """
    if not _is_foreign(config):
        return
    os.environ[MARK] = f"{os.getpid()}-{os.urandom(8).hex()}"
    if os.getpgrp() == os.getpid():
        _start_keeper(f"{MARK}={os.environ[MARK]}")  # which signals to a whole job do not end
    _deliver_signals()


def _is_foreign(config: Config) -> bool:
    if config.vector or config.vectorization == "async":
        return True
    with explain_failures(config.env_flags):
        env_id, game = find_env(config)
        entry_point = str(gym.spec(env_id).entry_point)
    makers = (entry_point, *config.wrapper)
    return game is None and not all(maker.startswith(KNOWN_EVERYWHERE) for maker in makers)


def _deliver_signals() -> None:
    """Ignore here what was blocked: a blocked signal stays so in every program that is started."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for number in blocked:
        signal.signal(number, _ignore)  # SIG_IGN would be inherited, too

    def as_usual() -> None:
        for number in blocked:
            signal.signal(number, signal.SIG_DFL)

    os.register_at_fork(after_in_child=as_usual)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)


def _ignore(*_: object) -> None:
    """The orchestrator answers it."""


def _start_keeper(mark: str) -> None:
    with contextlib.suppress(OSError):  # out of processes: then there is none to keep, either
        subprocess.Popen(
            [sys.executable, "-I", "-S", _KEEPER, str(os.getpid()), mark],
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
