"""The schema: every named leaf of a rollout, once. Step, rollout, record and batch all follow it.

One step of one environment adds a leaf of each to a rollout of T steps of B environments, time first.
`obs` and `values` have a row more, T+1: what the next rollout starts from. Where an episode's last
observation is no row, because the environment is reset at once, `final_values` has its value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aa2c.config.config import Config
from aa2c.envs.frames import empty_stacks
from aa2c.envs.spec import OBS, STEP_LEAVES, EnvSpec, Leaf
from aa2c.policy.normalization import flat_length, normalized_shape

VALUES = "values"
FINAL_VALUES = "final_values"
STATES = ("state_h", "state_c")
FIRST_STACK, PLANES = "first_stack", "planes"
OBS_STATISTICS, RETURN_STATISTICS = "obs_statistics", "return_statistics"

Flags = NDArray[np.bool_]
Floats = NDArray[np.float32]

POLICY_LEAVES = (Leaf("log_probs", "<f4"), Leaf(VALUES, "<f4"))
_ONE_ROW_MORE = (OBS, VALUES)
_SENT_DTYPES = ("|u1", "|i1", "|b1", "<i4", "<i8", "<f4", "<f8")


def step_leaves(spec: EnvSpec) -> tuple[Leaf, ...]:
    """Of one step of one environment: what was seen, done, and what it led to."""
    obs = Leaf(OBS, np.dtype(spec.obs_dtype).str, spec.obs_shape)
    mask = (spec.mask_leaf,) if spec.has_mask else ()
    final = (Leaf(FINAL_VALUES, "<f4"),) if spec.resets_at_once else ()
    return (obs, *mask, spec.actions.leaf, *STEP_LEAVES, *final)


def rollout_leaves(spec: EnvSpec, config: Config) -> list[Leaf]:
    """Of a rollout that stays in its process, [T, B, …]."""
    return [*_over_time(step_leaves(spec), config), *state_leaves(config)]


def record_leaves(spec: EnvSpec, config: Config) -> list[Leaf]:
    """Of a rollout that is sent, with the log-probs and values of the policy that acted.

    Of stacked frames each is sent once: the first stacks, as pixels [B, H, W, 4], and the newest frames
    of the later ones, `planes` [T, B, H, W].
    """
    obs, *others = step_leaves(spec)
    rest = [
        *_over_time((*others, *POLICY_LEAVES), config),
        *state_leaves(config),
        *statistics_leaves(spec, config, of_obs=False),
    ]
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


def statistics_leaves(spec: EnvSpec, config: Config, *, of_obs: bool) -> list[Leaf]:
    """Of what a record covers: count, mean and variance of observations and of discounted returns.

    None unless they are normalized; `of_obs` where a record does not have the observations.
    """
    shapes = {}
    if config.norm_obs and of_obs:
        shapes[OBS_STATISTICS] = normalized_shape(spec)
    if config.norm_rewards:
        shapes[RETURN_STATISTICS] = (1,)
    return [Leaf(name, "<f4", (flat_length(shape),)) for name, shape in shapes.items()]


def sequence_length(config: Config) -> int:
    """Steps L of a sequence that is learned from as a whole: without memory each stands alone."""
    if config.memory == "none":
        return 1
    return config.sequence_length or config.num_steps


def begins_episode(arrays: Mapping[str, NDArray[Any]]) -> Flags:
    """Where a row [T+1, B] of a rollout begins an episode; of its first, the kept state knows."""
    shows_first = arrays["is_reset"]
    if FINAL_VALUES in arrays:
        shows_first = arrays["terminated"] | arrays["truncated"]
    first: Flags = np.concatenate([np.zeros_like(shows_first[:1]), shows_first])
    return first


def next_values(arrays: Mapping[str, NDArray[Any]], values: Floats) -> Floats:
    """Values [T, B] of what each step led to, of those of the rows [T+1, B]."""
    if FINAL_VALUES not in arrays:
        return values[1:]
    return np.where(arrays["truncated"], arrays[FINAL_VALUES], values[1:])


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
