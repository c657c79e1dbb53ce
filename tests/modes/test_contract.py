from __future__ import annotations

import numpy as np
import pytest
import torch

from aa2c.config import Config
from aa2c.modes import MODES
from aa2c.rl.envs import make_envs
from aa2c.rl.network import FlatParameters, make_network
from tests.modes.fake_port import FakePort, forever, make_shared


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("env", ["CartPole-v1", "Acrobot-v1"])
@pytest.mark.parametrize("mode", MODES)
def test_a_modes_two_halves_agree_on_records_and_learn(mode, env, threads):
    config = Config(mode=mode, env=env, num_envs=2, num_steps=4, update_threads=threads)
    envs = make_envs(config, config.num_envs, 0)
    network = make_network(config, envs.spec)
    params = FlatParameters(network)
    before = params.vector.clone()
    specs = MODES[mode].record_arrays(config, envs.spec, params.num_params)
    model = make_shared(config, params)
    port = FakePort(specs, [params.numpy], model)
    replica, generator = make_network(config, envs.spec), torch.Generator().manual_seed(0)
    producer = MODES[mode].Producer(config, 0, envs, replica, generator)
    consumer = MODES[mode].Consumer(config, params, network, port)
    count = max(3, consumer.records_per_update)
    for _ in range(count):
        producer.produce(port)

    assert len(port.records) == count
    for record in port.records:
        assert record.arrays.keys() == {spec.name for spec in specs}
        for spec in specs:
            array = record.arrays[spec.name]
            assert (array.shape, array.dtype) == (spec.shape, np.dtype(spec.dtype))
        assert record.header.values["env_steps"] == 8
        assert record.header.policy_version >= 1
        assert consumer.accepts(record)
    updates, losses, _ = consumer.consume(port.records, 1e-3, forever)
    assert updates >= 1
    state = consumer.state()
    assert set(losses) >= {"policy", "value", "entropy", "grad_norm"}
    assert np.isfinite(list(losses.values())).all()
    assert torch.isfinite(params.vector).all()
    assert not torch.equal(params.vector, before)

    assert state["step"] == updates
    moments = [state[name] for name in ("exp_avg", "exp_avg_sq")]
    assert all(tensor.shape == (params.num_params,) for tensor in moments)
    assert all(tensor.any() for tensor in moments)

    other = MODES[mode].Consumer(config, FlatParameters(network), network, port)
    other.load_state(state, 1e-3)
    restored = other.state()
    assert restored.keys() == state.keys()
    assert all(torch.equal(restored[name], state[name]) for name in state)
    with pytest.raises((ValueError, KeyError)):
        other.load_state({name: t for name, t in state.items() if name != "exp_avg"}, 1e-3)
    with pytest.raises(ValueError, match="exp_avg"):
        other.load_state(state | {"exp_avg": state["exp_avg"][:-1]}, 1e-3)
    for half in (consumer, other):
        half.close()
    envs.close()
    if model is not None:
        model.close()
