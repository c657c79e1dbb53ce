"""The updater's loop on a port of lists: which records are learned from, and which have grown too old."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from aa2c.checkpoints.tensors import load_checkpoint
from aa2c.config.config import Config
from aa2c.envs.spec import Discrete, EnvSpec
from aa2c.modes.mode import MODES, UpdaterSetup
from aa2c.policy.flat import FlatParameters
from aa2c.policy.network import make_policy
from aa2c.roles.updater import Updater
from tests.modes.fake_port import FakePort, SmallMode, forever, make_consumer, make_record
from tests.modes.test_traj import produce


class ListPort(FakePort):
    """Gives all its records at the first `take`; keeps what is released and what is published."""

    def __init__(self, config, records):
        super().__init__(config, [], [])
        self.waiting = records
        self.released = []
        self.published = []
        self.run = SimpleNamespace(count=lambda name: 0, value=lambda name: 0.0)

    def take(self, most):
        taken, self.waiting = self.waiting[:most], self.waiting[most:]
        return taken

    def release(self, records):
        self.released += records

    def publish(self, vector, *, after=0):
        self.published.append(vector.copy())
        self.add("policy_version", 1)
        return self.count("policy_version")


class ReusingPort(ListPort):
    """As in a ring: what is released is overwritten with the producer's next numbers."""

    def release(self, records):
        super().release(records)
        for record in records:
            for array in record.arrays.values():
                array.flags.writeable = True
                array[...] = 1


SPEC = EnvSpec((4,), "float32", Discrete(2))


def updater_of(config, port, tmp_path, newest_checkpoint=lambda: None):
    torch.manual_seed(0)
    network = make_policy(config, SPEC)
    params = FlatParameters(network)
    leaves = MODES[config.mode].record_leaves(config, SPEC, params.num_params)
    setup = UpdaterSetup(config, params, network, leaves, port)
    return Updater(setup, SPEC, tmp_path, newest_checkpoint)


def copies(records):
    """As they arrive: numbered, each with arrays of its own."""
    made = []
    for sequence, record in enumerate(records):
        arrays = {name: array.copy() for name, array in record.arrays.items()}
        made.append(make_record(arrays, dict(record.header.values)))
        made[-1].header.sequence = sequence
    return made


def learned_by_hand(config, batches):
    """The parameters after the mode's consumer has had these batches one after the other."""
    torch.manual_seed(0)
    network = make_policy(config, SPEC)
    params = FlatParameters(network)
    consumer = make_consumer(config, params, network, FakePort(config, [], []))
    for batch in batches:
        consumer.consume(batch, config.learning_rate, forever)
    consumer.close()
    return params.numpy


@pytest.mark.parametrize("mode", ["grad", "traj"])
def test_records_are_learned_from_in_the_order_of_arrival_and_given_back_only_then(mode, tmp_path):
    config = Config(
        mode=mode, num_envs=3, num_steps=20, workers=2, hidden_sizes=(16,), ring_slots=4,
        anneal_learning_rate=False,
    )  # fmt: skip
    with SmallMode(config) as small:
        for _ in range(4):
            small.producer.produce(small.port)
        records, size = small.port.records, small.consumer.records_per_update or 4
    port = ReusingPort(config, copies(records))
    updater = updater_of(config, port, tmp_path)
    assert updater.take_and_learn()
    batches = [copies(records)[i : i + size] for i in range(0, 4, size)]
    assert np.array_equal(port.published[-1], learned_by_hand(config, batches))
    assert [record.header.sequence for record in port.released] == [0, 1, 2, 3]
    updater.consumer.close()


def aged(records, versions):
    return [
        make_record(dict(record.arrays), dict(record.header.values), version)
        for record, version in zip(records, versions, strict=True)
    ]


@pytest.mark.parametrize(
    ("most_lag", "learned", "stale"),
    [(0, 4, 0), (3, 4, 0), (2, 4, 0), (1, 2, 2)],
)
def test_a_record_that_came_to_lag_too_far_while_others_were_learned_from_is_dropped(
    most_lag, learned, stale, tmp_path
):
    """Four records of version 1 are taken at once at version 2: the second batch is two behind."""
    config = Config(
        mode="traj", num_envs=3, num_steps=20, workers=2, hidden_sizes=(16,), update_epochs=1,
        max_policy_lag=most_lag,
    )  # fmt: skip
    records = produce(config, count=4)[0].records
    port = ListPort(config, aged(records, [1, 1, 1, 1]))
    port.set("policy_version", 2)
    updater = updater_of(config, port, tmp_path)
    assert updater.take_and_learn()
    assert port.count("records") == learned
    assert port.count("stale") == stale
    assert len(port.released) == 4, "slots are given back in any case"
    assert port.counts.get("lag_max", 0) <= most_lag or not most_lag
    updater.consumer.close()


def test_a_batch_of_one_record_is_one_however_many_wait(tmp_path):
    config = Config(
        mode="traj", num_envs=3, num_steps=20, workers=1, hidden_sizes=(16,), update_epochs=1,
        minibatches=1, ring_slots=4,
    )  # fmt: skip
    port = ListPort(config, produce(config, count=4)[0].records)
    updater = updater_of(config, port, tmp_path)
    assert updater.take_and_learn()
    assert port.count("updates") == port.count("records") == 4
    updater.consumer.close()


