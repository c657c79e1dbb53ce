"""Rollouts: T steps of a worker's B environments, written into arrays that are used again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aa2c.rl.envs import Envs, Episode
from aa2c.rl.frames import copy_stacks, empty_stacks
from aa2c.rl.network import ActorCritic, sample_actions

SHOWN_FRAMES = 16
SHOWN_NUMBERS = 64  # of a vector
MOST_FRAME_BYTES = 512 * 1024
RANDOM_STEPS = 256  # of each environment
LOOK_EVERY = 4  # of these steps: neighbours tell little more


class Rollout:
    """Arrays of one rollout, time first. Row t of `obs` is what action t was chosen from.

    obs [T+1, B, …] (the last row is where the next rollout goes on), actions, rewards, terminated,
    truncated, is_reset: [T, B]. A reset row's action had no effect: it must not be learned from.
    With `keep_behaviour` also what the acting network thought: log_probs [T, B] of the actions and
    values [T+1, B].
    """

    def __init__(self, envs: Envs, num_steps: int, *, keep_behaviour: bool = False) -> None:
        shape = (num_steps, envs.num_envs)
        obs_shape = (num_steps + 1, envs.num_envs, *envs.spec.obs_shape)
        self.num_steps = num_steps
        self.num_envs = envs.num_envs
        self._is_stacked = envs.spec.is_stacked
        self.obs: NDArray[Any] = (
            empty_stacks(obs_shape)
            if self._is_stacked
            else np.empty(obs_shape, envs.spec.obs_dtype)
        )
        self.actions = np.zeros(shape, np.int64)
        self.rewards = np.zeros(shape, np.float32)
        self.terminated = np.zeros(shape, np.bool_)
        self.truncated = np.zeros(shape, np.bool_)
        self.is_reset = np.zeros(shape, np.bool_)
        self.keep_behaviour = keep_behaviour
        self.log_probs = np.zeros(shape, np.float32)
        self.values = np.zeros((num_steps + 1, envs.num_envs), np.float32)
        self.see(num_steps, envs.reset())

    def see(self, row: int, obs: NDArray[Any]) -> None:
        """Copy the environments' observations [B, …] into a row."""
        if self._is_stacked:
            copy_stacks(obs, self.obs[row])
        else:
            self.obs[row] = obs

    @property
    def env_steps(self) -> int:
        return self.num_steps * self.num_envs

    def newest_frames(self) -> dict[str, Any]:
        """What the first environment showed last, for a person.

        `data` of images of bytes, `shape` [n, H, W] or [n, H, W, 3]; or `values` [n, …] of vectors.
        """
        seen = self.obs[-SHOWN_FRAMES:, 0]
        if self._is_stacked:
            seen = seen[:, -1]
        elif seen.ndim == 4 and seen.shape[1] in (1, 3):
            seen = seen.transpose(0, 2, 3, 1)
        if seen.ndim == 4 and seen.shape[-1] == 1:
            seen = seen[..., 0]
        is_image = seen.ndim == 3 or (seen.ndim == 4 and seen.shape[-1] == 3)
        if is_image and seen.dtype == np.uint8 and seen.nbytes <= MOST_FRAME_BYTES:
            return {"shape": seen.shape, "data": seen.tobytes()}
        numbers = seen.reshape(len(seen), -1)[:, :SHOWN_NUMBERS].astype(float)
        return {"values": numbers.tolist()}


def collect(
    envs: Envs,
    network: ActorCritic,
    rollout: Rollout,
    generator: torch.Generator,
    tick: Callable[[], None] = lambda: None,
) -> list[Episode]:
    """Fill the rollout, going on from its last row; returns the episodes that ended.

    `tick` is called after each step of the environments.
    """
    episodes: list[Episode] = []
    rollout.obs[0] = rollout.obs[-1]
    with torch.inference_mode(), network.acting():
        for t in range(rollout.num_steps):
            logits, values = network(torch.from_numpy(rollout.obs[t]))
            actions = sample_actions(logits, generator).numpy()
            if rollout.keep_behaviour:
                log_probs = logits.log_softmax(-1).numpy()
                rollout.log_probs[t] = log_probs[np.arange(rollout.num_envs), actions]
                rollout.values[t] = values.numpy()
            step = envs.step(actions)
            tick()
            rollout.actions[t] = actions
            rollout.see(t + 1, step.obs)
            rollout.rewards[t] = step.rewards
            rollout.terminated[t] = step.terminated
            rollout.truncated[t] = step.truncated
            rollout.is_reset[t] = step.is_reset
            episodes += step.episodes
        if rollout.keep_behaviour:
            rollout.values[-1] = network(torch.from_numpy(rollout.obs[-1]))[1].numpy()
    return episodes


def observe_random_play(envs: Envs, network: ActorCritic, seed: int) -> None:
    """Let observations of random actions count in the network's moments (arXiv:1810.12894, 2.4)."""
    rng = np.random.default_rng(seed)
    envs.reset()
    seen = []
    for t in range(RANDOM_STEPS):
        step = envs.step(rng.integers(0, envs.spec.num_actions, envs.num_envs))
        if t % LOOK_EVERY == 0:
            seen.append(np.array(step.obs))
    network.observe(torch.from_numpy(np.concatenate(seen)))
