"""The schema: every named leaf of a rollout, once. Step, rollout, record and batch all follow it.

One step of one environment adds a leaf of each to a rollout of T steps of B environments, time first.
`obs` and `values` have a row more, T+1: what the next rollout starts from.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from aa2c.config.config import Config
from aa2c.envs.frames import empty_stacks
from aa2c.envs.spec import OBS, STEP_LEAVES, EnvSpec, Leaf

VALUES = "values"
STATES = ("state_h", "state_c")
FIRST_STACK, PLANES = "first_stack", "planes"

Flags = NDArray[np.bool_]

POLICY_LEAVES = (Leaf("log_probs", "<f4"), Leaf(VALUES, "<f4"))
_ONE_ROW_MORE = (OBS, VALUES)
_SENT_DTYPES = ("|u1", "|i1", "|b1", "<i4", "<i8", "<f4", "<f8")


def step_leaves(spec: EnvSpec) -> tuple[Leaf, ...]:
    """Of one step of one environment: what was seen, done, and what it led to."""
    obs = Leaf(OBS, np.dtype(spec.obs_dtype).str, spec.obs_shape)
    return (obs, spec.actions.leaf, *STEP_LEAVES)


def rollout_leaves(spec: EnvSpec, config: Config) -> list[Leaf]:
    """Of a rollout that stays in its process, [T, B, …]."""
    return [*_over_time(step_leaves(spec), config), *state_leaves(config)]


def record_leaves(spec: EnvSpec, config: Config) -> list[Leaf]:
    """Of a rollout that is sent, with the log-probs and values of the policy that acted.

    Of stacked frames each is sent once: the first stacks, as pixels [B, H, W, 4], and the newest frames
    of the later ones, `planes` [T, B, H, W].
    """
    obs, *others = step_leaves(spec)
    rest = [*_over_time((*others, *POLICY_LEAVES), config), *state_leaves(config)]
    if spec.is_stacked:
        stack, height, width = spec.obs_shape
        first = Leaf(FIRST_STACK, obs.dtype, (height, width, stack)).outer(config.num_envs)
        planes = Leaf(PLANES, obs.dtype, (height, width)).outer(config.num_steps, config.num_envs)
        return [first, planes, *rest]
    if obs.dtype not in _SENT_DTYPES:
        obs = obs._replace(dtype="<f4")
    return [*_over_time([obs], config), *rest]


def state_leaves(config: Config) -> list[Leaf]:
    """What a policy with memory remembers at the start of each sequence, [T / L, B, H]."""
    sequences = config.num_steps // sequence_length(config)
    count = {"none": 0, "gru": 1, "own": 1, "lstm": 2}[config.memory]
    leaf = Leaf("", "<f4", (config.memory_size,)).outer(sequences, config.num_envs)
    return [leaf._replace(name=name) for name in STATES[:count]]


def sequence_length(config: Config) -> int:
    """Steps L of a sequence that is learned from as a whole: without memory each stands alone."""
    if config.memory == "none":
        return 1
    return config.sequence_length or config.num_steps


def begins_episode(is_reset: Flags) -> Flags:
    """Where a row of a rollout [T, B] begins an episode; of its first, the kept state knows."""
    is_first: Flags = np.zeros_like(is_reset)
    is_first[1:] = is_reset[:-1]
    return is_first


def _over_time(leaves: Iterable[Leaf], config: Config) -> list[Leaf]:
    steps, envs = config.num_steps, config.num_envs
    return [leaf.outer(steps + (leaf.name in _ONE_ROW_MORE), envs) for leaf in leaves]


def empty_arrays(spec: EnvSpec, leaves: Iterable[Leaf]) -> dict[str, NDArray[np.generic]]:
    """Memory for these leaves, zeros but for observations, in the order that suits networks."""
    return {
        leaf.name: empty_obs(spec, leaf.shape[: -len(spec.obs_shape)])
        if leaf.name == OBS
        else np.zeros(leaf.shape, leaf.dtype)
        for leaf in leaves
    }


def empty_obs(spec: EnvSpec, outer: tuple[int, ...]) -> NDArray[np.generic]:
    """Memory for observations [*outer, …] in the order that suits networks."""
    shape = (*outer, *spec.obs_shape)
    return empty_stacks(shape) if spec.is_stacked else np.empty(shape, spec.obs_dtype)
