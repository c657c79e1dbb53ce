"""What a worker of mode grad sends."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from aa2c.config.config import Config
from aa2c.envs.vector import make_envs
from aa2c.learn.losses import a2c_loss
from aa2c.learn.returns import gae
from aa2c.learn.rollout import Rollout, collect
from aa2c.modes.common import has_losses
from aa2c.modes.grad.worker import GradProducer
from aa2c.modes.mode import MODES, WorkerSetup
from aa2c.policy.distributions import Categorical
from aa2c.policy.flat import FlatParameters
from aa2c.policy.network import make_policy
from tests.modes.fake_port import FakePort, make_consumer, params_of

SEED = 5


def a_world(config):
    """Environments, network and generator, always the same."""
    envs = make_envs(config, config.num_envs, SEED)
    torch.manual_seed(SEED)
    return envs, make_policy(config, envs.spec), torch.Generator().manual_seed(SEED)


def parameters_of(network, count):
    """Some parameter vectors to be pulled in turn, padded as FlatParameters does."""
    vector = FlatParameters(copy.deepcopy(network)).numpy
    noise = np.random.default_rng(0).normal(0, 0.1, (count, len(vector))).astype(np.float32)
    return [vector + row for row in noise]


def produce(config, records, worker=0, pulls=20, change=None):
    """Records of a producer, and the port they came through."""
    envs, network, generator = a_world(config)
    parameters = parameters_of(network, pulls)
    producer = GradProducer(WorkerSetup(config, worker, envs, network, generator))
    port = FakePort(
        config, MODES["grad"].record_leaves(config, envs.spec, len(parameters[0])), parameters
    )
    for name, value in (change or {}).items():
        setattr(port, name, value)
    for _ in range(records):
        producer.produce(port)
    envs.close()
    return port


def literal_records(config, records, worker=0):
    """The same gradients by autograd on plain parameters, clipped one by one, then summed."""
    envs, network, generator = a_world(config)
    vectors = iter(parameters_of(network, 20))
    rollout = Rollout(envs, config)
    made, rollouts = [], 0
    for _ in range(records):
        total = 0.0
        for _ in range(max(1, config.grad_sync_steps // config.num_steps)):
            if rollouts % max(1, config.target_update_steps // config.num_steps) == 0:
                vector = torch.from_numpy(next(vectors))
                used = sum(p.numel() for p in network.parameters())
                torch.nn.utils.vector_to_parameters(vector[:used], network.parameters())
            rollouts += 1
            collect(envs, network, rollout, generator)
            gradient = literal_gradient(config, network, rollout, worker)
            norm = float(gradient.norm())
            clip = config.max_grad_norm
            total = total + gradient * (min(1.0, clip / norm) if clip else 1.0)
        made.append(total)
    envs.close()
    return made


def literal_gradient(config, network, rollout, worker):
    logits, values = network(torch.from_numpy(rollout["obs"][:-1]).flatten(0, 1))
    with torch.no_grad():
        states = [network(torch.from_numpy(row))[1].numpy() for row in rollout["obs"]]
    rewards = rollout["rewards"].copy()
    if config.reward_clip:
        rewards = np.minimum(np.maximum(rewards, -config.reward_clip), config.reward_clip)
    before, after = np.stack(states[:-1]), np.stack(states[1:])
    ends = rollout["terminated"], rollout["truncated"]
    advantages = gae(
        rewards, before, after, *ends, gamma=config.gamma, gae_lambda=config.gae_lambda
    )
    returns = advantages + before
    valid = ~rollout["is_reset"]
    if config.norm_adv:
        advantages = (advantages - advantages[valid].mean()) / advantages[valid].std()
    rows = [x.reshape(-1) for x in (rollout["actions"], advantages, returns, valid)]
    loss = a2c_loss(
        Categorical(logits),
        values,
        *[torch.from_numpy(x) for x in rows[:3]],
        torch.from_numpy(rows[3]).float(),
        vf_coef=config.vf_coef,
        ent_coef=config.ent_coef[worker if len(config.ent_coef) > 1 else 0],
        value_loss=config.value_loss,
    )
    gradients = torch.autograd.grad(loss.total, list(network.parameters()))
    return torch.cat([g.flatten() for g in gradients])


def small(**options):
    return Config(**{"num_envs": 3, "num_steps": 4, "hidden_sizes": (8,), "workers": 2} | options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"grad_sync_steps": 12, "max_grad_norm": 0.01},
        {"grad_sync_steps": 12, "max_grad_norm": 0.0},
        {"grad_sync_steps": 8, "target_update_steps": 12, "norm_adv": False},
        {"reward_clip": 0.3, "norm_adv": False, "gae_lambda": 1.0, "value_loss": "huber"},
        {"ent_coef": (0.0, 2.0), "vf_coef": 0.1},
        {"env": "Acrobot-v1", "num_envs": 1, "num_steps": 8, "obs_scale": 3.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("worker", [0, 1])
def test_a_record_is_the_sum_of_the_separately_clipped_gradients_of_its_rollouts(options, worker):
    config = small(**options)
    port = produce(config, 6, worker)
    expected = literal_records(config, 6, worker)
    assert len(port.records) == 6
    for record, gradient in zip(port.records, expected, strict=True):
        pushed = torch.from_numpy(record.arrays["grad"].copy())
        torch.testing.assert_close(pushed[: len(gradient)], gradient, rtol=1e-3, atol=1e-5)
        assert not pushed[len(gradient) :].any()


def test_clipping_bounds_each_rollouts_gradient_and_not_their_sum():
    port = produce(small(grad_sync_steps=40, max_grad_norm=0.01), 1)
    norm = np.linalg.norm(port.records[0].arrays["grad"])
    assert 0.011 < norm <= 0.1001


def test_each_worker_has_its_own_entropy_weight():
    config = small(ent_coef=(0.0, 5.0))
    first, second = (produce(config, 1, worker).records[0].arrays["grad"] for worker in (0, 1))
    assert (first != second).any()
    alike = produce(small(ent_coef=(0.1,)), 1, 0), produce(small(ent_coef=(0.1,)), 1, 1)
    np.testing.assert_array_equal(*[port.records[0].arrays["grad"] for port in alike])


@pytest.mark.parametrize(
    ("options", "versions", "pulls"),
    [
        ({}, [1, 2, 3, 4], 4),
        ({"target_update_steps": 16}, [1, 1, 1, 1], 1),
        ({"grad_sync_steps": 8, "target_update_steps": 16}, [1, 1, 2, 2], 2),
        ({"grad_sync_steps": 16}, [1, 5, 9, 13], 16),
        ({"grad_sync_steps": 12, "target_update_steps": 8}, [1, 2, 4, 5], 6),
    ],
    ids=str,
)
def test_parameters_are_pulled_every_target_update_steps_and_the_oldest_version_is_told(
    options, versions, pulls
):
    port = produce(small(**options), 4)
    assert [record.header.policy_version for record in port.records] == versions
    assert port.pulls == pulls


def test_a_records_values_are_its_env_steps_and_the_means_of_its_losses():
    config = small(grad_sync_steps=8)
    values = produce(config, 1).records[0].header.values
    assert values["env_steps"] == 2 * 4 * 3
    assert 0 < values["entropy"] <= np.log(2) + 1e-6
    assert values["grad_norm"] > 0
    assert has_losses(values)


def test_advantages_are_small_beside_those_of_earlier_rollouts():
    """Whose std is a floor under the one that they are divided by; the state is saved in lock-step."""
    config = small(norm_adv=True)
    envs, network, generator = a_world(config)
    parameters = parameters_of(network, 2)
    leaves = MODES["grad"].record_leaves(config, envs.spec, len(parameters[0]))
    producer = GradProducer(WorkerSetup(config, 0, envs, network, generator))
    port = FakePort(config, leaves, parameters)
    producer.produce(port)
    another = GradProducer(WorkerSetup(config, 0, envs, network, generator))
    producer._scale.state[:] = 1000, 1e12
    another.load_state(producer.state())
    another.produce(port)
    first, second = (abs(record.header.values["policy"]) for record in port.records)
    assert first > 1e-3
    assert second < 1e-4
    envs.close()


def test_env_steps_and_episodes_are_counted_and_each_episode_is_reported_once():
    port = produce(small(), 60)
    # The row after an episode only resets its environment; it is also what shows the episode's end.
    assert port.counts["env_steps"] == 60 * 4 * 3 - port.counts["episodes"]
    reported = [episode for kind, fields in port.reports for episode in fields["episodes"]]
    assert {kind for kind, _ in port.reports} == {"episodes"}
    assert len(reported) == port.counts["episodes"] > 10
    assert all(episode_return == length for episode_return, length in reported)


@pytest.mark.parametrize("change", [{"pulls_left": 0}, {"beats_left": 0}, {"reserves_left": 0}])
def test_a_worker_that_is_to_stop_commits_nothing_more(change):
    assert produce(small(), 2, change=change).records == []


def test_the_smallest_rollout_gives_records_that_are_accepted_also_after_an_episodes_end():
    config = small(num_envs=1, num_steps=1)
    port = produce(config, 60)
    assert port.counts["episodes"] > 0
    params = params_of(len(port.records[0].arrays["grad"]))
    consumer = make_consumer(config, params, None, None)
    assert all(consumer.accepts(record) for record in port.records)
    consumer.close()
