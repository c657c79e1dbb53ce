"""What the updater of mode grad does with gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aa2c.config.config import Config
from aa2c.modes.grad.updater import shards
from aa2c.policy.flat import SHARD_ALIGNMENT
from tests.modes.fake_port import FakePort, forever, make_consumer, make_record, params_of


def random_records(num_params, count, seed=1):
    rng = np.random.default_rng(seed)
    scales = 10.0 ** rng.integers(-4, 3, size=count)
    rows = [rng.normal(0, scale, num_params).astype(np.float32) for scale in scales]
    return [make_record({"grad": row}) for row in rows]


def consume(config, records, num_params, batches=None):
    """The parameters and the optimizer's state after learning, and the number of updates."""
    params = params_of(num_params)
    port = FakePort(config, [], [])
    port.set("policy_version", 1)
    consumer = make_consumer(config, params, None, port)
    batches = batches or [len(records)]
    updates, start = 0, 0
    for size in batches:
        assert all(consumer.accepts(record) for record in records[start : start + size])
        updates += consumer.consume(records[start : start + size], 1e-3, forever).updates
        port.add("policy_version", 1)
        start += size
    assert start == len(records)
    state = consumer.state()
    consumer.close()
    return params.vector, state, updates


def plain_optimizer(config, vector):
    parameter = torch.nn.Parameter(vector)
    if config.optimizer == "adam":
        return parameter, torch.optim.Adam(
            [parameter],
            lr=1e-3,
            betas=(config.adam_beta1, 0.999),
            eps=config.optimizer_eps,
            fused=True,
        )
    return parameter, torch.optim.RMSprop([parameter], lr=1e-3, eps=config.optimizer_eps)


@pytest.mark.parametrize("num_params", [64, 640, 1001, 9728])
@pytest.mark.parametrize("options", [{}, {"adam_beta1": 0.5}, {"optimizer": "rmsprop"}], ids=str)
def test_fifo_is_bit_for_bit_torchs_optimizer_on_the_whole_vector_for_any_threads(
    options, num_params
):
    records = random_records(num_params, 50)
    config = Config(**options)
    parameter, reference = plain_optimizer(config, params_of(num_params).vector)
    for record in records:
        parameter.grad = torch.from_numpy(record.arrays["grad"].copy())
        reference.step()
    expected = reference.state[parameter]
    for threads in (1, 2, 4):
        config = Config(**options, update_threads=threads)
        vector, state, updates = consume(config, records, num_params)
        assert updates == 50
        assert torch.equal(vector, parameter.detach())
        assert state.keys() == {k for k, v in expected.items() if v is not None}
        assert all(torch.equal(state[name], expected[name]) for name in state)


@pytest.mark.parametrize("threads", [1, 2])
def test_stale_gradients_step_with_smaller_rates(threads):
    config = Config(stale_after=3, update_threads=threads)
    lags = [
        0,
        1,
        3,
        4,
        12,
    ]  # in versions of before this updater, and the steps on the others follow
    records = random_records(640, len(lags))
    for record, lag in zip(records, lags, strict=True):
        record.header.policy_version = 20 - lag
    port = FakePort(config, [], [])
    port.set("policy_version", 20)
    params = params_of(640)
    consumer = make_consumer(config, params, None, port)
    consumer.consume(records, 1e-3, forever)
    consumer.close()
    parameter, reference = plain_optimizer(config, params_of(640).vector)
    for record, steps in zip(records, [3, 3, 5, 7, 16], strict=True):
        rate = 1e-3 * 3 / steps
        parameter.grad = torch.from_numpy(record.arrays["grad"].copy())
        reference.param_groups[0]["lr"] = rate
        reference.step()
    assert torch.equal(params.vector, parameter.detach())


@pytest.mark.parametrize("stale_after", [0, 1])
def test_fifo_does_not_depend_on_how_records_are_batched(stale_after):
    """All are of the first version, and as stale as there are steps since, however they are taken."""
    records = random_records(1001, 50)
    config = Config(update_threads=2, stale_after=stale_after)
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
