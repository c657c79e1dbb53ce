"""What a worker of mode model acts on and learns."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn.utils import clip_grad_norm_

from aa2c.learn.rollout import Rollout, collect
from aa2c.modes.common import rollout_loss
from aa2c.policy.flat import FlatParameters
from aa2c.shm.shared_model import PARAMS
from tests.modes.model_world import Beginning, assert_same


class Literal(Beginning):
    """The same with torch's optimizer on one plain vector, and a network that copies it."""

    def __init__(self, config, worker=0):
        super().__init__(config, worker)
        self.rollout = Rollout(self.envs, config)
        padded = FlatParameters(copy.deepcopy(self.network)).vector
        self.vector = torch.nn.Parameter(padded.clone())
        self.optimizer = a_plain_optimizer(config, [self.vector])

    def use(self, vector):
        """Let the network have these parameters, in memory of its own."""
        start = 0
        for parameter in self.network.parameters():
            end = start + parameter.numel()
            parameter.data.copy_(vector.detach()[start:end].view_as(parameter))
            start = end

    def collect(self):
        collect(self.envs, self.network, self.rollout, self.generator)

    def learn(self, learning_rate):
        losses = rollout_loss(self.config, self.network, self.rollout, self.worker)
        gradients = torch.autograd.grad(losses.total, list(self.network.parameters()))
        gradient = torch.cat([g.flatten() for g in gradients])
        self.vector.grad = torch.zeros_like(self.vector)
        self.vector.grad[: len(gradient)] = gradient
        clip_grad_norm_([self.vector], self.config.max_grad_norm or math.inf)
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.optimizer.step()
        self.use(self.vector)

    @property
    def state(self):
        state = self.optimizer.state[self.vector]
        return {name: tensor for name, tensor in state.items() if tensor is not None}


def a_plain_optimizer(config, parameters):
    if config.optimizer == "adam":
        betas = config.adam_beta1, 0.999
        return torch.optim.Adam(parameters, betas=betas, eps=config.optimizer_eps, fused=True)
    return torch.optim.RMSprop(parameters, eps=config.optimizer_eps)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("act_on", ["live", "snapshot"])
@pytest.mark.parametrize("update_order", ["fifo", "hogwild"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_grad_norm": 0.01, "norm_adv": False},
        {"max_grad_norm": 0.0, "reward_clip": 0.3, "gae_lambda": 1.0, "value_loss": "huber"},
        {"worker": 1, "ent_coef": (0.0, 0.5), "vf_coef": 0.1, "adam_beta1": 0.5},
        {"env": "Acrobot-v1", "num_envs": 2, "num_steps": 8, "obs_scale": 3.0},
    ],
    ids=str,
)
def test_a_worker_alone_learns_bit_for_bit_as_one_process_with_torchs_optimizer(
    a_world, optimizer, act_on, update_order, options
):
    world = a_world(optimizer=optimizer, act_on=act_on, update_order=update_order, **options)
    literal = Literal(world.config, world.worker)
    learning_rates = [world.config.learning_rate, 3e-2, 1e-2, 1e-3 / 3, 0.0, 1e-2, 2e-3, 1e-4]
    for i, learning_rate in enumerate(learning_rates):
        world.produce()
        world.consume(learning_rates[min(i + 1, len(learning_rates) - 1)])
        literal.collect()
        literal.learn(learning_rate)
    assert world.envs.actions == literal.envs.actions
    state = world.consumer.state()
    assert state.keys() == literal.state.keys()
    for name, tensor in literal.state.items():
        assert torch.equal(state[name].view_as(tensor), tensor), name
    assert torch.equal(world.params.vector, literal.vector)
    assert state["step"] == world.shared.version - 1 == len(learning_rates)
    literal.envs.close()


def test_it_is_also_what_a_plain_torch_loop_over_the_networks_parameters_gives(a_world):
    world = a_world(learning_rate=1e-2, optimizer_eps=1e-3)
    literal = Literal(world.config)
    parameters = list(literal.network.parameters())
    optimizer = a_plain_optimizer(world.config, parameters)
    for _ in range(8):
        world.produce()
        literal.collect()
        optimizer.zero_grad()
        rollout_loss(world.config, literal.network, literal.rollout, 0).total.backward()
        clip_grad_norm_(parameters, world.config.max_grad_norm)
        optimizer.param_groups[0]["lr"] = 1e-2
        optimizer.step()
    assert world.envs.actions == literal.envs.actions
    world.consumer.state()
    flat = torch.cat([p.detach().flatten() for p in parameters])
    torch.testing.assert_close(world.params.vector[: len(flat)], flat, rtol=1e-4, atol=1e-5)
    literal.envs.close()


