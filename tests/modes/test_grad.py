from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from aa2c.config.config import Config
from aa2c.envs.vector import make_envs
from aa2c.learn.losses import a2c_loss
from aa2c.learn.returns import gae
from aa2c.learn.rollout import Rollout, collect
from aa2c.modes.common import has_losses
from aa2c.modes.grad.updater import shards
from aa2c.modes.grad.worker import GradProducer
from aa2c.modes.mode import MODES, WorkerSetup
from aa2c.policy.distributions import Categorical
from aa2c.policy.flat import SHARD_ALIGNMENT, FlatParameters
from aa2c.policy.network import make_policy
from tests.modes.fake_port import FakePort, forever, make_consumer, make_record

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


def params_of(num_params, seed=0):
    vector = torch.randn(num_params, generator=torch.Generator().manual_seed(seed))
    return SimpleNamespace(num_params=num_params, vector=vector)


def random_records(num_params, count, seed=1):
    rng = np.random.default_rng(seed)
    scales = 10.0 ** rng.integers(-4, 3, size=count)
    rows = [rng.normal(0, scale, num_params).astype(np.float32) for scale in scales]
    return [make_record({"grad": row}) for row in rows]


def consume(config, records, num_params, batches=None):
    """The parameters and the optimizer's state after learning, and the number of updates."""
    params = params_of(num_params)
    consumer = make_consumer(config, params, None, None)
    batches = batches or [len(records)]
    updates, start = 0, 0
    for size in batches:
        assert all(consumer.accepts(record) for record in records[start : start + size])
        updates += consumer.consume(records[start : start + size], 1e-3, forever).updates
        start += size
    assert start == len(records)
    state = consumer.state()
    consumer.close()
    return params.vector, state, updates


def plain_optimizer(config, vector):
    parameter = torch.nn.Parameter(vector)
    if config.optimizer == "adam":
        return parameter, torch.optim.Adam(
            [parameter], lr=1e-3, eps=config.optimizer_eps, fused=True
        )
    return parameter, torch.optim.RMSprop([parameter], lr=1e-3, eps=config.optimizer_eps)


@pytest.mark.parametrize("num_params", [64, 640, 1001, 9728])
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_fifo_is_bit_for_bit_torchs_optimizer_on_the_whole_vector_for_any_threads(
    optimizer, num_params
):
    records = random_records(num_params, 50)
    config = Config(optimizer=optimizer)
    parameter, reference = plain_optimizer(config, params_of(num_params).vector)
    for record in records:
        parameter.grad = torch.from_numpy(record.arrays["grad"].copy())
        reference.step()
    expected = reference.state[parameter]
    for threads in (1, 2, 4):
        config = Config(optimizer=optimizer, update_threads=threads)
        vector, state, updates = consume(config, records, num_params)
        assert updates == 50
        assert torch.equal(vector, parameter.detach())
        assert state.keys() == {k for k, v in expected.items() if v is not None}
        assert all(torch.equal(state[name], expected[name]) for name in state)


def test_fifo_does_not_depend_on_how_records_are_batched():
    records = random_records(1001, 50)
    config = Config(update_threads=2)
    expected = consume(config, records, 1001)[0]
    for batches in ([1] * 50, [7] * 7 + [1], [49, 1], [20, 30]):
        assert torch.equal(consume(config, records, 1001, batches)[0], expected)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("threads", [1, 3])
def test_sum_is_one_step_with_the_summed_gradient(optimizer, threads):
    records = random_records(640, 9)
    config = Config(optimizer=optimizer, update_order="sum", update_threads=threads)
    parameter, reference = plain_optimizer(config, params_of(640).vector)
    for part in (records[:4], records[4:5], records[5:]):
        gradients = [torch.from_numpy(record.arrays["grad"].copy()) for record in part]
        parameter.grad = torch.stack(gradients).double().sum(0).float()
        reference.step()
    vector, state, updates = consume(config, records, 640, [4, 1, 4])
    assert updates == 3
    assert state["step"].item() == 3
    torch.testing.assert_close(vector, parameter.detach())


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_hogwild_with_4_threads_moves_the_parameters_and_stays_finite(optimizer):
    config = Config(optimizer=optimizer, update_order="hogwild", update_threads=4)
    records = random_records(9728, 300)
    vector, state, updates = consume(config, records, 9728, [1, 2, 3, 5] * 10 + [19] * 10)
    assert updates == 300
    assert torch.isfinite(vector).all()
    assert (vector != params_of(9728).vector).float().mean() > 0.99
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
    assert 1 <= state["step"] <= 300


