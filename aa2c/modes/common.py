"""What the modes share: a worker's counting of rollouts, and what an update tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aa2c.ipc.port import WorkerPort
from aa2c.rl.envs import Episode
from aa2c.rl.rollout import Rollout

EPISODES_PER_MESSAGE = 1000


class Outcome(NamedTuple):
    """What learning from some records led to: optimizer steps, and the parts of the loss."""

    updates: int
    losses: Mapping[str, float]


def count_rollout(port: WorkerPort, rollout: Rollout, episodes: Sequence[Episode]) -> None:
    """Count a rollout's env steps and report the episodes that it ended."""
    port.counters.add("env_steps", rollout.env_steps)
    port.counters.add("episodes", len(episodes))
    for start in range(0, len(episodes), EPISODES_PER_MESSAGE):
        port.report("episodes", episodes=episodes[start : start + EPISODES_PER_MESSAGE])


def clip_rewards(rewards: NDArray[np.float32], reward_clip: float) -> NDArray[np.float32]:
    """Rewards clamped to [-reward_clip, reward_clip]; 0 leaves them."""
    return np.clip(rewards, -reward_clip, reward_clip) if reward_clip else rewards
