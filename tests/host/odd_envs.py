"""Environments of people who have other things in mind than a trainer."""

import fcntl
import os
import time

import gymnasium as gym
import numpy as np


class PlainEnv(gym.Env):
    """Episodes of ten steps."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._left = 10
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self._left -= 1
        return np.zeros(2, np.float32), 1.0, self._left == 0, False, {}


class ChattyEnv(PlainEnv):
    def step(self, action):
        print("." * 4000)
        return super().step(action)


class FailingEnv(PlainEnv):
    def __init__(self):
        self._steps = 0

    def step(self, action):
        self._steps += 1
        if self._steps > 100:
            raise RuntimeError("no more than 100 steps")
        return super().step(action)


class ExclusiveEnv(PlainEnv):
    """Holds what only one may hold, as a port or a licence is."""

    def __init__(self):
        self._file = open(os.environ["ONLY_ONE"], "w")  # noqa: SIM115
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self):
        self._file.close()


class SlowToMakeEnv(PlainEnv):
    def __init__(self):
        time.sleep(300)


gym.register("HostSlowToMake-v0", SlowToMakeEnv)
gym.register("HostExclusive-v0", ExclusiveEnv)
gym.register("HostFailing-v0", FailingEnv)
gym.register("HostPlain-v0", PlainEnv)
gym.register("HostChatty-v0", ChattyEnv)
