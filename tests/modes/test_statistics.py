"""Running means and stds in every mode: they follow the data, all replicas have the updater's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aa2c.config.config import Config
from aa2c.learn.schema import OBS_STATISTICS, RETURN_STATISTICS
from aa2c.modes.mode import MODES
from aa2c.shared_model import PARAMS
from tests.modes.fake_port import SmallMode, forever, make_record

ORDERS = [("grad", "fifo"), ("grad", "sum"), ("grad", "hogwild"), ("model", "fifo"), ("model", "hogwild"), ("traj", "fifo")]  # fmt: skip
SHIFT = 1000.0


class Shifting(SmallMode):
    """Observations and rewards can be shifted and scaled; all that was shown is kept."""

    def __init__(self, *, shift=0.0, **options):
        defaults = {"env": "Pendulum-v1", "num_envs": 3, "num_steps": 4, "hidden_sizes": (8,)}
        super().__init__(Config(**defaults | {"norm_obs": True, "norm_rewards": True} | options))
        self.shift, self.scale = shift, 1.0
        self.shown, self.rewards = [self.producer._rollout.now.copy()], []
        self._step, self.envs.step = self.envs.step, self.step

    def step(self, actions):
        step = self._step(actions)
        step.arrays["obs"] = step["obs"] + np.float32(self.shift)
        step.arrays["rewards"] = step["rewards"] * np.float32(self.scale)
        self.shown.append(step["obs"])
        self.rewards.append(step["rewards"])
        return step

    def learn(self, records):
        """So many records, each as soon as there are enough for an update."""
        batch = max(1, self.consumer.records_per_update)
        for i in range(records):
            self.producer.produce(self.port)
            if (i + 1) % batch == 0:
                made = self.port.records[-batch:]
                assert all(self.consumer.accepts(record) for record in made)
                self.consumer.consume(made, 1e-3, forever)

    @property
    def counted(self):
        """Observations [N, 3] of all records: the last one shown is the next rollout's."""
        return np.concatenate(self.shown[:-1])

    @property
    def returns(self):
        """The discounted return after each step of each environment, while no episode ends."""
        returns, after = np.zeros(self.config.num_envs), []
        for reward in self.rewards:
            returns = returns * self.config.gamma + reward
            after.append(returns)
        return np.concatenate(after)


@pytest.mark.parametrize(("mode", "order"), ORDERS)
def test_statistics_follow_data_that_shift_far_and_are_of_all_that_was_learned_from(mode, order):
    with Shifting(mode=mode, update_order=order) as small:
        small.learn(6)
        obs_rms, reward_rms = small.network.obs_rms, small.network.reward_rms
        assert obs_rms.mean.abs().max() < 10
        early_std = float(reward_rms.std)
        small.shift, small.scale = SHIFT, 1000.0
        small.learn(18)
        seen = small.counted
        assert obs_rms.count == len(seen)
        assert obs_rms.mean.min() > SHIFT / 2
        np.testing.assert_allclose(obs_rms.mean, seen.mean(0), rtol=1e-3)
        np.testing.assert_allclose(obs_rms.variance, seen.var(0), rtol=1e-3)
        assert reward_rms.std > 100 * early_std
        assert reward_rms.count == len(small.returns)
        np.testing.assert_allclose(reward_rms.std, small.returns.std(), rtol=1e-3)


@pytest.mark.parametrize(
    ("mode", "order", "act_on"),
    [(*case, "live") for case in ORDERS] + [("model", "fifo", "snapshot")],
)
def test_a_workers_replica_has_the_updaters_statistics_as_soon_as_it_pulls(mode, order, act_on):
    with Shifting(mode=mode, update_order=order, act_on=act_on) as small:
        for round_ in range(3):
            small.shift = 100.0 * round_
            small.learn(3)
            expected = {name: b.clone() for name, b in small.network.named_buffers()}
            small.producer.produce(small.port)
            for policy in {small.producer._policy, getattr(small.producer, "_acting", None)}:
                if policy is not None:
                    for name, buffer in policy.named_buffers():
                        assert torch.equal(buffer, expected[name]), name


@pytest.mark.parametrize(("mode", "order"), ORDERS)
def test_what_is_refused_does_not_count(mode, order):
    with Shifting(mode=mode, update_order=order) as small:
        small.learn(3)
        before = {name: b.clone() for name, b in small.network.named_buffers()}
        record = small.port.records[-1]
        for name in {OBS_STATISTICS, RETURN_STATISTICS} & record.arrays.keys():
            spoilt = {key: array.copy() for key, array in record.arrays.items()}
            spoilt[name][1] = np.nan
            assert not small.consumer.accepts(make_record(spoilt, record.header.values))
        after = dict(small.network.named_buffers())
        assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("mode", MODES)
def test_records_are_what_they_were_without_normalization(mode):
    with SmallMode(Config(mode=mode, num_envs=2, num_steps=4)) as plain:
        names = {leaf.name for leaf in plain.leaves}
        assert not {OBS_STATISTICS, RETURN_STATISTICS} & names
        assert not plain.params.num_statistics
    options = {"norm_obs": True, "norm_rewards": True}
    with SmallMode(Config(mode=mode, num_envs=2, num_steps=4, **options)) as normal:
        more = {leaf.name for leaf in normal.leaves} - names
        expected = {OBS_STATISTICS, RETURN_STATISTICS}
        assert more == (expected if mode != "traj" else {RETURN_STATISTICS}), "it has what was seen"


