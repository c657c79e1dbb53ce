from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from aa2c.learn.losses import a2c_loss, explained_variance, masked_mean, ppo_loss, share_left
from aa2c.policy.distributions import Categorical

N, A = 12, 5
COEFFICIENTS = {"vf_coef": 0.7, "ent_coef": 0.03}


def batch(seed=0):
    g = torch.Generator().manual_seed(seed)
    return {
        "logits": torch.randn(N, A, generator=g).mul(2).requires_grad_(),
        "values": torch.randn(N, generator=g).mul(2).requires_grad_(),
        "actions": torch.randint(A, (N,), generator=g),
        "advantages": torch.randn(N, generator=g),
        "returns": torch.randn(N, generator=g).mul(3),
        "valid": (torch.rand(N, generator=g) > 0.3).float(),
    }


def a2c(b, **options):
    rest = {name: tensor for name, tensor in b.items() if name != "logits"}
    return a2c_loss(Categorical(b["logits"]), **rest, **options)


def literal(b, value_loss):
    """Total, policy, value, entropy by loops over Python floats; explained variance by NumPy."""
    policy = value = entropy = 0.0
    b = {name: tensor.detach() for name, tensor in b.items()}
    rows = [i for i in range(N) if b["valid"][i] == 1]
    for i in rows:
        logits = b["logits"][i].tolist()
        total = sum(math.exp(x) for x in logits)
        log_pi = [math.log(math.exp(x) / total) for x in logits]
        policy -= log_pi[int(b["actions"][i])] * float(b["advantages"][i]) / len(rows)
        entropy -= sum(math.exp(x) * x for x in log_pi) / len(rows)
        error = abs(float(b["returns"][i]) - float(b["values"][i]))
        if value_loss == "mse":
            value += error**2 / len(rows)
        else:
            value += (error**2 / 2 if error <= 1 else error - 0.5) / len(rows)
    explained = literal_explained_variance(*(b[name] for name in ("values", "returns", "valid")))
    return policy + 0.7 * value - 0.03 * entropy, policy, value, entropy, explained


def literal_explained_variance(values, returns, valid):
    """As SB3's `explained_variance`, on NumPy arrays."""
    chosen = valid.numpy() == 1
    true, predicted = returns.numpy()[chosen], values.numpy()[chosen]
    return 1 - np.var(true - predicted) / np.var(true)


@pytest.mark.parametrize("value_loss", ["mse", "huber"])
@pytest.mark.parametrize("seed", range(5))
def test_the_loss_is_the_papers_written_out(seed, value_loss):
    b = batch(seed)
    losses = a2c(b, **COEFFICIENTS, value_loss=value_loss)
    assert [x.item() for x in losses] == pytest.approx(literal(b, value_loss), rel=1e-5)


@pytest.mark.parametrize("value_loss", ["mse", "huber"])
def test_masked_rows_contribute_nothing_to_the_loss_or_the_gradient(value_loss):
    def differentiate(b):
        losses = a2c(b, **COEFFICIENTS, value_loss=value_loss)
        return losses, torch.autograd.grad(losses.total, (b["logits"], b["values"]))

    clean, garbage = batch(), batch()
    masked = garbage["valid"] == 0
    assert masked.any()
    garbage["advantages"][masked] = 1e8
    garbage["returns"][masked] = -1e8
    garbage["actions"][masked] = 0
    (losses, grads), (others, other_grads) = differentiate(clean), differentiate(garbage)
    assert losses == others
    for grad, other in zip(grads, other_grads, strict=True):
        assert torch.equal(grad, other)
        assert not grad[masked].any()


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_masked_rows_may_hold_nan_and_the_loss_stays_what_it_is(poison):
    clean, poisoned = batch(), batch()
    for name in ("advantages", "returns"):
        poisoned[name][poisoned["valid"] == 0] = poison
    expected = a2c(clean, **COEFFICIENTS, value_loss="mse")
    assert a2c(poisoned, **COEFFICIENTS, value_loss="mse") == expected


def test_a_positive_advantage_makes_its_action_likelier():
    b = batch()
    b["advantages"] = torch.ones(N)
    a2c(b, vf_coef=0, ent_coef=0, value_loss="mse").total.backward()
    row = int(b["valid"].argmax())
    assert b["logits"].grad[row, b["actions"][row]] < 0  # descending raises it
    assert not b["values"].grad.any()


def test_advantages_do_not_carry_the_policys_gradient_into_the_value():
    b = batch()
    a2c(b, vf_coef=1, ent_coef=0, value_loss="mse").total.backward()
    expected = 2 * (b["values"] - b["returns"]) * b["valid"] / b["valid"].sum()
    torch.testing.assert_close(b["values"].grad, expected.detach())


def test_masked_mean_of_no_valid_rows_is_zero():
    assert masked_mean(torch.full((4,), math.nan), torch.zeros(4)).item() == 0


def test_masked_mean_is_the_mean_of_the_valid_rows():
    x, valid = torch.tensor([1.0, 100.0, 4.0]), torch.tensor([1.0, 0.0, 1.0])
    assert masked_mean(x, valid).item() == 2.5


