from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aa2c.learn.returns import MOST_ROLLOUTS, AdvantageScale, gae, normalize, vtrace

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def random_rows(seed, steps, envs, chance=0.25):
    """Rewards, states [T+1, B], terminated, truncated, is_reset as NEXT_STEP autoreset gives."""
    rng = np.random.default_rng(seed)
    rewards = rng.normal(size=(steps, envs)).astype(np.float32)
    states = rng.normal(size=(steps + 1, envs)).astype(np.float32)
    kind = rng.choice(3, p=[1 - chance, chance / 2, chance / 2], size=(steps, envs))
    is_reset = np.zeros((steps, envs), bool)
    for t in range(steps):
        if t:
            is_reset[t] = kind[t - 1] > 0
        kind[t][is_reset[t]] = 0
    rewards[is_reset] = 0
    return rewards, states, kind == 1, kind == 2, is_reset


def literal_gae(rewards, values, next_values, terminated, truncated, gamma, lam):
    """Equation 16: the sum over l of (gamma lambda)^l delta_{t+l}, up to the episode's end."""
    steps, envs = rewards.shape
    advantages = np.zeros((steps, envs))
    for b in range(envs):
        for t in range(steps):
            for l in range(steps - t):  # noqa: E741 - the paper's letter
                i = t + l
                bootstrap = 0.0 if terminated[i, b] else gamma * float(next_values[i, b])
                delta = float(rewards[i, b]) + bootstrap - float(values[i, b])
                advantages[t, b] += (gamma * lam) ** l * delta
                if terminated[i, b] or truncated[i, b]:
                    break
    return advantages


@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, 24),
    envs=st.integers(1, 3),
    gamma=st.floats(0, 1),
    lam=st.floats(0, 1),
)
def test_gae_is_the_papers_sum_through_terminations_truncations_and_resets(
    seed, steps, envs, gamma, lam
):
    rewards, states, terminated, truncated, _ = random_rows(seed, steps, envs)
    inputs = rewards, states[:-1], states[1:], terminated, truncated
    advantages = gae(*inputs, gamma=gamma, gae_lambda=lam)
    assert advantages.dtype == np.float32
    np.testing.assert_allclose(advantages, literal_gae(*inputs, gamma, lam), **CLOSE)


@pytest.mark.parametrize("seed", range(10))
def test_lambda_1_plus_values_is_the_bootstrapped_return_of_a3c(seed):
    rewards, states, terminated, truncated, _ = random_rows(seed, 20, 2)
    gamma = 0.97
    expected = np.zeros_like(rewards, np.float64)
    for b in range(2):
        ret = float(states[-1, b])
        for i in reversed(range(20)):
            if terminated[i, b]:
                ret = 0.0
            elif truncated[i, b]:
                ret = float(states[i + 1, b])
            ret = float(rewards[i, b]) + gamma * ret
            expected[i, b] = ret
    advantages = gae(
        rewards, states[:-1], states[1:], terminated, truncated, gamma=gamma, gae_lambda=1
    )
    np.testing.assert_allclose(advantages + states[:-1], expected, **CLOSE)


@pytest.mark.parametrize("seed", range(10))
def test_what_a_reset_row_holds_never_leaks_into_other_rows(seed):
    rewards, states, terminated, truncated, is_reset = random_rows(seed, 24, 3, chance=0.5)
    assert is_reset.any()
    kwargs = {"gamma": 0.99, "gae_lambda": 0.95}
    values, next_values = states[:-1].copy(), states[1:].copy()
    before = gae(rewards, values, next_values, terminated, truncated, **kwargs)
    for array in (rewards, values, next_values):
        array[is_reset] = 1e6
    after = gae(rewards, values, next_values, terminated, truncated, **kwargs)
    np.testing.assert_array_equal(before[~is_reset], after[~is_reset])


def test_termination_drops_the_bootstrap_and_truncation_keeps_it():
    ones, zeros = np.ones((1, 2), np.float32), np.zeros((1, 2), np.float32)
    terminated, truncated = np.array([[True, False]]), np.array([[False, True]])
    advantages = gae(ones, zeros, 10 * ones, terminated, truncated, gamma=0.5, gae_lambda=0.9)
    assert advantages.tolist() == [[1.0, 6.0]]


def test_normalize_gives_mean_0_and_std_1_over_the_valid_rows_only():
    rng = np.random.default_rng(0)
    advantages = rng.normal(5, 3, size=(16, 4)).astype(np.float32)
    valid = rng.random((16, 4)) > 0.3
    advantages[~valid] = 1e9
    chosen = normalize(advantages, valid)[valid]
    assert abs(chosen.mean()) < 1e-5
    assert abs(chosen.std() - 1) < 1e-4


@pytest.mark.parametrize("number", [7, 0.1, 1.7, 100.1])
def test_normalize_makes_equal_advantages_zero(number):
    equal = np.full((64, 2), number, np.float32)
    np.testing.assert_allclose(normalize(equal, np.ones((64, 2), bool)), 0, atol=1e-5)


