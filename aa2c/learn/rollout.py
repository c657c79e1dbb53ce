"""Rollouts: T steps of a worker's B environments, written into named arrays that are used again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aa2c.config.config import Config
from aa2c.envs.frames import copy_stacks, frames_first, push_frames
from aa2c.envs.observations import image_layout
from aa2c.envs.shown import first_image, from_row
from aa2c.envs.spec import ACTION_MASK, OBS
from aa2c.envs.vector import Arrays, Envs, Episode, Step
from aa2c.learn.schema import (
    FINAL_VALUES,
    FIRST_STACK,
    PLANES,
    STATES,
    VALUES,
    begins_episode,
    empty_arrays,
    empty_obs,
    rollout_leaves,
    sequence_length,
)
from aa2c.policy.memory import State, forget, without_nonfinite
from aa2c.policy.policy import Acted, Policy

SHOWN_FRAMES = 16
SHOWN_NUMBERS = 64  # of an array
MOST_FRAME_BYTES = 512 * 1024

Obs = NDArray[Any]
Flags = NDArray[np.bool_]


class _Rows(Protocol):
    """Where a rollout keeps its observations. `now` [B, …] are the latest, before and after."""

    def begin(self, now: Obs) -> Obs:
        """The latest observations are row 0."""

    def add(self, row: int, obs: Obs, is_reset: Flags, now: Obs) -> Obs:
        """Keep what was seen next; row 1 … T."""

    def newest(self) -> Obs:
        """The first environment's newest observations [n, …]; of stacks the newest frames."""


class _WholeRows:
    """Each observation as it is: `obs` [T+1, B, …]."""

    def __init__(self, obs: Obs, *, is_stacked: bool) -> None:
        self._obs = obs
        self._is_stacked = is_stacked

    def begin(self, now: Obs) -> Obs:
        self._obs[0] = now
        first: Obs = self._obs[0]
        return first

    def add(self, row: int, obs: Obs, is_reset: Flags, now: Obs) -> Obs:
        latest: Obs = self._obs[row]
        if self._is_stacked:
            push_frames(now, obs[:, -1], is_reset, latest)
        else:
            latest[:] = obs
        return latest

    def newest(self) -> Obs:
        seen = self._obs[-SHOWN_FRAMES:, 0]
        return seen[:, -1] if self._is_stacked else seen


class _NewestFrames:
    """Of stacked frames each once: the first stacks and, of every later row, the newest frames."""

    def __init__(self, first: Obs, planes: Obs) -> None:
        self._first = frames_first(first)
        self._planes = planes

    def begin(self, now: Obs) -> Obs:
        self._first[:] = now
        return now

    def add(self, row: int, obs: Obs, is_reset: Flags, now: Obs) -> Obs:
        newest = self._planes[row - 1]
        newest[:] = obs[:, -1]
        push_frames(now, newest, is_reset, now)
        return now

    def newest(self) -> Obs:
        return self._planes[-SHOWN_FRAMES:, 0]