def test_hogwild_with_1_thread_loses_nothing():
    records = random_records(640, 20)
    hogwild = consume(Config(update_order="hogwild"), records, 640)[0]
    assert torch.equal(hogwild, consume(Config(), records, 640)[0])


@pytest.mark.parametrize("order", ["fifo", "sum", "hogwild"])
def test_the_learning_rate_of_the_call_counts_and_gradients_are_left_as_they_are(order):
    config = Config(update_order=order, update_threads=2, learning_rate=1.0)
    params, records = params_of(640), random_records(640, 6)
    kept = [record.arrays["grad"].copy() for record in records]
    consumer = make_consumer(config, params, None, None)
    consumer.consume(records, 0.0, forever)
    consumer.close()
    assert torch.equal(params.vector, params_of(640).vector)
    for record, gradient in zip(records, kept, strict=True):
        np.testing.assert_array_equal(record.arrays["grad"], gradient)


GOOD = dict.fromkeys(("env_steps", "policy", "value", "entropy", "grad_norm"), 1.0)


@pytest.mark.parametrize(
    ("arrays", "values", "good"),
    [
        ({"grad": np.ones(128, np.float32)}, GOOD, True),
        ({"grad": np.zeros(128, np.float32)}, GOOD, True),
        ({"grad": np.ones(127, np.float32)}, GOOD, False),
        ({"grad": np.ones((128, 1), np.float32)}, GOOD, False),
        ({"grad": np.ones(0, np.float32)}, GOOD, False),
        ({"grad": np.ones(128, np.float64)}, GOOD, False),
        ({"grad": np.ones(128, np.int32)}, GOOD, False),
        ({"other": np.ones(128, np.float32)}, GOOD, False),
        ({}, GOOD, False),
        ({"grad": np.r_[np.ones(127), np.nan].astype(np.float32)}, GOOD, False),
        ({"grad": np.r_[np.ones(127), np.inf].astype(np.float32)}, GOOD, False),
        ({"grad": np.r_[np.ones(126), np.inf, -np.inf].astype(np.float32)}, GOOD, False),
        ({"grad": np.ones(128, np.float32)}, {}, False),
        ({"grad": np.ones(128, np.float32)}, GOOD | {"policy": float("nan")}, False),
        ({"grad": np.ones(128, np.float32)}, GOOD | {"env_steps": float("inf")}, False),
        *(
            ({"grad": np.ones(128, np.float32)}, {k: 1.0 for k in GOOD if k != name}, False)
            for name in GOOD
        ),
    ],
)
def test_only_a_finite_gradient_of_the_right_shape_with_its_losses_is_accepted(
    arrays, values, good
):
    consumer = make_consumer(Config(), params_of(128), None, None)
    assert consumer.accepts(make_record(arrays, values)) is good
    consumer.close()


@pytest.mark.parametrize("num_params", [1, 63, 64, 65, 128, 1000, 4672, 64 * 1001])
def test_shards_cover_everything_once_in_order_and_begin_at_aligned_places(num_params):
    for count in (1, 2, 3, 4, 7, 64):
        cuts = shards(num_params, count)
        assert 1 <= len(cuts) <= count
        assert np.concatenate([np.arange(num_params)[c] for c in cuts]).tolist() == list(
            range(num_params)
        )
        assert all(cut.start % SHARD_ALIGNMENT == 0 for cut in cuts)
        if num_params >= SHARD_ALIGNMENT * count:
            sizes = [cut.stop - cut.start for cut in cuts]
            assert len(cuts) == count
            assert max(sizes) - min(sizes) < 2 * SHARD_ALIGNMENT