def test_normalize_leaves_a_single_advantage_as_it_is():
    """Its mean would be all there is of it, and nothing would ever be learned."""
    valid = np.array([[False, True]])
    assert normalize(np.array([[5, -3]], np.float32), valid)[valid] == -3


def test_a_floor_under_the_std_keeps_noise_small_and_does_not_touch_what_is_as_large_as_before():
    rng = np.random.default_rng(0)
    valid = np.ones((16, 4), bool)
    valid[3] = False
    scale, variances = AdvantageScale(), []
    for std in (1, 10, 5, 0.001, 0.001, 10):
        advantages = rng.normal(2, std, size=(16, 4)).astype(np.float32)
        advantages[3] = 1e9
        variances.append(advantages[valid].var())
        floor = 0.3 * np.sqrt(np.mean(variances))
        wanted = (advantages - advantages[valid].mean()) / max(advantages[valid].std(), floor)
        given = normalize(advantages, valid, scale)
        np.testing.assert_allclose(given[valid], wanted[valid], atol=1e-5)
        assert given.dtype == np.float32
        assert (given[valid].std() < 0.01) == (std < 1)
    count = scale.state[0]
    normalize(np.full((2, 2), np.nan, np.float32), np.ones((2, 2), bool), scale)
    normalize(np.ones((2, 2), np.float32), np.zeros((2, 2), bool), scale)
    assert scale.state[0] == count, "what is not finite, or has no valid row, is not taken in"


def test_old_rollouts_fade_from_the_floor_under_the_std():
    scale = AdvantageScale()
    advantages, valid = np.array([[-1, 1]], np.float32), np.ones((1, 2), bool)
    normalize(100 * advantages, valid, scale)
    for _ in range(3 * MOST_ROLLOUTS):
        normalize(advantages, valid, scale)
    assert 1 < scale.state[1] < 1.2
    assert scale.state[0] == MOST_ROLLOUTS


def test_normalize_of_only_reset_rows_is_finite_and_warns_nothing():
    # --num-steps 1 --num-envs 1: each row after an episode's end is such a rollout
    advantages = normalize(np.ones((1, 1), np.float32), np.zeros((1, 1), bool))
    assert np.isfinite(advantages).all()


def literal_vtrace(rewards, values, next_values, log_ratios, terminated, truncated, gamma, lam):
    """Equation 1, as a sum of discounted and clipped temporal differences for each start."""
    steps, envs = rewards.shape
    rho = np.minimum(1, np.exp(log_ratios.astype(np.float64)))
    targets, advantages = np.zeros((steps, envs)), np.zeros((steps, envs))
    for b in range(envs):
        for s in range(steps):
            traces = 1.0
            targets[s, b] = values[s, b]
            for t in range(s, steps):
                bootstrap = 0.0 if terminated[t, b] else gamma * float(next_values[t, b])
                delta = rho[t, b] * (float(rewards[t, b]) + bootstrap - float(values[t, b]))
                targets[s, b] += gamma ** (t - s) * traces * delta
                traces *= lam * rho[t, b]
                if terminated[t, b] or truncated[t, b]:
                    break
        for s in range(steps):
            following = float(next_values[s, b])
            if s + 1 < steps and not (terminated[s, b] or truncated[s, b]):
                following = targets[s + 1, b]
            bootstrap = 0.0 if terminated[s, b] else gamma * following
            advantages[s, b] = rho[s, b] * (rewards[s, b] + bootstrap - values[s, b])
    return targets, advantages


@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, 16),
    envs=st.integers(1, 3),
    gamma=st.floats(0, 1),
    lam=st.floats(0, 1),
)
def test_vtrace_is_the_papers_sum_through_terminations_truncations_and_resets(
    seed, steps, envs, gamma, lam
):
    rewards, states, terminated, truncated, _ = random_rows(seed, steps, envs)
    log_ratios = np.random.default_rng(seed).normal(size=rewards.shape).astype(np.float32)
    inputs = rewards, states[:-1], states[1:], log_ratios, terminated, truncated
    targets, advantages = vtrace(*inputs, gamma=gamma, gae_lambda=lam)
    expected_targets, expected_advantages = literal_vtrace(*inputs, gamma, lam)
    np.testing.assert_allclose(targets, expected_targets, **CLOSE)
    np.testing.assert_allclose(advantages, expected_advantages, **CLOSE)
    assert targets.dtype == advantages.dtype == np.float32


def test_on_policy_vtrace_targets_are_gae_returns():
    rewards, states, terminated, truncated, _ = random_rows(3, 30, 4)
    inputs = rewards, states[:-1], states[1:]
    cuts, how = (terminated, truncated), {"gamma": 0.98, "gae_lambda": 0.9}
    targets, _ = vtrace(*inputs, np.zeros_like(rewards), *cuts, **how)
    np.testing.assert_allclose(targets, gae(*inputs, *cuts, **how) + states[:-1], **CLOSE)
