"""A fourth mode in one file: it registers itself, and inherits the contract of the others.

Its workers send what evolution strategies would: the step that they would take themselves.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch

from aa2c.config.config import Config
from aa2c.config.modes import BALANCED, FACTS, register
from aa2c.envs.spec import Leaf
from aa2c.errors import ConfigError
from aa2c.learn.optimizer import get_state, join_states, load_states, make_optimizer
from aa2c.modes.common import RolloutProducer, UpdaterHalf, add_losses, has_losses, rollout_loss
from aa2c.modes.mode import Mode, Outcome
from aa2c.policy.flat import FlatParameters
from tests.modes.test_contract import Contract


class ToyProducer(RolloutProducer):
    def produce(self, port):
        params = FlatParameters(self._policy)
        version = port.pull(params.numpy)
        self._act(port, self._policy)
        losses = rollout_loss(self._config, self._policy, self._rollout, self._worker)
        params.grad.zero_()
        losses.total.backward()
        values = {"env_steps": self._rollout.env_steps}
        add_losses(values, losses, params.clip_grad_norm(self._config.max_grad_norm))
        port.reserve()["step"][:] = params.grad.sign().numpy()
        port.commit(version, values)


class ToyConsumer(UpdaterHalf):
    def __init__(self, setup):
        self._optimizer = make_optimizer(setup.config, setup.params.vector)

    def accepts(self, record):
        return has_losses(record.header.values) and bool(np.isfinite(record.arrays["step"]).all())

    def consume(self, records, learning_rate, keep_going):
        (group,) = self._optimizer.param_groups
        group["lr"] = learning_rate
        for record in records:
            group["params"][0].grad = torch.from_numpy(record.arrays["step"].copy())
            self._optimizer.step()
        values = records[-1].header.values
        return Outcome(len(records), {name: values[name] for name in Toy.losses})

    def state(self):
        return join_states([self._optimizer])

    def load_state(self, saved, learning_rate):
        load_states([get_state(self._optimizer)], saved)


class Toy(Mode):
    name = "toy"
    about = "workers send signs"
    uses = frozenset({"grad_sync_steps"})
    advice: ClassVar = {
        "balanced": BALANCED,
        "workers": "More workers.",
        "updater": "Fewer workers.",
    }

    def record_leaves(self, config, spec, num_params):
        return [Leaf("step", "<f4", (num_params,))]

    def make_producer(self, setup):
        return ToyProducer(setup)

    def make_consumer(self, setup):
        return ToyConsumer(setup)


@pytest.fixture
def mode():
    register(Toy())
    yield "toy"
    del FACTS["toy"]


class TestToy(Contract):
    """It keeps what the others keep."""


def test_what_it_does_not_use_is_refused_by_name(mode):
    assert Config(mode=mode, grad_sync_steps=16).grad_sync_steps == 16
    with pytest.raises(ConfigError, match=r"--update-epochs needs --mode traj"):
        Config(mode=mode, update_epochs=2)
    with pytest.raises(ConfigError, match=r"--update-order needs --mode grad or model"):
        Config(mode=mode, update_order="sum")


def test_it_is_unknown_where_it_is_not_registered():
    with pytest.raises(ConfigError, match="--mode 'toy' is not one of grad, model, traj"):
        Config(mode="toy")