def another_network(vector):
    """Parameters that act quite differently."""
    return torch.randn(len(vector), generator=torch.Generator().manual_seed(1)).numpy()


@pytest.mark.parametrize("update_order", ["fifo", "hogwild"])
@pytest.mark.parametrize("act_on", ["live", "snapshot"])
def test_a_change_after_the_pull_is_learned_on_at_once_and_acted_on_only_if_live(
    a_world, act_on, update_order
):
    world = a_world(act_on=act_on, update_order=update_order)
    literal = Literal(world.config)
    changed = torch.from_numpy(another_network(literal.vector))

    def change():
        world.other.vectors[PARAMS][:] = changed.numpy()

    world.port.after_pull = change
    world.produce()
    if act_on == "live":
        literal.use(changed)
    literal.collect()
    literal.use(changed)
    literal.vector.data[:] = changed
    literal.learn(world.config.learning_rate)
    assert world.envs.actions == literal.envs.actions
    np.testing.assert_array_equal(world.shared.vectors[PARAMS], literal.vector.detach().numpy())
    literal.envs.close()


@pytest.mark.parametrize("update_order", ["fifo", "hogwild"])
@pytest.mark.parametrize(
    ("steps", "factor"), [(0, 1.0), (1, 1.0), (3, 1.0), (4, 3 / 4), (12, 1 / 4)]
)
def test_a_stale_gradient_steps_with_a_smaller_rate(a_world, update_order, steps, factor):
    world = a_world(update_order=update_order, stale_after=3)
    literal = Literal(world.config)
    world.envs.after = lambda count, step: world.others_step(steps if count == 2 else 0) or step
    world.produce()
    literal.collect()
    literal.learn(factor * world.config.learning_rate)
    np.testing.assert_array_equal(world.shared.vectors[PARAMS], literal.vector.detach().numpy())
    literal.envs.close()


@pytest.mark.parametrize("act_on", ["live", "snapshot"])
def test_a_change_in_the_middle_of_a_rollout_is_acted_on_at_once_only_if_live(a_world, act_on):
    world = a_world(act_on=act_on, num_steps=40, learning_rate=0.0)
    literal, unchanged = Literal(world.config), Literal(world.config)
    changed = torch.from_numpy(another_network(literal.vector))

    def change(count, step):
        if count == 20:
            world.other.vectors[PARAMS][:] = changed.numpy()
        return step

    def change_what_acts(count, step):
        if count == (20 if act_on == "live" else 40):
            literal.use(changed)
        return step

    world.envs.after, literal.envs.after = change, change_what_acts
    for _ in range(2):
        world.produce()
        literal.collect()
    assert world.envs.actions == literal.envs.actions
    unchanged.collect()
    assert (world.envs.actions[:40] == unchanged.envs.actions) == (act_on == "snapshot")
    literal.envs.close()
    unchanged.envs.close()


def test_a_worker_acts_while_another_has_the_lock_and_learns_when_it_gets_it(a_world):
    world = a_world()
    world.produce()
    assert world.other.try_lock()
    before, acted = world.content(), len(world.envs.actions)

    def give_back():
        assert len(world.envs.actions) == acted + world.config.num_steps
        assert_same(world.content(), before)
        world.other.unlock()

    world.port.before_lock = give_back
    world.produce()
    assert world.shared.version == before["version"] + 1
    assert world.is_free


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_each_worker_has_its_own_entropy_weight(a_world, optimizer):
    learned = {}
    for ent_coef in ((0.0, 5.0), (5.0, 0.0)):
        for worker in (0, 1):
            world = a_world(worker, ent_coef=ent_coef, optimizer=optimizer, max_grad_norm=0.0)
            for _ in range(3):
                world.produce()
            learned[worker, ent_coef[worker]] = world.content()
    for weight in (0.0, 5.0):
        assert_same(learned[0, weight], learned[1, weight])
    assert (learned[0, 0.0][PARAMS] != learned[0, 5.0][PARAMS]).any()
