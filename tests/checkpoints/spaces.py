"""Policies and tasks of every kind of space."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from aa2c.checkpoints.tensors import Checkpoint
from aa2c.checkpoints.trained import TrainedPolicy
from aa2c.config.config import Config
from aa2c.envs.plain import spec_of
from aa2c.policy.network import make_policy

VECTOR = spaces.Box(-1, 1, (3,), np.float32)
SCREEN = spaces.Box(0, 255, (4, 84, 84), np.uint8)
OBSERVATIONS = [
    VECTOR,
    spaces.Box(0, 255, (2, 3), np.uint8),
    spaces.Box(-5, 5, (), np.float64),
    spaces.Discrete(4, start=1),
    spaces.MultiDiscrete([3, 4]),
    spaces.MultiBinary((2, 2)),
    spaces.Tuple((spaces.Discrete(3), VECTOR)),
    spaces.Dict(far=spaces.Dict(a=spaces.MultiBinary(2), b=VECTOR), kind=spaces.Discrete(2)),
    spaces.Dict(kind=spaces.Discrete(2), image=spaces.Box(0, 255, (8, 9, 3), np.uint8)),
]
ACTIONS = [
    spaces.Discrete(4, start=-2),
    spaces.MultiBinary((3, 2)),
    spaces.MultiDiscrete([[3, 4], [2, 2]]),
    spaces.Box(-2, 2, (2, 1), np.float32),
    spaces.Tuple((spaces.Discrete(3), spaces.Box(0, 1, (2,), np.float64))),
    spaces.Dict(a=spaces.Discrete(3), b=spaces.Tuple((spaces.MultiBinary(2), VECTOR))),
]


LEGAL = np.array([0, 1, 0, 1], np.int8)  # of ACTIONS[0]


class Task(gym.Env):
    """Random observations; a game lasts 20 steps."""

    def __init__(self, obs, actions):
        self.observation_space, self.action_space = obs, actions

    def reset(self, *, seed=None, options=None):
        self.observation_space.seed(seed)
        self.left = 20
        return self.observation_space.sample(), {"action_mask": LEGAL}

    def step(self, action):
        assert self.action_space.contains(action)
        self.left -= 1
        return self.observation_space.sample(), 0.0, self.left == 0, False, {"action_mask": LEGAL}


def trained(obs=VECTOR, actions=ACTIONS[0], **options):
    """A policy as it comes from a checkpoint, with random parameters, whose heads differ between observations."""
    config = Config(**{"env": "a:Task", "hidden_sizes": (16,), "memory_size": 8} | options)
    spec = spec_of(obs, actions, is_squashed=config.action_bounds == "tanh")
    spec = replace(spec, has_mask=config.action_mask != "none")
    torch.manual_seed(0)
    network = make_policy(config, spec)
    *_, last = (layer for layer in network.policy.modules() if isinstance(layer, torch.nn.Linear))
    torch.nn.init.normal_(last.weight)
    return TrainedPolicy(Checkpoint(Path(), network.state_dict(), {}, config, spec, {}, None))
