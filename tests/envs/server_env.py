"""Environments with programs of their own, which close() would end; importing registers them."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(3600)"]


def echo(pipe: Any) -> None:
    """A simulator: it says what it hears."""
    while True:
        pipe.send(pipe.recv())


class Server(gym.Env[Any, Any]):
    """A simulator by multiprocessing, a program, and one in a session of its own."""

    observation_space: Any = gym.spaces.Box(0, 1, (2,), np.float32)
    action_space: Any = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        self.simulator = context.Process(target=echo, args=(theirs,), daemon=True)
        self.simulator.start()
        self.programs = [
            subprocess.Popen(SLEEP),
            subprocess.Popen(SLEEP, start_new_session=True),
        ]

    @property
    def pids(self) -> list[int]:
        assert self.simulator.pid is not None
        return [self.simulator.pid, *(program.pid for program in self.programs)]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.pipe.send(float(action))
        return np.zeros(2, np.float32), self.pipe.recv(), False, False, {}

    def close(self) -> None:
        """As usual: with SIGTERM, and then it is waited for."""
        self.simulator.terminate()
        self.simulator.join()
        for program in self.programs:
            program.terminate()
            program.wait()


gym.register("Server-v0", f"{__name__}:Server")
