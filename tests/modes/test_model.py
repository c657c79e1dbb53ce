from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn.utils import clip_grad_norm_

from aa2c.config.config import Config
from aa2c.envs.vector import make_envs
from aa2c.errors import ConfigError
from aa2c.learn.rollout import Rollout, collect
from aa2c.modes.common import rollout_loss
from aa2c.modes.mode import MODES, WorkerSetup
from aa2c.modes.model.worker import ModelProducer
from aa2c.policy.flat import FlatParameters
from aa2c.policy.network import make_policy
from aa2c.shm import shared_model
from aa2c.shm.segment import Segment, name_prefix
from aa2c.shm.shared_model import PARAMS, SharedModel, shared_model_bytes
from tests.modes.fake_port import FakePort, forever, make_consumer, make_record

SEED = 5


class WatchedEnvs:
    """Real environments that keep the actions, and let `after` see and change each step."""

    def __init__(self, config):
        self._envs = make_envs(config, config.num_envs, SEED)
        self.num_envs, self.spec = self._envs.num_envs, self._envs.spec
        self.reset, self.close = self._envs.reset, self._envs.close
        self.actions = []
        self.after = lambda count, step: step

    def step(self, actions):
        self.actions.append(actions.tolist())
        return self.after(len(self.actions), self._envs.step(actions))


class Port(FakePort):
    """Lets others act when the worker has pulled, and when it wants the lock."""

    after_pull = before_lock = staticmethod(lambda: None)

    def pull(self, out):
        version = super().pull(out)
        self.after_pull()
        return version

    def lock_model(self):
        self.before_lock()
        return super().lock_model()


class World:
    """One worker, the updater's half, and another process's attachment; always the same."""

    def __init__(self, config, worker=0):
        self.config, self.worker = config, worker
        self.envs = WatchedEnvs(config)
        torch.manual_seed(SEED)
        self.network = make_policy(config, self.envs.spec)
        self.generator = torch.Generator().manual_seed(SEED)
        self.params = FlatParameters(copy.deepcopy(self.network))
        layout = list(MODES["model"].shared_vectors(config, self.params).items())
        segment = Segment.create(name_prefix("testmodel") + "board", shared_model_bytes(layout))
        is_locked = config.update_order != "hogwild"
        self.shared, self.other = (
            SharedModel(Segment.attach(segment.name), layout, is_locked=is_locked) for _ in range(2)
        )
        segment.unlink()
        segment.close()
        self.port = Port(config, [], [], self.shared)
        self.consumer = make_consumer(config, self.params, self.network, self.port)
        self.shared.publish(self.params.numpy)
        self.producer = ModelProducer(
            WorkerSetup(config, worker, self.envs, copy.deepcopy(self.network), self.generator)
        )

    def produce(self):
        """One record."""
        count = len(self.port.records)
        self.producer.produce(self.port)
        assert len(self.port.records) == count + 1
        return self.port.records[-1]

    def consume(self, learning_rate):
        return self.consumer.consume(self.port.records[-1:], learning_rate, forever)

    def others_step(self, count):
        """Others make so many steps that change nothing."""
        for _ in range(count):
            if self.other.is_locked:
                assert self.other.try_lock()
                with self.other.step():
                    pass
                self.other.unlock()
            else:
                self.other.count_step(self.worker + 1)

    def content(self):
        """Copies of all that is shared, and the version."""
        vectors = {name: array.copy() for name, array in self.shared.vectors.items()}
        return vectors | {"version": np.array(self.shared.version)}

    @property
    def is_free(self):
        """Whether nobody has the lock."""
        if not self.other.try_lock():
            return False
        self.other.unlock()
        return True

    def close(self):
        self.consumer.close()
        self.envs.close()
        self.shared.close()
        self.other.close()


@pytest.fixture
def a_world():
    worlds = []

    def a_world(worker=0, **options):
        worlds.append(World(small(**options), worker))
        return worlds[-1]

    yield a_world
    for world in worlds:
        world.close()


def small(**options):
    defaults = {"num_envs": 3, "num_steps": 4, "hidden_sizes": (8,), "workers": 2}
    return Config(**{**defaults, "mode": "model", **options})


def assert_same(content, other, *, but=()):
    assert content.keys() == other.keys()
    for name in content.keys() - set(but):
        np.testing.assert_array_equal(content[name], other[name], err_msg=name)


class Literal:
    """The same with torch's optimizer on one plain vector, and a network that copies it."""

    def __init__(self, config, worker=0):
        self.config, self.worker = config, worker
        self.envs = WatchedEnvs(config)
        torch.manual_seed(SEED)
        self.network = make_policy(config, self.envs.spec)
        self.generator = torch.Generator().manual_seed(SEED)
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
        return torch.optim.Adam(parameters, eps=config.optimizer_eps, fused=True)
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
        {"worker": 1, "ent_coef": (0.0, 0.5), "vf_coef": 0.1},
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
    assert values.keys() == {"env_steps", "learned_at", "policy", "value", "entropy", "grad_norm"}
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


@pytest.mark.parametrize("update_order", ["fifo", "hogwild"])
def test_the_step_size_is_what_the_consumer_set_last(a_world, update_order):
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
    assert outcome.losses == {n: last[n] for n in ("policy", "value", "entropy", "grad_norm")}


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
def test_a_state_that_was_put_back_is_gone_on_from(a_world, optimizer):
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