@pytest.mark.parametrize(("in_a_row", "is_over"), [(3, True), (2, False)])
def test_only_bad_records_in_a_row_end_a_run(in_a_row, is_over, tmp_path):
    """Six bad records among good ones, all taken at once."""
    config = Config(
        mode="traj", num_envs=3, num_steps=20, workers=2, hidden_sizes=(16,), update_epochs=1,
        ring_slots=6, nonfinite_limit=3,
    )  # fmt: skip
    good = produce(config, count=8)[0].records
    bad = [
        make_record(
            dict(record.arrays) | {"values": np.full_like(record.arrays["values"], np.nan)},
            dict(record.header.values),
        )
        for record in good[:6]
    ]
    groups = [bad[i : i + in_a_row] for i in range(0, 6, in_a_row)]
    mixed = [record for group in groups for record in (*group, good.pop(), good.pop())]
    port = ListPort(config, mixed)
    updater = updater_of(config, port, tmp_path)
    updater.take_and_learn()
    assert port.count("rejected") == 6
    assert any(kind == "fatal" for kind, _ in port.reports) == is_over
    updater.consumer.close()


def with_rewards(record, reward):
    rewards = np.full_like(record.arrays["rewards"], reward)
    return make_record(dict(record.arrays) | {"rewards": rewards}, dict(record.header.values))


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "norm_returns"])
def test_returns_that_are_not_finite_change_nothing_and_their_records_are_set_aside(
    scaled, tmp_path
):
    """Each reward is finite, so the records are taken; their sums are not."""
    config = Config(
        mode="traj", num_envs=3, num_steps=20, workers=2, hidden_sizes=(16,), ring_slots=4,
        anneal_learning_rate=False, norm_returns=scaled, update_epochs=2, minibatches=2,
    )  # fmt: skip
    good = produce(config, count=4)[0].records
    bad = [with_rewards(record, 3e38) for record in good[:2]]
    port = ListPort(config, bad)
    updater = updater_of(config, port, tmp_path)
    assert updater.take_and_learn()
    assert port.count("rejected") == port.count("updates") == 0
    assert port.count("nonfinite") == 4
    assert np.array_equal(port.published[-1], learned_by_hand(config, []))
    assert [sorted(arrays) for arrays, _ in port.kept] == [sorted(r.arrays) for r in bad]
    assert all((arrays["rewards"] > 1e38).all() for arrays, _ in port.kept)
    port.waiting = good[2:]
    assert updater.take_and_learn()
    assert port.count("updates") == 4
    assert len(port.kept) == 2
    assert np.isfinite(port.published[-1]).all()
    assert not np.array_equal(port.published[-1], port.published[0])
    updater.consumer.close()


@pytest.mark.parametrize("what", ["records", "updates"])
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_a_rollback_is_to_the_checkpoint_in_all_its_tensors(what, tmp_path):
    """After bad records, which are refused, or after updates with losses that are not finite."""
    config = Config(
        mode="traj", num_envs=3, num_steps=20, workers=2, hidden_sizes=(16,), ring_slots=8,
        nonfinite_limit=2, norm_obs=True, norm_returns=True,
    )  # fmt: skip
    good = produce(config, count=7)[0].records
    bad = [with_rewards(good[0], np.inf if what == "records" else 3e38) for _ in range(4)]
    paths = []
    port = ListPort(config, good[:2])
    updater = updater_of(config, port, tmp_path, lambda: paths[0])
    assert updater.take_and_learn()
    paths.append(updater.save())
    saved, published = load_checkpoint(paths[0]), port.published[-1]
    port.waiting = good[2:4]
    assert updater.take_and_learn()
    later = load_checkpoint(updater.save())
    assert not np.array_equal(port.published[-1], published)
    in_model, in_optimizer = differences(saved, later)
    assert in_model == set(saved.model)
    assert in_optimizer >= {"exp_avg", "exp_avg_sq", "step", "shuffling"}
    last = [good[4], *bad[:2], good[5]] if what == "records" else [*bad, good[4]]
    late = of_version(port, bad[2:] if what == "records" else good[5:])
    port.waiting = of_version(port, last)
    assert updater.take_and_learn()
    assert [kind for kind, _ in port.reports if kind == "rolled_back"] == ["rolled_back"]
    assert port.count("rollbacks") == 1
    assert len(port.released) == 4 + len(last), "what waited was made with what is abandoned"
    assert np.array_equal(port.published[-1], published), "workers act on what was saved"
    assert differences(saved, load_checkpoint(updater.save())) == (set(), set())
    learned, discarded = port.count("updates"), port.count("discarded")
    port.waiting = late
    assert updater.take_and_learn()
    assert port.count("discarded") == discarded + 2, "they were made before"
    assert (port.count("updates"), port.count("rollbacks")) == (learned, 1)
    port.waiting = of_version(port, good[5:])
    assert updater.take_and_learn()
    assert np.isfinite(port.published[-1]).all()
    assert not np.array_equal(port.published[-1], published)
    updater.consumer.close()


def of_version(port, records):
    """As made with the newest parameters."""
    for record in records:
        record.header.policy_version = port.count("policy_version")
    return records


def differences(one, other):
    """Names of parameters and of optimizer tensors in which two checkpoints differ."""
    return tuple(
        {
            name
            for name in getattr(one, part)
            if not torch.equal(getattr(one, part)[name], getattr(other, part)[name])
        }
        for part in ("model", "optimizer")
    )