class Rollout:
    """One rollout, time first, in the arrays of the schema (`aa2c.learn.schema`) by name.

    Row t of `obs` is what action t was chosen from, and its last row is where the next rollout
    starts. A reset row's action had no effect: it must not be learned from. `now` [B, …] is what
    the environments show now, `state` what the policy remembers then, and `is_first` [B] is true
    where an episode begins. Row t of `action_mask`, if there is one, are the actions that were legal
    when action t was chosen.
    """

    def __init__(
        self, envs: Envs, config: Config, state: State = (), *, in_records: bool = False
    ) -> None:
        """With arrays of its own, unless it is to be written into one record after the other.

        `state` is what the policy remembers at first.
        """
        self.num_steps = config.num_steps
        self.num_envs = envs.num_envs
        self._envs = envs
        self._is_stacked = envs.spec.is_stacked
        self._obs_spec = envs.spec.obs
        self._resets_at_once = envs.spec.resets_at_once
        self.now = empty_obs(envs.spec, (self.num_envs,))
        self._sequence_length = sequence_length(config)
        self.continue_from(envs.reset(), np.ones(self.num_envs, np.bool_), state)
        if not in_records:
            leaves = rollout_leaves(envs.spec, config)
            self.write_into(empty_arrays(envs.spec, leaves))

    def write_into(self, arrays: Arrays) -> None:
        """Be a rollout in these arrays from here on, such as a record's."""
        self.arrays = arrays
        self._rows: _Rows = (
            _NewestFrames(arrays[FIRST_STACK], arrays[PLANES])
            if PLANES in arrays
            else _WholeRows(arrays[OBS], is_stacked=self._is_stacked)
        )

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    @property
    def env_steps(self) -> int:
        """Steps that the agent made: rows that only reset an environment are none."""
        return int(np.count_nonzero(~self.arrays["is_reset"]))

    def continue_from(self, obs: Obs, is_first: Flags, state: State) -> None:
        """The environments show these observations [B, …] now, whatever they showed before."""
        self.is_first, self.state = is_first, state
        if self._is_stacked:
            copy_stacks(obs, self.now)
        else:
            self.now[:] = obs

    def begin(self) -> None:
        """What is shown now is row 0.

        A memory that an observation spoilt begins anew: its episode may have no end.
        """
        self.state = without_nonfinite(self.state)
        if self._resets_at_once:
            self.arrays[FINAL_VALUES][:] = 0
        self.now = self._rows.begin(self.now)

    def mask(self, t: int | slice = slice(None)) -> Tensor | None:
        """The legal actions [B, A] or [T, B, A] of such rows, if the environments tell."""
        if ACTION_MASK not in self.arrays:
            return None
        return torch.from_numpy(self.arrays[ACTION_MASK][t])

    def keep(self, t: int) -> None:
        """What is legal before action t and, if a sequence starts there, what is remembered."""
        if ACTION_MASK in self.arrays:
            self.arrays[ACTION_MASK][t] = self._envs.mask
        if self.state and t % self._sequence_length == 0:
            state = forget(self.state, torch.from_numpy(self.is_first))
            for name, part in zip(STATES, state, strict=False):
                self.arrays[name][t // self._sequence_length] = part.numpy()

    def start(self) -> tuple[State, Tensor]:
        """The kept state [B, H] at row 0, and where rows [T, B] begin an episode."""
        names = STATES[: len(self.state)]
        state = tuple(torch.from_numpy(self.arrays[name][0]) for name in names)
        return state, torch.from_numpy(begins_episode(self.arrays)[:-1])

    def add(self, t: int, acted: Acted, step: Step) -> None:
        """Action t led to this; what is shown then is row t + 1."""
        for name, values in step.arrays.items():
            if name != OBS:
                self.arrays[name][t] = values
        self.is_first = step.ended if self._resets_at_once else step["is_reset"]
        self.state = acted.state
        self.now = self._rows.add(t + 1, step[OBS], step["is_reset"], self.now)

    def add_final(self, t: int, acted: Acted, step: Step, policy: Policy) -> None:
        """Action t cut episodes off, whose last observations are no rows: keep their values."""
        rows = np.flatnonzero(step["truncated"])
        state = tuple(part[rows] for part in acted.state)
        obs, is_first = torch.from_numpy(step.final_obs), torch.zeros(len(rows), dtype=torch.bool)
        self.arrays[FINAL_VALUES][t, rows] = policy.bootstrap(obs, state, is_first).numpy()

    def add_policy(self, log_probs: Tensor, values: Sequence[Tensor]) -> None:
        """Log-probs [T, B] of the actions, and values [B] of the rows 0 … T."""
        self.arrays["log_probs"][:] = log_probs.numpy()
        self.arrays[VALUES][:] = torch.stack(list(values)).numpy()

    def newest_frames(self) -> dict[str, Any]:
        """What the first environment showed last, for a person.

        `data` of images of bytes, `shape` [n, H, W] or [n, H, W, 3]; or `values` [n, …] of vectors; or
        `seen`, the newest observation itself, where its space is no Box.
        """
        seen = self._rows.newest()
        if self._obs_spec is not None:
            if image_layout(self._obs_spec) is None:
                return {"seen": from_row(self._obs_spec, seen[-1], SHOWN_NUMBERS)}
            seen = first_image(self._obs_spec, seen)
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


def collect(
    envs: Envs,
    policy: Policy,
    rollout: Rollout,
    generator: torch.Generator,
    tick: Callable[[], None] = lambda: None,
) -> list[Episode]:
    """Fill the rollout, from what is shown now on; returns the episodes that ended.

    `tick` is called after each step of the environments.
    """
    episodes: list[Episode] = []
    steps = []
    actions = rollout["actions"]
    policy.pack()
    rollout.begin()
    with torch.inference_mode():
        for t in range(rollout.num_steps):
            rollout.keep(t)
            obs, is_first = torch.from_numpy(rollout.now), torch.from_numpy(rollout.is_first)
            mask = rollout.mask(t)
            acted = policy.step(obs, rollout.state, is_first, mask, generator=generator)
            steps.append(acted)
            actions[t] = acted.actions.numpy()
            step = envs.step(actions[t])
            tick()
            rollout.add(t, acted, step)
            if step.final_obs is not None:
                rollout.add_final(t, acted, step, policy)
            episodes += step.episodes
        if VALUES in rollout.arrays:
            obs, is_first = torch.from_numpy(rollout.now), torch.from_numpy(rollout.is_first)
            last = policy.bootstrap(obs, rollout.state, is_first)
            log_probs = policy.log_probs(steps, torch.from_numpy(actions), rollout.mask())
            rollout.add_policy(log_probs, [*(acted.values for acted in steps), last])
    return episodes
