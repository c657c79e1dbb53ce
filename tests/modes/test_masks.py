"""Action masks in all modes: what learns has the distribution that acted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aa2c.config.config import Config
from aa2c.envs.spec import ACTION_MASK
from aa2c.learn.batch import join_records
from aa2c.modes import common
from aa2c.modes.mode import MODES
from aa2c.modes.traj import updater as traj
from aa2c.policy.policy import Policy
from tests.conftest import used
from tests.modes.fake_port import SmallMode, forever

KINDS = ("one", "tuple")
NEAR = {"rtol": 1e-5, "atol": 1e-6}


def config_of(mode, kind="tuple", **options):
    small = {"mode": mode, "num_envs": 3, "num_steps": 12, "workers": 1, "hidden_sizes": (16,)}
    env = f"tests.envs.masked_env:Masked-info-{kind}-v0"
    rest = {"minibatches": 1, "update_epochs": 1, "env": env, "action_mask": "info"}
    return Config(**used(small | rest | options))


@pytest.fixture
def seen(monkeypatch):
    """Masks, log-probs of the actions and of all where legal: `acted` step by step, `learned` at once."""
    seen = {"acted": [], "masks": [], "learned": [], "sent": [], "entropy": []}
    step, losses = Policy.step, {common: "a2c_loss", traj: "ppo_loss"}

    def acting(self, obs, state, is_first, mask=None, *, generator):
        acted = step(self, obs, state, is_first, mask, generator=generator)
        distribution = self.actions.distribution(acted.outputs, mask)
        seen["acted"].append(distribution.log_prob(acted.actions).clone())
        seen["entropy"].append(distribution.entropy().clone())
        seen["masks"].append(mask.clone())
        return acted

    def learning(loss):
        def learn(distribution, values, actions, *others, **weights):
            seen["learned"].append(distribution.log_prob(actions).detach())
            seen["sent"].append(others[0])  # in mode traj: of the policy that acted
            made = loss(distribution, values, actions, *others, **weights)
            seen["loss"] = made
            return made

        return learn

    monkeypatch.setattr(Policy, "step", acting)
    for module, name in losses.items():
        monkeypatch.setattr(module, name, learning(getattr(module, name)))
    return seen


def spread(small):
    """Let logits differ, so that a mask at the wrong place shows."""
    for network in (small.network, small.producer._policy):
        with torch.no_grad():
            network.policy[-1].weight.mul_(300)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_the_learners_log_probs_and_entropy_are_the_actors(seen, mode, kind):
    with SmallMode(config_of(mode, kind)) as small:
        spread(small)
        small.producer.produce(small.port)
        acted = torch.stack(seen["acted"])
        if mode == "traj":
            batch = join_records([record.arrays for record in small.port.records])
            np.testing.assert_array_equal(batch[ACTION_MASK], torch.stack(seen["masks"]))
            np.testing.assert_allclose(batch["log_probs"], acted, **NEAR)
            small.consumer.consume(small.port.records, 0.0, forever)
            torch.testing.assert_close(seen["learned"][0], seen["sent"][0], **NEAR)
            assert float(seen["loss"].approx_kl) == pytest.approx(0, abs=1e-6)
            valid = torch.from_numpy(~batch["is_reset"])
        else:
            torch.testing.assert_close(seen["learned"][0], acted.flatten(), **NEAR)
            valid = torch.from_numpy(~small.producer._rollout["is_reset"])
        entropy = torch.stack(seen["entropy"])[valid].mean()
        torch.testing.assert_close(seen["loss"].entropy.detach(), entropy, rtol=1e-4, atol=1e-5)
        assert not torch.stack(seen["masks"])[valid].all()


@pytest.mark.parametrize("advantage", ["recompute", "vtrace"])
def test_what_is_evaluated_anew_is_masked_too(advantage):
    with SmallMode(config_of("traj", advantage=advantage)) as small:
        spread(small)
        small.producer.produce(small.port)
        batch = join_records([record.arrays for record in small.port.records])
        values, log_probs = small.consumer._evaluate(batch)
        np.testing.assert_allclose(log_probs, batch["log_probs"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(values, batch["values"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"memory": "gru", "memory_size": 8}], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_learns_with_masks_and_its_producer_resumes(mode, options):
    with SmallMode(config_of(mode, **options)) as small:
        before = small.params.vector.clone()
        for _ in range(small.consumer.records_per_update or 1):
            small.producer.produce(small.port)
        saved = small.producer.state()
        outcome = small.consumer.consume(small.port.records, 1e-2, forever)
        assert outcome.nonfinite == 0
        small.consumer.state()  # in mode model it brings the parameters up to date
        assert not torch.equal(small.params.vector, before)
        rollouts = []
        for _ in range(2):
            assert small.producer.load_state(saved)
            small.producer.produce(small.port)
            rollouts.append({n: a.copy() for n, a in small.producer._rollout.arrays.items()})
        one, other = rollouts
        np.testing.assert_array_equal(one[ACTION_MASK][0], other[ACTION_MASK][0])
        np.testing.assert_array_equal(one["obs"][0], other["obs"][0])


def test_update_threads_share_masks_and_change_nothing():
    learned = []
    for threads in (1, 3):
        torch.manual_seed(0)
        with SmallMode(config_of("traj", update_threads=threads, minibatches=2)) as small:
            small.producer.produce(small.port)
            small.consumer.consume(small.port.records, 1e-3, forever)
            learned.append(small.params.vector.clone())
    torch.testing.assert_close(learned[0], learned[1], rtol=1e-4, atol=1e-6)
