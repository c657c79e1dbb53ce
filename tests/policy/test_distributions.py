"""Distributions beside torch's own, at extremes too; sampling; masks."""

from __future__ import annotations

import pytest
import torch
from torch import distributions

from aa2c.policy.distributions import Categorical

SHAPES = [(7, 5), (3, 4, 6), (1, 1)]


def logits_of(shape, scale=1.0, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 100.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_categorical_is_torch_s(shape, scale):
    logits, others = logits_of(shape, scale), logits_of(shape, scale, seed=1)
    ours, other = Categorical(logits), Categorical(others)
    # In float64: torch's KL is infinite where a probability underflows.
    theirs, reference = (distributions.Categorical(logits=x.double()) for x in (logits, others))
    actions = logits_of((20, *shape[:-1]), seed=2).abs().long().clamp(max=shape[-1] - 1)
    near = {"rtol": 1e-4, "atol": 1e-4}
    for row in actions:
        torch.testing.assert_close(ours.log_prob(row), theirs.log_prob(row).float(), **near)
    torch.testing.assert_close(ours.entropy(), theirs.entropy().float(), **near)
    assert torch.equal(ours.mode(), theirs.mode)
    kl = distributions.kl_divergence(theirs, reference).float()
    torch.testing.assert_close(ours.kl(other), kl, **near)


def test_actions_are_sampled_as_often_as_softmax_says():
    logits = torch.tensor([0.0, 1.0, -1.0, 2.5])
    draws = 40_000
    sampled = Categorical(logits.expand(draws, 4)).sample(torch.Generator().manual_seed(0))
    expected = torch.softmax(logits, 0) * draws
    observed = torch.bincount(sampled, minlength=4)
    assert ((observed - expected).square() / expected).sum() < 16.3  # chi-square(3), p = 0.001


def test_actions_follow_the_generator_and_nothing_else():
    distribution = Categorical(torch.zeros(50, 3))
    first = distribution.sample(torch.Generator().manual_seed(4))
    torch.manual_seed(99)
    assert torch.equal(first, distribution.sample(torch.Generator().manual_seed(4)))
    assert not torch.equal(first, distribution.sample(torch.Generator().manual_seed(5)))


def test_masked_actions_are_never_taken_and_count_in_nothing():
    logits = logits_of((200, 5)).requires_grad_()
    mask = torch.tensor([True, False, True, True, False]).expand(200, 5)
    masked, legal = Categorical(logits, mask), Categorical(logits[:, [0, 2, 3]])
    assert set(masked.sample(torch.Generator().manual_seed(0)).tolist()) == {0, 2, 3}
    assert set(masked.mode().tolist()) <= {0, 2, 3}
    torch.testing.assert_close(masked.entropy(), legal.entropy())
    torch.testing.assert_close(
        masked.log_prob(torch.full((200,), 2)), legal.log_prob(torch.full((200,), 1))
    )
    (gradient,) = torch.autograd.grad(masked.entropy().sum(), logits)
    assert not gradient[:, [1, 4]].any()
    assert gradient.isfinite().all()
