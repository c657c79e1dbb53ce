"""Mode traj: records, batches, passes, and update threads that change nothing but time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aa2c.config.config import Config
from aa2c.envs.vector import make_envs
from aa2c.errors import ConfigError
from aa2c.learn.batch import join_records
from aa2c.learn.returns import gae
from aa2c.modes.mode import MODES, WorkerSetup
from aa2c.modes.traj.worker import TrajProducer
from aa2c.policy.flat import FlatParameters
from aa2c.policy.network import make_policy
from tests.learn.test_returns import literal_vtrace
from tests.modes.fake_port import FakePort, forever, make_consumer, make_record


def config_of(**options):
    small = {"mode": "traj", "num_envs": 3, "num_steps": 20, "workers": 2, "hidden_sizes": (16,)}
    return Config(**{**small, **options})


def produce(config, count=2, seed=0):
    """Records of a fresh worker, the network that acted, and the port."""
    torch.manual_seed(seed)
    envs = make_envs(config, config.num_envs, seed)
    network = make_policy(config, envs.spec)
    params = FlatParameters(network)
    port = FakePort(
        config, MODES["traj"].record_leaves(config, envs.spec, params.num_params), [params.numpy]
    )
    replica = make_policy(config, envs.spec)
    generator = torch.Generator().manual_seed(seed)
    producer = TrajProducer(WorkerSetup(config, 0, envs, replica, generator))
    for _ in range(count):
        producer.produce(port)
    envs.close()
    return port, network, params, envs.spec


def learn(config, records, *, seed=0, learning_rate=1e-3, keep_going=forever):
    """Parameters and outcome of a fresh consumer that learns from the records once."""
    torch.manual_seed(seed)
    envs = make_envs(config, 1, 0)
    network = make_policy(config, envs.spec)
    envs.close()
    params = FlatParameters(network)
    consumer = make_consumer(config, params, network, FakePort(config, [], []))
    outcome = consumer.consume(records, learning_rate, keep_going)
    consumer.close()
    return params.vector.clone(), outcome


@pytest.mark.parametrize("env", ["CartPole-v1", "ALE/Breakout-v5"])
def test_a_record_says_what_the_acting_network_saw_and_thought(env):
    config = config_of(env=env, num_envs=2, num_steps=6)
    port, network, _, spec = produce(config)
    batch = join_records([record.arrays for record in port.records])
    assert batch["obs"].shape == (7, 4, *spec.obs_shape)
    with torch.inference_mode():
        rows = torch.from_numpy(batch["obs"].reshape(-1, *spec.obs_shape))
        logits, values = network(rows)
    np.testing.assert_allclose(batch["values"].reshape(-1), values, rtol=1e-4, atol=1e-5)
    expected = logits.log_softmax(-1).reshape(7, 4, -1)[:-1].numpy()
    chosen = np.take_along_axis(expected, batch["actions"][..., None], -1)[..., 0]
    np.testing.assert_allclose(batch["log_probs"], chosen, rtol=1e-4, atol=1e-5)


def test_records_follow_each_other_without_a_gap():
    port, *_ = produce(config_of(), count=3)
    for before, after in zip(port.records, port.records[1:], strict=False):
        assert np.array_equal(before.arrays["obs"][-1], after.arrays["obs"][0])


@pytest.mark.parametrize("advantage", ["gae", "recompute", "vtrace"])
@pytest.mark.parametrize("norm_adv", [True, False])
def test_update_threads_give_the_gradient_of_one_thread_up_to_rounding(advantage, norm_adv):
    options = {"advantage": advantage, "norm_adv": norm_adv, "minibatches": 3, "update_epochs": 2}
    records = produce(config_of(**options))[0].records
    expected, outcome = learn(config_of(**options), records)
    for threads in (2, 3):
        vector, threaded = learn(config_of(**options, update_threads=threads), records)
        torch.testing.assert_close(vector, expected, rtol=1e-4, atol=1e-5)
        assert threaded.losses == pytest.approx(outcome.losses, rel=1e-3, abs=1e-5)


def test_every_pass_makes_a_step_for_each_minibatch():
    records = produce(config_of())[0].records
    _, outcome = learn(config_of(update_epochs=3, minibatches=5), records)
    assert outcome.updates == 15


def test_a_stop_is_heard_between_two_minibatches():
    records = produce(config_of())[0].records
    answers = iter([True, True, False])
    _, outcome = learn(
        config_of(update_epochs=9, minibatches=2), records, keep_going=lambda: next(answers)
    )
    assert outcome.updates == 3


def test_target_kl_ends_the_passes_early():
    records = produce(config_of())[0].records
    options = {"update_epochs": 10, "minibatches": 2}
    assert learn(config_of(**options), records, learning_rate=0.1)[1].updates == 20
    stopped = learn(config_of(**options, target_kl=1e-6), records, learning_rate=0.1)[1]
    assert stopped.updates < 20
    free = learn(config_of(**options, target_kl=1e-6), records, learning_rate=0.0)[1]
    assert free.updates == 20


def test_the_first_pass_of_the_policy_that_acted_has_no_kl_and_all_advantages_agree():
    options = {"minibatches": 1, "update_epochs": 1}
    port, *_ = produce(config_of(**options))
    outcomes = {
        advantage: learn(config_of(**options, advantage=advantage), port.records)[1].losses
        for advantage in ("gae", "recompute")
    }
    assert outcomes["gae"]["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert outcomes["gae"] == pytest.approx(outcomes["recompute"], rel=1e-3, abs=1e-5)


def test_the_consumer_corrects_for_policy_lag_as_the_paper_does():
    """Records of an older policy: what the loss is given are V-trace's targets by the new one's ratios."""
    config = config_of(advantage="vtrace", norm_adv=False, minibatches=1, update_epochs=1)
    port, *_ = produce(config, seed=1)
    torch.manual_seed(0)
    envs = make_envs(config, 1, 0)
    network = make_policy(config, envs.spec)
    envs.close()
    with torch.no_grad():
        network.policy[-1].weight.mul_(500)  # so that ratios are far from 1
    consumer = make_consumer(config, FlatParameters(network), network, FakePort(config, [], []))
    batch = join_records([record.arrays for record in port.records])
    with torch.inference_mode():
        logits, values = network(torch.from_numpy(batch["obs"]).flatten(0, 1))
    values = values.numpy().reshape(batch["values"].shape)
    chosen = logits.log_softmax(-1).numpy().reshape(*batch["values"].shape, -1)[:-1]
    chosen = np.take_along_axis(chosen, batch["actions"][..., None], -1)[..., 0]
    targets, advantages = consumer._advantages(batch)
    expected = literal_vtrace(
        batch["rewards"],
        values[:-1],
        values[1:],
        chosen - batch["log_probs"],
        batch["terminated"],
        batch["truncated"],
        config.gamma,
        config.gae_lambda,
    )
    assert np.abs(chosen - batch["log_probs"]).max() > 0.5
    np.testing.assert_allclose(targets, expected[0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(advantages, expected[1], rtol=1e-3, atol=1e-3)
    consumer.close()


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "norm_returns"])
@pytest.mark.parametrize("advantage", ["gae", "recompute", "vtrace"])
def test_reset_rows_are_not_learned_from(advantage, scaled):
    """Whatever they hold: not in the loss, nor in what advantages and returns are scaled by."""
    config = config_of(num_steps=60, advantage=advantage, norm_returns=scaled)
    records = produce(config)[0].records
    assert any(record.arrays["is_reset"].any() for record in records)
    expected, _ = learn(config, records)
    changed = []
    for record in records:
        arrays = {name: array.copy() for name, array in record.arrays.items()}
        rows = arrays["is_reset"]
        assert not arrays["truncated"].any(), "the value of a reset row would count before it"
        arrays["actions"][rows] = 1 - arrays["actions"][rows]
        arrays["log_probs"][rows] = -20
        arrays["rewards"][rows] = 1000
        arrays["values"][:-1][rows] = -500
        changed.append(make_record(arrays, {"env_steps": rows.size}))
    torch.testing.assert_close(learn(config, changed)[0], expected, rtol=0, atol=0)


def test_the_parts_of_the_loss_are_means_over_the_rows_that_count():
    config = config_of(num_steps=60, update_epochs=1, minibatches=1)
    records = produce(config)[0].records
    losses = learn(config, records, learning_rate=0.0)[1].losses
    batch = join_records([record.arrays for record in records])
    valid = ~batch["is_reset"]
    assert valid.mean() < 0.99
    advantages = advantages_of(config, batch)
    assert losses["value"] == pytest.approx(np.square(advantages[valid]).mean(), rel=1e-3)
    assert losses["entropy"] == pytest.approx(np.log(2), rel=1e-3)


def advantages_of(config, batch):
    return gae(
        batch["rewards"],
        batch["values"][:-1],
        batch["values"][1:],
        batch["terminated"],
        batch["truncated"],
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
    )


@pytest.mark.parametrize(
    ("name", "number"), [("rewards", np.inf), ("log_probs", np.nan), ("values", np.nan)]
)
def test_a_record_that_is_not_finite_is_refused(name, number):
    config = config_of()
    port, network, params, spec = produce(config)
    leaves = MODES["traj"].record_leaves(config, spec, params.num_params)
    consumer = make_consumer(config, params, network, FakePort(config, [], []), leaves)
    assert consumer.accepts(port.records[0])
    arrays = {key: array.copy() for key, array in port.records[0].arrays.items()}
    arrays[name][0, 0] = number
    assert not consumer.accepts(make_record(arrays, dict(port.records[0].header.values)))
    del arrays[name]
    assert not consumer.accepts(make_record(arrays, dict(port.records[0].header.values)))


def test_stacked_frames_are_sent_once():
    config = config_of(env="ALE/Pong-v5", num_envs=2, num_steps=8)
    envs = make_envs(config, 1, 0)
    arrays = {spec.name: spec for spec in MODES["traj"].record_leaves(config, envs.spec, 0)}
    envs.close()
    assert "obs" not in arrays
    sent = arrays["planes"].nbytes + arrays["first_stack"].nbytes
    assert sent == (8 + 4) * 2 * 84 * 84


def test_an_entropy_weight_per_worker_is_refused():
    with pytest.raises(ConfigError, match="--ent-coef takes one value in --mode traj"):
        config_of(ent_coef=(0.01, 0.02))


def test_a_batch_that_the_rings_cannot_hold_is_refused():
    with pytest.raises(ConfigError, match="--batch-steps 200 needs 10 trajectories"):
        config_of(batch_steps=200, ring_slots=2)


def test_a_learning_rate_that_follows_kl_grows_where_the_policy_hardly_moves_and_shrinks_where_it_jumps():
    records = produce(config_of())[0].records
    still = learn(config_of(adaptive_kl=0.01, update_epochs=3), records, learning_rate=1e-7)[1]
    assert still.losses["learning_rate"] == pytest.approx(1e-7 * 1.5**3)
    jumping = learn(config_of(adaptive_kl=1e-9, update_epochs=3), records, learning_rate=1e-2)[1]
    assert jumping.losses["learning_rate"] < 1e-2
    many = learn(config_of(adaptive_kl=0.01, update_epochs=30), records, learning_rate=1e-9)[1]
    assert many.losses["learning_rate"] == pytest.approx(1e-8)
    fixed = learn(config_of(update_epochs=3), records, learning_rate=1e-7)[1]
    assert fixed.losses["learning_rate"] == pytest.approx(1e-7)


def statistics_after(config, records, name):
    torch.manual_seed(0)
    envs = make_envs(config, 1, 0)
    network = make_policy(config, envs.spec)
    envs.close()
    consumer = make_consumer(config, FlatParameters(network), network, FakePort(config, [], []))
    consumer.consume(records, 0.0, forever)
    consumer.close()
    return getattr(network, name)


def test_observations_of_a_batch_count_in_the_running_statistics_after_it():
    config = config_of(norm_obs=True)
    records = produce(config)[0].records
    rms = statistics_after(config, records, "obs_rms")
    seen = np.concatenate([record.arrays["obs"][:-1].reshape(-1, 4) for record in records])
    assert rms.count == len(seen)
    np.testing.assert_allclose(rms.mean, seen.mean(0), atol=1e-5)
    np.testing.assert_allclose(rms.variance, seen.var(0), atol=1e-5)


@pytest.mark.parametrize("num_envs", [4, 48])
def test_of_a_large_batch_all_environments_count_in_the_running_statistics(num_envs):
    """Whatever the number of rows that count has in common with that of the environments."""
    config = config_of(norm_obs=True, num_envs=num_envs, num_steps=400)
    records = produce(config)[0].records
    for record in records:
        obs = record.arrays["obs"]
        obs.flags.writeable = True
        obs[:] = np.arange(num_envs)[:, None]
    rms = statistics_after(config, records, "obs_rms")
    assert 512 <= rms.count <= 1024 + 2 * num_envs
    np.testing.assert_allclose(rms.mean, (num_envs - 1) / 2, rtol=1e-5)


def test_a_batch_is_learned_from_in_the_units_in_which_its_policy_saw_it():
    """Its observations count only afterwards: the first batch's losses are those of unscaled ones."""
    options = {"update_epochs": 1, "minibatches": 1}
    records = produce(config_of(**options))[0].records
    plain = learn(config_of(**options), records)[1].losses
    scaled = learn(config_of(**options, norm_obs=True), records)[1].losses
    assert scaled == pytest.approx(plain, rel=1e-4, abs=1e-6)


