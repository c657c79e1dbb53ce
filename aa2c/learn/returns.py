"""Returns and advantages: pure functions on numpy arrays of shape [T, B], time first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

LEAST_SHARE = 0.3  # of the advantages' std so far, that they are divided by at least
MOST_ROLLOUTS = 10_000


def clip_rewards(rewards: Floats, reward_clip: float) -> Floats:
    """Rewards clamped to [-reward_clip, reward_clip]; 0 leaves them."""
    return np.clip(rewards, -reward_clip, reward_clip) if reward_clip else rewards


def gae(
    rewards: Floats,
    values: Floats,
    next_values: Floats,
    terminated: Flags,
    truncated: Flags,
    *,
    gamma: float,
    gae_lambda: float,
) -> Floats:
    """Advantages by generalized advantage estimation, [T, B] (arXiv:1506.02438, eq. 16).

    All inputs are [T, B]. `next_values` is the value of the observation that follows each step,
    which under NEXT_STEP autoreset is the true last one of an episode that ends.
    Termination removes the bootstrap; truncation keeps it; both cut the trace.

    With `gae_lambda` 1 the advantages plus `values` are the n-step bootstrapped returns of
    A3C (arXiv:1602.01783, algorithm S3).
    """
    deltas = rewards + gamma * next_values * ~terminated - values
    carry = (gamma * gae_lambda * ~(terminated | truncated)).astype(np.float32)
    advantages = np.empty_like(deltas)
    following = np.zeros_like(deltas[0])
    for t in reversed(range(len(deltas))):
        following = deltas[t] + carry[t] * following
        advantages[t] = following
    return advantages


def normalize(advantages: Floats, valid: Flags, scale: AdvantageScale | None = None) -> Floats:
    """Shift to mean 0, and divide by the std over the valid rows; any shape.

    Not by less than the floor of `scale`, which takes this std in. Zeros if there are no valid rows; a
    single one is left as it is, for its mean would be all there is of it.
    """
    chosen = advantages[valid]
    if chosen.size <= 1:
        return advantages if chosen.size else np.zeros_like(advantages)
    # In float64: equal advantages would differ from their float32 mean, by as much as the std.
    mean, std = chosen.mean(dtype=np.float64), float(chosen.std(dtype=np.float64))
    least = scale.floor_with(std) if scale else 0.0
    normalized: Floats = ((advantages - mean) / max(std + 1e-8, least)).astype(np.float32)
    return normalized


class AdvantageScale:
    """The floor under the stds by which rollouts' advantages are normalized, one after the other.

    It is a share of the root mean square of the rollouts' stds so far. Near a perfect policy
    advantages are nothing but noise; divided by a std of their own they would move the policy as
    much as a failure does. `state` [2] is the number of rollouts, at most `MOST_ROLLOUTS`, beyond
    which old ones fade, and the mean variance.
    """

    def __init__(self) -> None:
        self.state = np.zeros(2)

    def floor_with(self, std: float) -> float:
        """The floor, once this std of the next rollout is taken in; what is not finite is not."""
        if np.isfinite(std):
            rollouts = min(self.state[0] + 1, MOST_ROLLOUTS)
            mean = self.state[1] + (std**2 - self.state[1]) / rollouts
            self.state[:] = rollouts, mean
        return LEAST_SHARE * float(np.sqrt(self.state[1]))


def vtrace(
    rewards: Floats,
    values: Floats,
    next_values: Floats,
    log_ratios: Floats,
    terminated: Flags,
    truncated: Flags,
    *,
    gamma: float,
    gae_lambda: float,
) -> tuple[Floats, Floats]:
    """V-trace targets and policy-gradient advantages, [T, B] each (arXiv:1802.01561, eq. 1 and 4).

    `values` and `next_values` are those of the learning policy, and `log_ratios` is its log
    probability of each action less that of the policy that acted. Both clipping thresholds are 1;
    `gae_lambda` scales the trace coefficients c (remark 2 of the paper). An advantage is
    rho * (r + gamma * v' - V), where v' is the target of the next step, or its value where the
    episode was cut. Terminations and truncations as in `gae`.
    """
    rhos: Floats = np.minimum(1.0, np.exp(log_ratios)).astype(np.float32)
    cut = terminated | truncated
    deltas: Floats = (rhos * (rewards + gamma * next_values * ~terminated - values)).astype(
        np.float32
    )
    carry = (gamma * gae_lambda * rhos * ~cut).astype(np.float32)
    corrections = np.empty_like(deltas)
    following = np.zeros_like(deltas[0])
    for t in reversed(range(len(deltas))):
        following = deltas[t] + carry[t] * following
        corrections[t] = following
    targets: Floats = values + corrections
    next_targets = next_values.copy()
    next_targets[:-1] = np.where(cut[:-1], next_values[:-1], targets[1:])
    advantages = rhos * (rewards + gamma * next_targets * ~terminated - values)
    return targets, advantages.astype(np.float32)
