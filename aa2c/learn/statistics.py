"""What records tell of observations and rewards, so that running means and stds follow the data.

Workers only read the running statistics that they pull. Each record carries the statistics of the
rows it covers (the schema's `statistics_leaves`), and the updater, which alone changes the running
ones, merges them when it learns from the record. What is not learned from does not count: records that
are refused, too old, or lost with their worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aa2c.config.config import Config
from aa2c.envs.spec import OBS, Leaf
from aa2c.learn.returns import clip_rewards
from aa2c.learn.rollout import Rollout
from aa2c.learn.schema import OBS_STATISTICS, RETURN_STATISTICS
from aa2c.policy.normalization import (
    LARGEST,
    RunningMeanStd,
    Statistics,
    is_sound,
    read_flat,
    statistics_of,
    write_flat,
)
from aa2c.policy.policy import Policy

OBSERVED_NUMBERS = 2**20  # of a rollout; of images that is not every time step

Arrays = Mapping[str, NDArray[Any]]


class SentStatistics:
    """A worker's: the statistics of the rollouts that its next record covers.

    `returns` [B] are each environment's discounted return so far in its episode, of clipped rewards.
    """

    def __init__(self, config: Config, policy: Policy, num_envs: int, *, of_obs: bool) -> None:
        """`of_obs` where the updater does not see observations."""
        self._config, self._policy = config, policy
        self._running = _running(policy)
        if not of_obs:
            self._running.pop(OBS_STATISTICS, None)
        self.returns = np.zeros(num_envs)
        self.begin()

    def begin(self) -> None:
        """The next record is begun."""
        self._unsent = {name: Statistics.of_none(rms.shape) for name, rms in self._running.items()}

    @property
    def of_returns(self) -> Statistics | None:
        """Of the discounted returns, if rewards are to be scaled."""
        return self._unsent.get(RETURN_STATISTICS)

    def add(self, rollout: Rollout) -> None:
        """The record covers this rollout, too."""
        for name in self._unsent:
            rows = self._obs(rollout) if name == OBS_STATISTICS else self._returns(rollout)
            self._unsent[name] = self._unsent[name].merged(statistics_of(rows))

    def write(self, arrays: Arrays) -> None:
        """Put them into the record."""
        for name, statistics in self._unsent.items():
            write_flat(statistics, arrays[name])

    def _obs(self, rollout: Rollout) -> torch.Tensor:
        """Not of the last row, which is the next rollout's first."""
        obs = torch.from_numpy(rollout[OBS])[:-1]
        rows = OBSERVED_NUMBERS // max(1, obs[0, 0].numel())
        return self._policy.normalized_rows(some_steps(obs, rows))

    def _returns(self, rollout: Rollout) -> torch.Tensor:
        """The discounted return after each step, [N, 1]; what only reset an environment is none."""
        rewards = clip_rewards(rollout["rewards"], self._config.reward_clip)
        is_over = rollout["terminated"] | rollout["truncated"]
        returns = np.empty(rewards.shape)
        for t, reward in enumerate(rewards):
            self.returns = self.returns * self._config.gamma + reward
            returns[t] = self.returns
            self.returns[is_over[t] | ~(np.abs(self.returns) < LARGEST)] = 0
        return torch.from_numpy(returns[~rollout["is_reset"]]).float().unsqueeze(-1)


class ReceivedStatistics:
    """The updater's: merges what these leaves of records carry into the policy's running statistics."""

    def __init__(self, leaves: Iterable[Leaf], policy: Policy) -> None:
        self._shapes = {
            leaf.name: leaf.shape
            for leaf in leaves
            if leaf.name in (OBS_STATISTICS, RETURN_STATISTICS)
        }
        self._running = _running(policy) if self._shapes else {}

    @property
    def are_there(self) -> bool:
        """Whether records carry any."""
        return bool(self._shapes)

    def accepts(self, arrays: Arrays) -> bool:
        """Whether a record's can be merged."""
        return all(
            name in arrays
            and arrays[name].dtype == np.float32
            and arrays[name].shape == shape
            and is_sound(arrays[name])
            for name, shape in self._shapes.items()
        )

    def merge(self, records: Sequence[Arrays]) -> None:
        """Let the rows of these records count, in their order."""
        for arrays in records:
            for name in self._shapes:
                rms = self._running[name]
                rms.merge(read_flat(arrays[name], rms.shape))


def some_steps(obs: torch.Tensor, rows: int) -> torch.Tensor:
    """About so many rows of [T, B, …]: of time steps at even distances, and of all environments."""
    return obs[:: -(-obs.shape[0] * obs.shape[1] // max(1, rows))].flatten(0, 1)


def _running(policy: Policy) -> dict[str, RunningMeanStd]:
    """The running statistics by the leaf that carries what is merged into them."""
    pairs = {OBS_STATISTICS: policy.obs_rms, RETURN_STATISTICS: policy.reward_rms}
    return {name: rms for name, rms in pairs.items() if rms is not None}