def test_returns_count_in_the_running_statistics_without_their_reset_rows():
    config = config_of(norm_returns=True, num_steps=60)
    records = produce(config)[0].records
    batch = join_records([record.arrays for record in records])
    returns = batch["values"][:-1] + advantages_of(config, batch)
    valid = returns[~batch["is_reset"]]
    rms = statistics_after(config, records, "return_rms")
    assert rms.count == len(valid) < returns.size
    np.testing.assert_allclose(rms.mean, valid.mean(), rtol=1e-4)
    np.testing.assert_allclose(rms.variance, valid.var(), rtol=1e-3)


def test_the_value_loss_of_scaled_returns_is_in_their_own_units():
    options = {"num_steps": 60, "update_epochs": 1, "minibatches": 1, "norm_adv": False}
    records = produce(config_of(**options))[0].records
    plain = learn(config_of(**options), records, learning_rate=0.0)[1].losses
    scaled = learn(config_of(**options, norm_returns=True), records, learning_rate=0.0)[1].losses
    unit = statistics_after(config_of(**options, norm_returns=True), records, "value_unit")
    assert scaled["value"] == pytest.approx(plain["value"] / float(unit) ** 2, rel=1e-3)
    assert scaled["policy"] == pytest.approx(plain["policy"], rel=1e-3, abs=1e-6)