@pytest.mark.parametrize("order", ["fifo", "sum", "hogwild"])
def test_in_mode_grad_statistics_depend_neither_on_threads_nor_on_how_records_are_batched(order):
    with Shifting(mode="grad") as small:
        for i in range(12):
            small.shift = 50.0 * i
            small.producer.produce(small.port)
        records = small.port.records
        results = []
        for threads, size in ((1, 1), (1, 12), (3, 12), (3, 4)):
            config = Config(**vars(small.config) | {"update_threads": threads})
            config = Config(**vars(config) | {"update_order": order})
            with SmallMode(config) as other:
                for start in range(0, len(records), size):
                    other.consumer.consume(records[start : start + size], 1e-3, forever)
                results.append(other.network.state_dict())
    for result in results[1:]:
        for name in (name for name in result if "_rms" in name):
            assert torch.equal(result[name], results[0][name]), name


@pytest.mark.parametrize("sync", [4, 12])
def test_in_mode_grad_a_gradient_is_evaluated_at_the_statistics_that_were_pulled(sync):
    """Until the next pull the worker's are what they were, however many rollouts it makes."""
    options = {"grad_sync_steps": sync, "target_update_steps": 24}
    with Shifting(mode="grad", **options) as small:
        small.learn(2 * 24 // sync)
        pulled = {name: b.clone() for name, b in small.network.named_buffers()}
        for _ in range(24 // sync):
            small.learn(1)
            for name, buffer in small.producer._policy.named_buffers():
                assert torch.equal(buffer, pulled[name])
        assert small.network.obs_rms.count > pulled["obs_rms.count"]


@pytest.mark.parametrize("act_on", ["live", "snapshot"])
@pytest.mark.parametrize("order", ["fifo", "hogwild"])
def test_in_mode_model_no_step_writes_back_statistics_that_the_updater_has_changed(order, act_on):
    with Shifting(mode="model", update_order=order, act_on=act_on) as small:
        small.learn(2)
        model, own = small.port.shared_model(), small.params.num_statistics
        pulled, params = np.empty(own, np.float32), np.empty(small.params.num_params, np.float32)
        step = small.envs.step

        def publish_and_step(actions):
            small.params.statistics += 1
            model.publish_statistics(small.params.statistics.numpy())
            model.vectors[PARAMS][-own:] = np.nan  # which nobody shall read
            return step(actions)

        small.envs.step = publish_and_step
        for _ in range(3):
            before = model.vectors[PARAMS].copy()
            small.producer.produce(small.port)
            assert (model.vectors[PARAMS] != before)[:-own].any()
            assert small.consumer.accepts(small.port.records[-1])
            assert model.pull_statistics(pulled)
            np.testing.assert_array_equal(pulled, small.params.statistics.numpy())
            assert model.pull(params)
            np.testing.assert_array_equal(params[-own:], pulled)
            small.consumer.state()
            np.testing.assert_array_equal(small.params.statistics.numpy(), pulled)


def test_in_mode_model_a_new_updater_resumes_from_the_shared_statistics_and_a_rollback_sets_them():
    with Shifting(mode="model") as small:
        small.learn(3)
        saved, vector = small.consumer.state(), small.params.vector.clone()
        small.shift = SHIFT
        small.learn(3)
        newest = small.params.statistics.clone()
        small.params.vector.copy_(vector)  # as a checkpoint has them
        restarted = small.make_consumer()
        assert torch.equal(small.params.statistics, newest)
        small.params.vector.copy_(vector)
        restarted.load_state(saved, 1e-3)
        small.producer.produce(small.port)
        assert torch.equal(small.producer._policy.obs_rms.mean, small.network.obs_rms.mean)
        assert small.network.obs_rms.mean.max() < 10
        restarted.close()


@pytest.mark.parametrize("mode", MODES)
def test_a_worker_that_is_resumed_makes_the_records_that_it_would_have_made(mode):
    options = {"env": "CartPole-v1", "mode": mode, "norm_rewards": True, "norm_obs": True}
    config = Config(**options, num_envs=2, num_steps=6, deterministic=True, learning_rate=0.0)
    with SmallMode(config) as one, SmallMode(config) as other:
        for small in (one, other):
            small.network.load_state_dict(one.network.state_dict())
        for _ in range(4):
            one.producer.produce(one.port)
        assert one.producer._statistics.returns.any()
        assert other.producer.load_state(one.producer.state())
        _shares_parameters(one, other)
        for small in (one, other):
            small.producer.produce(small.port)
        made, again = one.port.records[-1].arrays, other.port.records[-1].arrays
        assert made.keys() == again.keys()
        for name in made:
            np.testing.assert_array_equal(made[name], again[name], err_msg=name)


def _shares_parameters(one, other):
    if other.config.mode == "model":
        vectors = other.port.shared_model().vectors
        vectors[PARAMS][:] = one.port.shared_model().vectors[PARAMS]


def test_traj_scales_the_rewards_of_a_batch_by_an_std_that_they_count_in():
    with Shifting(mode="traj", workers=1) as small:
        small.scale = 1e6
        small.learn(1)
        assert float(small.network.reward_rms.std) > 1e5
        assert small.network.reward_rms.count == 12
        batch = {"rewards": np.full((1, 1), 1e6, np.float32)}
        scaled = small.network.scale_rewards(batch["rewards"])
        assert 0 < scaled.item() < 10


@pytest.mark.parametrize("mode", MODES)
def test_what_the_network_sees_is_around_0_after_the_first_update(mode):
    with Shifting(mode=mode, workers=1, shift=SHIFT) as small:
        small.learn(2)
        policy, obs = small.network, torch.from_numpy(small.shown[-2])
        assert policy.prepare(obs, policy.units(obs)).abs().max() < 10
        assert policy.prepare(obs, None).max() > 900
