"""Rollouts: T steps of a worker's B environments, written into arrays that are used again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aa2c.envs.frames import copy_stacks, empty_stacks, frames_first, push_frames
from aa2c.envs.vector import Envs, EnvSpec, Episode, Step
from aa2c.learn.batch import TRANSITION_ARRAYS
from aa2c.policy.policy import Policy, State

SHOWN_FRAMES = 16
SHOWN_NUMBERS = 64  # of a vector
MOST_FRAME_BYTES = 512 * 1024
RANDOM_STEPS = 256  # of each environment
LOOK_EVERY = 4  # of these steps: neighbours tell little more


class _Steps:
    """Arrays of T steps in B environments, and `now` [B, …], what these show now.

    `state` is what the policy remembers at `now`; `is_first` [B] is true where an episode begins.
    """

    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    is_reset: NDArray[np.bool_]

    def __init__(self, envs: Envs, num_steps: int) -> None:
        self.num_steps = num_steps
        self.num_envs = envs.num_envs
        self.is_stacked = envs.spec.is_stacked
        self.now = empty_obs(envs.spec, (self.num_envs,))
        self.state: State = ()
        self.is_first = np.ones(self.num_envs, np.bool_)
        self.continue_from(envs.reset())

    @property
    def env_steps(self) -> int:
        return self.num_steps * self.num_envs

    def continue_from(self, obs: NDArray[Any]) -> None:
        """The environments show these observations [B, …] now, whatever they showed before."""
        if self.is_stacked:
            copy_stacks(obs, self.now)
        else:
            self.now[:] = obs

    def begin(self) -> None:
        """What is shown now is row 0."""
        raise NotImplementedError

    def _look(self, row: int, obs: NDArray[Any], is_reset: NDArray[np.bool_]) -> None:
        raise NotImplementedError

    def _newest(self) -> NDArray[Any]:
        """The first environment's newest observations [n, …]; of stacks the newest frames."""
        raise NotImplementedError

    def add(self, t: int, step: Step) -> None:
        """Action t led to this; what is shown then is row t + 1."""
        self.rewards[t] = step.rewards
        self.terminated[t] = step.terminated
        self.truncated[t] = step.truncated
        self.is_reset[t] = step.is_reset
        self.is_first = step.is_reset
        self._look(t + 1, step.obs, step.is_reset)

    def newest_frames(self) -> dict[str, Any]:
        """What the first environment showed last, for a person.

        `data` of images of bytes, `shape` [n, H, W] or [n, H, W, 3]; or `values` [n, …] of vectors.
        """
        seen = self._newest()
        if seen.ndim == 4 and seen.shape[1] in (1, 3):
            seen = seen.transpose(0, 2, 3, 1)
        if seen.ndim == 4 and seen.shape[-1] == 1:
            seen = seen[..., 0]
        is_image = seen.ndim == 3 or (seen.ndim == 4 and seen.shape[-1] == 3)
        if is_image and seen.dtype == np.uint8 and seen[0].nbytes <= MOST_FRAME_BYTES:
            seen = seen[-(MOST_FRAME_BYTES // seen[0].nbytes) :]
            return {"shape": seen.shape, "data": seen.tobytes()}
        numbers = seen.reshape(len(seen), -1)[:, :SHOWN_NUMBERS].astype(float)
        return {"values": numbers.tolist()}


class Rollout(_Steps):
    """Arrays of one rollout, time first. Row t of `obs` is what action t was chosen from.

    obs [T+1, B, …] (the last row is where the next rollout goes on), actions, rewards, terminated,
    truncated, is_reset: [T, B]. A reset row's action had no effect: it must not be learned from.
    """

    def __init__(self, envs: Envs, num_steps: int) -> None:
        super().__init__(envs, num_steps)
        shape = (num_steps, self.num_envs)
        self.actions = np.zeros(shape, np.int64)
        self.rewards = np.zeros(shape, np.float32)
        self.terminated = np.zeros(shape, np.bool_)
        self.truncated = np.zeros(shape, np.bool_)
        self.is_reset = np.zeros(shape, np.bool_)
        self.obs = empty_obs(envs.spec, (num_steps + 1, self.num_envs))
        self.obs[-1] = self.now
        self.now = self.obs[-1]

    def begin(self) -> None:
        self.obs[0] = self.now
        self.now = self.obs[0]

    def _look(self, row: int, obs: NDArray[Any], is_reset: NDArray[np.bool_]) -> None:
        before, self.now = self.now, self.obs[row]
        if self.is_stacked:
            push_frames(before, obs[:, -1], is_reset, self.now)
        else:
            self.now[:] = obs

    def _newest(self) -> NDArray[Any]:
        seen = self.obs[-SHOWN_FRAMES:, 0]
        return seen[:, -1] if self.is_stacked else seen


class Trajectory(_Steps):
    """A rollout that is written into the arrays of a record, and nowhere else.

    It has log_probs [T, B] of the actions and values [T+1, B] as well, of the policy that acted. Of stacked frames a record has each once: the first stacks, as pixels [B, H, W, 4],
    and `planes` [T, B, H, W], the newest frames of the later ones.
    """

    log_probs: NDArray[np.float32]
    values: NDArray[np.float32]

    def write_into(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Be a record of these arrays from here on."""
        for name in TRANSITION_ARRAYS:
            setattr(self, name, arrays[name])
        if self.is_stacked:
            self._first, self._seen = frames_first(arrays["first_stack"]), arrays["planes"]
        else:
            self._first, self._seen = arrays["obs"][0], arrays["obs"]

    def add_policy(self, log_probs: Tensor, values: Sequence[Tensor]) -> None:
        """Log-probs [T, B] of the actions, and values [B] of the rows 0 … T."""
        self.log_probs[:] = log_probs.numpy()
        self.values[:] = torch.stack(list(values)).numpy()

    def begin(self) -> None:
        self._first[:] = self.now

    def _look(self, row: int, obs: NDArray[Any], is_reset: NDArray[np.bool_]) -> None:
        if self.is_stacked:
            newest = self._seen[row - 1]
            newest[:] = obs[:, -1]
            push_frames(self.now, newest, is_reset, self.now)
        else:
            self._seen[row] = obs
            self.now = self._seen[row]

    def _newest(self) -> NDArray[Any]:
        return self._seen[-SHOWN_FRAMES:, 0]


def empty_obs(spec: EnvSpec, outer: tuple[int, ...]) -> NDArray[Any]:
    """Memory for observations [*outer, …] in the order that suits networks."""
    shape = (*outer, *spec.obs_shape)
    return empty_stacks(shape) if spec.is_stacked else np.empty(shape, spec.obs_dtype)


def collect(
    envs: Envs,
    policy: Policy,
    rollout: Rollout | Trajectory,
    generator: torch.Generator,
    tick: Callable[[], None] = lambda: None,
) -> list[Episode]:
    """Fill the rollout, from what is shown now on; returns the episodes that ended.

    `tick` is called after each step of the environments.
    """
    episodes: list[Episode] = []
    steps = []
    policy.pack()
    rollout.begin()
    with torch.inference_mode():
        for t in range(rollout.num_steps):
            obs, is_first = torch.from_numpy(rollout.now), torch.from_numpy(rollout.is_first)
            acted = policy.step(obs, rollout.state, is_first, generator=generator)
            steps.append(acted)
            rollout.actions[t], rollout.state = acted.actions.numpy(), acted.state
            step = envs.step(rollout.actions[t])
            tick()
            rollout.add(t, step)
            episodes += step.episodes
        if isinstance(rollout, Trajectory):
            last = policy.bootstrap(torch.from_numpy(rollout.now), rollout.state)
            log_probs = policy.log_probs(steps, torch.from_numpy(rollout.actions))
            rollout.add_policy(log_probs, [*(acted.values for acted in steps), last])
    return episodes


def observe_random_play(envs: Envs, policy: Policy, seed: int) -> None:
    """Let observations of random actions count in the policy's running mean and std (arXiv:1810.12894, 2.4)."""
    rng = np.random.default_rng(seed)
    envs.reset()
    for t in range(RANDOM_STEPS):
        step = envs.step(rng.integers(0, envs.spec.num_actions, envs.num_envs))
        if t % LOOK_EVERY == 0:
            policy.observe(torch.from_numpy(np.array(step.obs)))
