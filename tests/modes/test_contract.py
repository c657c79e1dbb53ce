"""What every mode promises: the tests are inherited, so that a mode of its own passes them, too."""

from __future__ import annotations

import io
import pickle
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from aa2c.config.config import Config
from aa2c.modes.mode import MODES
from aa2c.policy.flat import FlatParameters
from aa2c.shm.counters import UPDATER
from tests.modes.fake_port import SmallMode, forever


class Contract:
    """The tests of one mode, which is a fixture of the class that inherits them."""

    @pytest.mark.parametrize("threads", [1, 2])
    @pytest.mark.parametrize("env", ["CartPole-v1", "Acrobot-v1"])
    def test_two_halves_agree_on_records_and_learn(self, mode, env, threads):
        config = Config(mode=mode, env=env, num_envs=2, num_steps=4)
        if config.uses("update_threads"):
            config = replace(config, update_threads=threads)
        with SmallMode(config) as small:
            _halves_agree(small)

    def test_two_halves_agree_where_environments_are_reset_at_once(self, mode):
        vector, memory = "tests.envs.asked_env:make_vector", {"memory": "gru", "memory_size": 3}
        with SmallMode(
            Config(mode=mode, vector=vector, num_envs=2, num_steps=4, **memory)
        ) as small:
            _halves_agree(small)

    def test_a_pickle_in_a_producers_saved_state_is_refused_and_not_run(self, mode, tmp_path):
        with SmallMode(Config(mode=mode, num_envs=2, num_steps=4)) as small:
            _pickles_are_refused(small, tmp_path / "run")

    def test_facts_are_complete(self, mode):
        facts = MODES[mode]
        options = {item.name for item in fields(Config)}
        assert facts.uses <= options
        assert facts.loss_in in {"worker", "updater"}
        assert facts.advice.keys() >= {"balanced", "updater"}
        assert facts.workers_step or "workers" in facts.advice
        assert facts.about
        assert {*facts.losses, *facts.diagnostics} <= set(UPDATER.floats)


@pytest.mark.parametrize("mode", MODES)
class TestModes(Contract):
    """The three that there are."""


def _halves_agree(small):
    before = small.params.vector.clone()
    count = max(3, small.consumer.records_per_update)
    for _ in range(count):
        small.producer.produce(small.port)
    records = small.port.records
    assert len(records) == count
    for record in records:
        _is_as_said(record, small)
    updates, losses, _, nonfinite = small.consumer.consume(records, 1e-3, forever)
    assert updates >= 1
    assert nonfinite == 0
    state = small.consumer.state()
    assert set(losses) >= {"policy", "value", "entropy", "grad_norm"}
    assert np.isfinite(list(losses.values())).all()
    assert torch.isfinite(small.params.vector).all()
    assert not torch.equal(small.params.vector, before)
    assert state["step"] == updates
    averages = [state[name] for name in ("exp_avg", "exp_avg_sq")]
    assert all(tensor.shape == (small.params.num_params,) for tensor in averages)
    assert all(tensor.any() for tensor in averages)
    _state_can_be_put_back(state, small)


def _is_as_said(record, small):
    assert record.arrays.keys() == {spec.name for spec in small.leaves}
    for spec in small.leaves:
        array = record.arrays[spec.name]
        assert (array.shape, array.dtype) == (spec.shape, np.dtype(spec.dtype))
    assert record.header.values["env_steps"] == 8
    assert record.header.policy_version >= 1
    assert small.consumer.accepts(record)


def _state_can_be_put_back(state, small):
    other = small.make_consumer(FlatParameters(small.network))
    zeros = {name: t * 0 if t.is_floating_point() else t for name, t in state.items()}
    other.load_state(zeros, 1e-3)  # the next one has something to do, also where state is shared
    assert not torch.equal(other.state()["exp_avg"], state["exp_avg"])
    other.load_state(state, 1e-3)
    restored = other.state()
    assert restored.keys() == state.keys()
    assert all(torch.equal(restored[name], state[name]) for name in state)
    with pytest.raises((ValueError, KeyError)):
        other.load_state({name: t for name, t in state.items() if name != "exp_avg"}, 1e-3)
    with pytest.raises(ValueError, match="exp_avg"):
        other.load_state(state | {"exp_avg": state["exp_avg"][:-1]}, 1e-3)
    other.close()


class Touch:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return Path.touch, (self._path,)


def _pickles_are_refused(small, marker):
    hostile = np.empty(1, object)
    hostile[0] = Touch(marker)
    small.producer.produce(small.port)
    saved = small.producer.state()
    with np.load(io.BytesIO(saved)) as file:
        arrays = dict(file)
    assert {"plain", "generator", "obs"} <= arrays.keys()
    for name in arrays:
        data = io.BytesIO()
        np.savez(data, allow_pickle=True, **arrays | {name: hostile})
        with pytest.raises(ValueError, match="allow_pickle"):
            small.producer.load_state(data.getvalue())
        assert not marker.exists(), name
    with pytest.raises(ValueError, match="pickle"):
        small.producer.load_state(pickle.dumps(Touch(marker)))
    assert not marker.exists()
    assert small.producer.load_state(saved)