def literal_ppo(b, clip, clip_vloss, value_loss):
    """Equations 7 and 9, row by row."""
    sums, count = {"policy": 0.0, "value": 0.0, "entropy": 0.0, "approx_kl": 0.0}, 0
    for i, valid in enumerate(b["valid"].tolist()):
        if not valid:
            continue
        count += 1
        logits = b["logits"][i].tolist()
        norm = math.log(sum(math.exp(x) for x in logits))
        log_probs = [x - norm for x in logits]
        log_ratio = log_probs[int(b["actions"][i])] - float(b["old_log_probs"][i])
        ratio, adv = math.exp(log_ratio), float(b["advantages"][i])
        sums["policy"] -= min(ratio * adv, min(max(ratio, 1 - clip), 1 + clip) * adv)
        value, old, target = (float(b[k][i]) for k in ("values", "old_values", "returns"))
        near = old + min(max(value - old, -clip), clip)
        error, near_error = (
            (target - v) ** 2
            if value_loss == "mse"
            else (target - v) ** 2 / 2
            if abs(target - v) <= 1
            else abs(target - v) - 0.5
            for v in (value, near)
        )
        sums["value"] += max(error, near_error) if clip_vloss else error
        sums["entropy"] -= sum(math.exp(x) * x for x in log_probs)
        sums["approx_kl"] += ratio - 1 - log_ratio
    return {name: total / count for name, total in sums.items()}


def ppo_batch(seed, rows=40, actions=3):
    g = torch.Generator().manual_seed(seed)
    names = ("values", "old_values", "advantages", "returns", "old_log_probs")
    batch = {name: torch.randn(rows, generator=g) for name in names}
    batch["logits"] = torch.randn(rows, actions, generator=g)
    batch["old_log_probs"] = -batch["old_log_probs"].abs()
    batch["actions"] = torch.randint(actions, (rows,), generator=g)
    batch["valid"] = (torch.rand(rows, generator=g) < 0.8).float()
    return batch


def ppo(b, weights, **options):
    order = ("values", "actions", "old_log_probs", "old_values", "advantages", "returns")
    how = {"clip_coef": 0.2, "clip_vloss": False, "vf_coef": 0.5, "ent_coef": 0.01}
    return ppo_loss(
        Categorical(b["logits"]),
        *(b[name] for name in order),
        weights,
        **(how | {"value_loss": "mse"} | options),
    )


@pytest.mark.parametrize("value_loss", ["mse", "huber"])
@pytest.mark.parametrize("clip_vloss", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_ppo_is_the_papers_loss_row_by_row(seed, clip_vloss, value_loss):
    b = ppo_batch(seed)
    weights = b["valid"] / b["valid"].sum()
    losses = ppo(b, weights, clip_vloss=clip_vloss, value_loss=value_loss)
    expected = literal_ppo(b, 0.2, clip_vloss, value_loss)
    for name, value in expected.items():
        assert getattr(losses, name).item() == pytest.approx(value, rel=1e-4, abs=1e-5), name
    total = expected["policy"] + 0.5 * expected["value"] - 0.01 * expected["entropy"]
    assert losses.total.item() == pytest.approx(total, rel=1e-4, abs=1e-5)


def test_a_row_that_does_not_count_has_no_gradient_however_improbable_it_was():
    b = ppo_batch(0)
    b["logits"].requires_grad_()
    b["valid"][0] = 0
    b["old_log_probs"][0] = -500.0
    ppo(b, b["valid"] / b["valid"].sum()).total.backward()
    assert b["logits"].grad.isfinite().all()
    assert not b["logits"].grad[0].any()


def test_parts_of_a_ppo_batch_add_up_to_the_whole():
    b = ppo_batch(1)
    weights = b["valid"] / b["valid"].sum()
    whole = ppo(b, weights)
    parts = [
        ppo({name: column[rows] for name, column in b.items()}, weights[rows])
        for rows in torch.arange(40).tensor_split(3)
    ]
    for name in whole._fields:
        total = sum(getattr(part, name) for part in parts)
        assert total.item() == pytest.approx(getattr(whole, name).item(), rel=1e-4, abs=1e-6)


def test_at_the_policy_that_acted_the_ppo_gradient_is_the_policy_gradient():
    b = ppo_batch(2)
    logits = b["logits"].clone().requires_grad_()
    chosen = logits.log_softmax(-1).gather(-1, b["actions"][:, None]).squeeze(-1)
    weights = b["valid"] / b["valid"].sum()
    b |= {"logits": logits, "old_log_probs": chosen.detach()}
    losses = ppo(b, weights, vf_coef=0.0, ent_coef=0.0)
    assert losses.approx_kl.item() == pytest.approx(0, abs=1e-6)
    (gradient,) = torch.autograd.grad(losses.total, logits, retain_graph=True)
    (expected,) = torch.autograd.grad(-(weights * chosen * b["advantages"]).sum(), logits)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (0.5, 0), (1, 7), (-1, 0)])
def test_explained_variance_is_1_for_values_that_are_returns_but_for_a_constant(scale, shift):
    b = batch()
    values = scale * b["returns"] + shift
    found = explained_variance(values, b["returns"], b["valid"])
    assert found.item() == pytest.approx(1 - (1 - scale) ** 2, abs=1e-5)
    assert found.item() == pytest.approx(
        literal_explained_variance(values, b["returns"], b["valid"]), abs=1e-5
    )


@pytest.mark.parametrize("valid", [torch.zeros(4), torch.tensor([0.0, 1, 0, 0]), torch.ones(4)])
def test_where_returns_do_not_vary_there_is_nothing_to_explain(valid):
    found = explained_variance(torch.arange(4.0), torch.full((4,), 2.5), valid)
    assert math.isnan(found)


@pytest.mark.parametrize(
    ("norm", "most", "share"), [(0.2, 0.5, 1), (0.5, 0.5, 1), (2, 0.5, 0.25), (9, 0, 1), (0, 1, 1)]
)
def test_clipping_leaves_a_share_of_the_gradient(norm, most, share):
    assert share_left(norm, most) == share
    assert share_left(math.inf, 0.5) == 0
    assert math.isnan(share_left(math.nan, 0.5))
