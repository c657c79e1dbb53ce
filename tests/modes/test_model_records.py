"""What a worker's records tell, and what it does when it is to stop or learns nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aa2c.modes.common import DIAGNOSTICS, LOSSES
from tests.modes.model_world import assert_same


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("norm_adv", [True, False])
@pytest.mark.parametrize("poison", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("update_order", ["fifo", "hogwild"])
def test_a_gradient_that_is_not_finite_changes_nothing_and_its_record_is_refused(
    a_world, update_order, poison, norm_adv
):
    options = {"update_order": update_order, "norm_adv": norm_adv}
    world, healthy = a_world(**options), a_world(**options)
    assert world.consumer.accepts(world.produce())
    before = world.content()

    def spoil(count, step):
        step["rewards"][0] = poison
        return step

    world.envs.after = spoil
    record = world.produce()
    assert not world.consumer.accepts(record)
    assert not math.isfinite(record.header.values["grad_norm"])
    assert_same(world.content(), before)

    world.envs.after = healthy.envs.after
    assert world.consumer.accepts(world.produce())
    assert world.shared.version == 3
    assert all(np.isfinite(array).all() for array in world.content().values())
    assert world.shared.torn_steps == 0
    if update_order == "fifo":
        assert world.is_free


@pytest.mark.parametrize("act_on", ["live", "snapshot"])
@pytest.mark.parametrize("update_order", ["fifo", "hogwild"])
def test_a_record_tells_the_version_that_acted_and_the_one_that_learned(
    a_world, act_on, update_order
):
    world = a_world(act_on=act_on, update_order=update_order)

    def others_step_while_it_acts(count, step):
        if count % world.config.num_steps == 2:
            world.others_step(3)
        return step

    world.envs.after = others_step_while_it_acts
    waited = 2 if update_order == "fifo" else 0
    world.port.before_lock = lambda: world.others_step(waited)
    version = 1
    for _ in range(3):
        header = world.produce().header
        assert header.policy_version == version
        assert header.values["learned_at"] == version + 3 + waited
        version += 3 + waited + 1
        assert world.consume(1e-3).policy_version == world.shared.version == version


def test_a_records_values_are_its_env_steps_and_its_losses_before_clipping(a_world):
    world = a_world(max_grad_norm=1e-3)
    values = world.produce().header.values
    assert values.keys() == {"env_steps", "learned_at", *LOSSES, *DIAGNOSTICS}
    assert values["grad_share"] == pytest.approx(1e-3 / values["grad_norm"])
    assert values["env_steps"] == 4 * 3
    assert 0 < values["entropy"] <= np.log(2) + 1e-6
    assert values["grad_norm"] > 1e-3
    assert world.port.counts["env_steps"] == 4 * 3


def test_env_steps_and_episodes_are_counted_and_each_episode_is_reported_once(a_world):
    world = a_world()
    for _ in range(60):
        world.produce()
    # The row after an episode only resets its environment; it is also what shows the episode's end.
    assert world.port.counts["env_steps"] == 60 * 4 * 3 - world.port.counts["episodes"]
    reported = [e for kind, fields in world.port.reports for e in fields["episodes"]]
    assert len(reported) == world.port.counts["episodes"] > 10


@pytest.mark.parametrize("act_on", ["live", "snapshot"])
@pytest.mark.parametrize("left", ["reserves_left", "pulls_left"])
def test_a_worker_that_is_to_stop_before_it_acts_does_nothing_more(a_world, act_on, left):
    world = a_world(act_on=act_on)
    before = world.content()
    setattr(world.port, left, 0)
    world.producer.produce(world.port)
    assert (world.port.records, world.envs.actions) == ([], [])
    assert_same(world.content(), before)
    assert world.is_free


def test_a_worker_that_is_to_stop_while_it_waits_for_the_lock_changes_nothing(a_world):
    world = a_world()
    world.produce()
    before = world.content()
    world.port.before_lock = world.other.try_lock
    world.producer.produce(world.port)
    assert len(world.port.records) == 1
    assert_same(world.content(), before)
    assert not world.shared.try_lock()