def test_every_update_thread_scales_by_the_same_moments():
    options = {"norm_obs": True, "norm_returns": True, "minibatches": 3, "update_epochs": 2}
    records = produce(config_of(**options))[0].records
    expected, _ = learn(config_of(**options), records)
    vector, _ = learn(config_of(**options, update_threads=3), records)
    torch.testing.assert_close(vector, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "option",
    [
        {"norm_returns": True},
        {"adaptive_kl": 0.01},
        {"target_kl": 0.01},
        {"clip_vloss": True},
        {"advantage": "vtrace"},
    ],
)
@pytest.mark.parametrize("mode", ["grad", "model"])
def test_what_only_an_updater_that_learns_can_do_is_refused_elsewhere(mode, option):
    with pytest.raises(ConfigError, match="needs --mode traj"):
        Config(mode=mode, **option)


def test_more_minibatches_or_threads_than_transitions_make_no_empty_ones():
    config = config_of(
        num_envs=1, num_steps=1, minibatches=5, update_epochs=4, update_threads=3, workers=1
    )
    port, *_ = produce(config, count=1)
    _, outcome = learn(config, port.records)
    assert outcome.updates == 4
    assert outcome.losses["entropy"] == pytest.approx(np.log(2), rel=0.02)


@pytest.mark.parametrize(("workers", "per_pass"), [(1, 4), (3, 12)])
def test_minibatches_0_keeps_their_size_whatever_the_number_of_workers(workers, per_pass):
    config = config_of(num_envs=8, num_steps=64, minibatches=0, update_epochs=2, workers=workers)
    port, *_ = produce(config, count=workers)
    _, outcome = learn(config, port.records)
    assert outcome.updates == 2 * per_pass


def test_minibatches_0_learns_from_a_batch_smaller_than_one_minibatch():
    config = config_of(num_envs=1, num_steps=4, minibatches=0, update_epochs=3, workers=1)
    port, *_ = produce(config, count=1)
    assert learn(config, port.records)[1].updates == 3
