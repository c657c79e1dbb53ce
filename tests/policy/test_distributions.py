"""Distributions beside torch's own, at extremes too; sampling; masks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import distributions
from torch.distributions.transforms import TanhTransform

from aa2c.envs.spec import Continuous, Discrete, Joint, MultiBinary
from aa2c.policy.actions import action_type
from aa2c.policy.distributions import (
    Bernoulli,
    Categorical,
    Gaussian,
    Product,
    SquashedGaussian,
)

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


NEAR = {"rtol": 1e-4, "atol": 1e-4}


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 100.0])
def test_a_bernoulli_is_torch_s(scale):
    logits, others = logits_of((7, 5), scale), logits_of((7, 5), scale, seed=1)
    ours, other = Bernoulli(logits), Bernoulli(others)
    theirs = distributions.Independent(distributions.Bernoulli(logits=logits.double()), 1)
    reference = distributions.Independent(distributions.Bernoulli(logits=others.double()), 1)
    actions = (logits_of((7, 5), seed=2) > 0).long()
    torch.testing.assert_close(
        ours.log_prob(actions), theirs.log_prob(actions.double()).float(), **NEAR
    )
    torch.testing.assert_close(ours.entropy(), theirs.entropy().float(), **NEAR)
    kl = distributions.kl_divergence(theirs, reference).float()
    finite = kl.isfinite()
    torch.testing.assert_close(ours.kl(other)[finite], kl[finite], **NEAR)
    assert ours.kl(other).isfinite().all()
    assert torch.equal(ours.mode(), (logits > 0).long())


@pytest.mark.parametrize("mean_scale", [0.0, 1.0, 1e3])
@pytest.mark.parametrize("log_std", [-10.0, 0.0, 5.0])
def test_a_gaussian_is_torch_s(mean_scale, log_std):
    means, others = logits_of((7, 3), mean_scale), logits_of((7, 3), mean_scale, seed=1)
    log_stds = torch.full((3,), log_std) + torch.tensor([0.0, 0.1, -0.1])
    ours, other = Gaussian(means, log_stds), Gaussian(others, log_stds + 0.5)

    def torch_s(means, log_stds):
        normal = distributions.Normal(means.double(), log_stds.double().exp().expand_as(means))
        return distributions.Independent(normal, 1)

    theirs, reference = torch_s(means, log_stds), torch_s(others, log_stds + 0.5)
    actions = ours.sample(torch.Generator().manual_seed(0))
    exact = theirs.log_prob(actions.double()).float()
    # A mean of 1,000 with a std of 5e-5 leaves float32 no digits of the difference.
    digits = {"rtol": 1e-3, "atol": 1e-3} if mean_scale / math.exp(log_std) < 1e4 else None
    if digits:
        torch.testing.assert_close(ours.log_prob(actions), exact, **digits)
    torch.testing.assert_close(ours.entropy(), theirs.entropy().float(), **NEAR)
    kl = distributions.kl_divergence(theirs, reference).float()
    torch.testing.assert_close(ours.kl(other), kl, rtol=1e-4, atol=1e-3)
    assert torch.equal(ours.mode(), means)


@pytest.mark.parametrize("mean", [-8.0, -1.0, 0.0, 0.3, 8.0])
@pytest.mark.parametrize("log_std", [-3.0, -0.5, 0.5])
def test_a_squashed_gaussian_has_the_jacobian_of_tanh(mean, log_std):
    means, log_stds = torch.full((2000, 2), mean), torch.tensor([log_std, log_std - 0.2])
    ours = SquashedGaussian(means, log_stds)
    actions = ours.sample(torch.Generator().manual_seed(0))
    normal = distributions.Normal(means.double(), log_stds.double().exp())
    squashed = distributions.TransformedDistribution(normal, [TanhTransform(cache_size=1)])
    exact = normal.log_prob(actions.double()) - TanhTransform().log_abs_det_jacobian(
        actions.double(), actions.double().tanh()
    )
    torch.testing.assert_close(ours.log_prob(actions), exact.sum(-1).float(), rtol=1e-4, atol=1e-3)
    assert squashed.rsample().abs().max() <= 1
    # Its entropy is the mean of -log_prob, by quadrature instead of by draws.
    drawn = -ours.log_prob(ours.sample(torch.Generator().manual_seed(1)))
    sem = float(drawn.std()) / math.sqrt(len(drawn))
    assert float(ours.entropy()[0]) == pytest.approx(float(drawn.mean()), abs=5 * sem + 1e-3)


def test_a_squashed_gaussian_at_extremes_is_finite_with_its_gradient():
    means = torch.tensor([[-1e4, 1e4, 30.0]]).requires_grad_()
    log_stds = torch.tensor([3.0, -10.0, 2.0]).requires_grad_()
    ours = SquashedGaussian(means, log_stds)
    actions = ours.sample(torch.Generator().manual_seed(0)).detach()
    (ours.log_prob(actions) + ours.entropy()).sum().backward()
    assert means.grad.isfinite().all()
    assert log_stds.grad.isfinite().all()


def test_kinds_do_not_mix():
    one, two = Categorical(torch.zeros(2, 3)), Bernoulli(torch.zeros(2, 3))
    for first, second in ((one, two), (two, one), (Gaussian(torch.zeros(1), torch.zeros(1)), one)):
        with pytest.raises(TypeError, match="no KL between"):
            first.kl(second)


REALS = Continuous((2,), (-1.0, 0.0), (1.0, 4.0))
SPEC = Joint((Discrete(3), REALS, MultiBinary((4,)), Joint((Discrete(2), Discrete(5)), (2,))))


def test_a_product_is_the_sum_of_its_parts():
    kind = action_type(SPEC)
    assert (kind.num_outputs, kind.num_free, kind.num_mask) == (16, 2, 10)
    outputs = logits_of((6, 18))
    product = kind.distribution(outputs)
    assert isinstance(product, Product)
    actions = product.sample(torch.Generator().manual_seed(0))
    assert actions.shape == (6, 9)
    assert actions.dtype == torch.float32
    parts = [
        (Categorical(outputs[:, :3]), actions[:, 0].long()),
        (Gaussian(outputs[:, 3:5], outputs[:, 16:]), actions[:, 1:3]),
        (Bernoulli(outputs[:, 5:9]), actions[:, 3:7]),
        (Categorical(outputs[:, 9:11]), actions[:, 7].long()),
        (Categorical(outputs[:, 11:16]), actions[:, 8].long()),
    ]
    torch.testing.assert_close(
        product.log_prob(actions), sum(part.log_prob(own) for part, own in parts)
    )
    torch.testing.assert_close(product.entropy(), sum(part.entropy() for part, _ in parts))
    other = kind.distribution(logits_of((6, 18), seed=1))
    assert (product.kl(other) > 0).all()
    torch.testing.assert_close(product.kl(product), torch.zeros(6), rtol=0, atol=1e-6)
    assert product.mode().shape == (6, 9)


def test_a_product_s_mask_covers_its_choices():
    kind = action_type(SPEC)
    mask = torch.ones(6, 10, dtype=torch.bool)
    mask[:, [0, 1, 3]] = False  # of the first choice only 2, of the second only 1
    actions = kind.distribution(logits_of((6, 18)), mask).sample(torch.Generator().manual_seed(0))
    assert actions[:, 0].tolist() == [2] * 6
    assert actions[:, 7].tolist() == [1] * 6


@pytest.mark.parametrize(
    ("spec", "dtype", "shape"),
    [
        (Discrete(3), "<i8", ()),
        (MultiBinary((4,)), "<i8", (4,)),
        (REALS, "<f4", (2,)),
        (Joint((Discrete(2), Discrete(5))), "<i8", (2,)),
        (SPEC, "<f4", (9,)),
    ],
    ids=str,
)
def test_a_sample_fits_the_leaf_of_its_spec(spec, dtype, shape):
    assert (spec.leaf.dtype, spec.leaf.shape) == (dtype, shape)
    kind = action_type(spec)
    outputs = logits_of((8, kind.num_outputs + kind.num_free))
    sample = kind.distribution(outputs).sample(torch.Generator().manual_seed(0))
    assert sample.shape == (8, *shape)
    assert sample.numpy().dtype.str == dtype
    assert kind.distribution(outputs).log_prob(sample).shape == (8,)
