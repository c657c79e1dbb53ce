"""The updater's half of mode model: learning rate, counts, state."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aa2c.config.config import Config
from aa2c.errors import ConfigError
from aa2c.modes.common import DIAGNOSTICS, LOSSES
from aa2c.shm import shared_model
from aa2c.shm.shared_model import PARAMS
from tests.modes.fake_port import forever, make_record
from tests.modes.model_world import assert_same


@pytest.mark.parametrize("update_order", ["fifo", "hogwild"])
def test_the_learning_rate_is_what_the_consumer_set_last(a_world, update_order):
    world = a_world(update_order=update_order, learning_rate=0.25)
    assert world.shared.learning_rate == 0.25
    world.produce()
    for learning_rate in (1e-3 / 3, 0.0):
        world.consume(learning_rate)
        assert world.other.learning_rate == learning_rate
    before = world.content()
    world.produce()
    after = world.content()
    np.testing.assert_array_equal(after[PARAMS], before[PARAMS])
    assert (after["exp_avg"] != before["exp_avg"]).any()
    assert (after["step"], after["version"]) == (2, 3)


def test_the_updater_counts_updates_and_torn_steps_and_tells_the_last_losses(a_world):
    world = a_world()
    for _ in range(3):
        world.produce()
    world.other.step().__enter__()
    world.produce()
    outcome = world.consumer.consume(world.port.records, 1e-3, forever)
    assert (outcome.updates, outcome.policy_version) == (4, 6)
    assert world.port.counts["torn_steps"] == 1
    last = world.port.records[-1].header.values
    assert outcome.losses == {n: last[n] for n in (*LOSSES, *DIAGNOSTICS)}


GOOD = dict.fromkeys(("env_steps", "learned_at", "policy", "value", "entropy", "grad_norm"), 1.0)


@pytest.mark.parametrize("name", GOOD)
def test_only_finite_counts_and_losses_are_accepted(a_world, name):
    consumer = a_world().consumer
    assert consumer.accepts(make_record({}, GOOD))
    assert not consumer.accepts(make_record({}, {k: v for k, v in GOOD.items() if k != name}))
    for value in (math.nan, math.inf, -math.inf):
        assert not consumer.accepts(make_record({}, GOOD | {name: value}))


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("update_order", ["fifo", "hogwild"])
def test_state_is_a_copy_of_the_optimizers_and_brings_the_updaters_parameters_up_to_date(
    a_world, update_order, optimizer
):
    world = a_world(update_order=update_order, optimizer=optimizer)
    for _ in range(3):
        world.produce()
    before = world.content()
    assert (before[PARAMS] != world.params.numpy).any()
    state = world.consumer.state()
    del before["version"]
    params = before.pop(PARAMS)
    world.produce()
    assert_same({name: tensor.numpy() for name, tensor in state.items()}, before)
    np.testing.assert_array_equal(world.params.numpy, params)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_a_restored_state_is_resumed_from(a_world, optimizer):
    first, second = a_world(optimizer=optimizer), a_world(optimizer=optimizer)
    for _ in range(3):
        first.produce()
    second.produce()
    second.consumer.load_state(first.consumer.state(), 1e-3 / 3)
    assert_same(first.content(), second.content(), but=[PARAMS, "version"])
    assert second.shared.learning_rate == 1e-3 / 3
    assert (first.content()[PARAMS] != second.content()[PARAMS]).any()
    second.produce()
    assert second.content()["step"] == 4


def test_state_waits_for_the_end_of_a_step_and_shows_signs_of_life_meanwhile(a_world, monkeypatch):
    monkeypatch.setattr(shared_model, "LOCK_WAIT_S", 0.02)
    world = a_world()
    world.produce()
    assert world.other.try_lock()
    step = world.other.step()
    step.__enter__()
    world.other.vectors[PARAMS][:] = 1
    beats = []

    def beat():
        beats.append(world.shared.try_lock())
        if len(beats) == 3:
            world.other.vectors["exp_avg"][:] = 1
            step.__exit__(None, None, None)
            world.other.unlock()
        return True

    world.port.beat = beat
    state = world.consumer.state()
    assert beats == [False] * 3
    assert (world.params.vector == 1).all()
    assert (state["exp_avg"] == 1).all()
    assert world.is_free


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_a_state_that_does_not_fit_is_refused(a_world, optimizer):
    world = a_world(optimizer=optimizer)
    world.produce()
    state = world.consumer.state()
    for name, tensor in state.items():
        without = {key: value for key, value in state.items() if key != name}
        for wrong in (without, state | {name: tensor[:-1]}, state | {name: tensor.repeat(2)}):
            with pytest.raises(ValueError, match=f"the optimizer's {name} does not fit"):
                world.consumer.load_state(wrong, 1e-3)
    world.consumer.load_state(state | {"step": state["step"].view(())}, 1e-3)


def test_summed_updates_are_refused_in_a_mode_whose_workers_step():
    with pytest.raises(
        ConfigError, match="--update-order sum is not for --mode model: give fifo or hogwild"
    ):
        Config(mode="model", update_order="sum")
