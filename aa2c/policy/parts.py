"""What a policy is put together from: a trunk, a memory if it has one, and two heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from aa2c.config.config import Config
from aa2c.errors import StartError
from aa2c.policy.actions import ActionType
from aa2c.policy.memory import Memory, Recurrent

Head = Callable[[int, int, float], nn.Module]  # of inputs, outputs and gain


class Trunk(NamedTuple):
    """Layers, how many features they give, and what makes a head for them."""

    layers: nn.Module
    features: int
    head: Head


class Parts(NamedTuple):
    """The modules of a policy; in one that `is_whole` they are those of a user's single module."""

    trunk: nn.Module
    memory: Recurrent | None
    policy: nn.Module
    value: nn.Module
    is_whole: bool = False


def with_heads(config: Config, actions: ActionType, trunk: Trunk) -> Parts:
    """A trunk with --memory and two heads. Raises `StartError` if the memory is to be a user's own."""
    memory, features = None, trunk.features
    if config.memory == "own":
        raise StartError(
            "--memory own needs a --network of your own that is a whole policy: a function with a "
            "parameter num_outputs."
        )
    if config.memory != "none":
        memory = Memory(config.memory, features, config.memory_size)
        features = config.memory_size
    heads = trunk.head(features, actions.num_outputs, 0.01), trunk.head(features, 1, 1.0)
    return Parts(trunk.layers, memory, *heads)


def count_features(trunk: nn.Module, shape: tuple[int, ...]) -> int:
    """Features that a trunk gives for observations [N, *shape]."""
    with torch.no_grad():
        return int(trunk(torch.zeros(1, *shape)).shape[1])
