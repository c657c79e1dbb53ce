"""A worker's port of lists, at the seam where another engine could stand."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from aa2c.config.config import Config
from aa2c.envs.spec import Leaf
from aa2c.envs.vector import make_envs
from aa2c.modes.mode import MODES, UpdaterSetup, WorkerSetup
from aa2c.policy.flat import FlatParameters
from aa2c.policy.network import make_policy
from aa2c.shm.segment import Segment, name_prefix
from aa2c.shm.shared_model import SharedModel, shared_model_bytes


def make_record(
    arrays: dict[str, Any], values: dict[str, float] | None = None, policy_version: int = 1
) -> Any:
    """What a consumer reads of a record: read-only arrays and a header."""
    for array in arrays.values():
        array.flags.writeable = False
    if values is None:
        names = ("env_steps", "policy", "value", "entropy", "grad_norm")
        values = dict.fromkeys(names, 1.0)
    header = SimpleNamespace(
        worker=0, generation=0, sequence=0, policy_version=policy_version, values=values
    )
    return SimpleNamespace(header=header, arrays=arrays)


def forever() -> bool:
    """For a consumer that shall not stop early."""
    return True


def make_shared(config: Config, params: FlatParameters) -> SharedModel | None:
    """The shared model of a mode that has one, with these parameters in it."""
    layout = list(MODES[config.mode].shared_vectors(config, params).items())
    if not layout:
        return None
    segment = Segment.create(name_prefix("fakeport") + "board", shared_model_bytes(layout))
    segment.unlink()
    model = SharedModel(segment, layout, is_locked=config.update_order != "hogwild")
    model.publish(params.numpy)
    model.learning_rate = config.learning_rate
    return model


class FakePort:
    """Keeps what is committed and reported; `parameters` are what each pull in turn gives.

    With `model` it has a shared model, and pulls are from there.
    """

    def __init__(
        self,
        config: Config,
        leaves: list[Leaf],
        parameters: list[Any],
        model: SharedModel | None = None,
    ) -> None:
        self.config = config
        self.counters = self.run = self
        self.counts: dict[str, float] = {}
        self.records: list[Any] = []
        self.reports: list[tuple[str, dict[str, Any]]] = []
        self.kept: list[tuple[dict[str, Any], dict[str, float]]] = []
        self.lags: list[int] = []
        self.pulls = 0
        self.beats_left = self.reserves_left = self.pulls_left = 10**9
        self._leaves = leaves
        self._parameters = parameters
        self._model = model

    def count(self, name: str) -> int:
        return int(self.counts.get(name, 0))

    def value(self, name: str) -> float:
        return float(self.counts.get(name, 0.0))

    def config_now(self) -> Config:
        return self.config

    def add(self, name: str, amount: float) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount

    def set(self, name: str, value: float) -> None:
        self.counts[name] = value

    def shared_model(self) -> SharedModel:
        assert self._model is not None
        return self._model

    def lock_model(self) -> bool:
        return self.shared_model().try_lock()

    def beat(self) -> bool:
        self.beats_left -= 1
        return self.beats_left >= 0

    def tick(self) -> None: ...

    def set_aside(self, arrays: dict[str, Any], told: dict[str, float]) -> None:
        self.kept.append((arrays, told))

    def reserve(self) -> dict[str, Any] | None:
        self.reserves_left -= 1
        self._arrays = {s.name: np.full(s.shape, 77, s.dtype) for s in self._leaves}
        return self._arrays if self.reserves_left >= 0 else None

    def commit(self, policy_version: int, values: dict[str, float]) -> None:
        self.records.append(make_record(self._arrays, dict(values), policy_version))

    def pull(self, out: Any) -> int:
        if self.pulls >= self.pulls_left:
            return 0
        if self._model is not None:
            self.pulls += 1
            return self._model.pull(out)
        out[:] = self._parameters[self.pulls % len(self._parameters)]
        self.pulls += 1
        return self.pulls

    def count_lag(self, worker: int, lag: int) -> None:
        self.lags.append(lag)

    def report(self, kind: str, **fields: Any) -> None:
        self.reports.append((kind, fields))


def make_consumer(
    config: Config, params: FlatParameters, policy: Any, port: Any, leaves: Sequence[Leaf] = ()
) -> Any:
    """The updater's half of a configuration's mode."""
    return MODES[config.mode].make_consumer(UpdaterSetup(config, params, policy, leaves, port))


class SmallMode:
    """Both halves of a configuration's mode on a fake port, for a `with` statement."""

    def __init__(self, config: Config) -> None:
        mode = MODES[config.mode]
        self.config = config
        self.envs = make_envs(config, config.num_envs, 0)
        self.network = make_policy(config, self.envs.spec)
        self.params = FlatParameters(self.network)
        self.leaves = mode.record_leaves(config, self.envs.spec, self.params.num_params)
        self._model = make_shared(config, self.params)
        self.port = FakePort(config, self.leaves, [self.params.numpy], self._model)
        self.consumer = self.make_consumer()
        replica, generator = make_policy(config, self.envs.spec), torch.Generator().manual_seed(0)
        self.producer = mode.make_producer(WorkerSetup(config, 0, self.envs, replica, generator))

    def make_consumer(self, params: FlatParameters | None = None) -> Any:
        params = params or self.params
        return make_consumer(self.config, params, self.network, self.port, self.leaves)

    def __enter__(self) -> SmallMode:
        return self

    def __exit__(self, *_: object) -> None:
        self.consumer.close()
        self.envs.close()
        if self._model is not None:
            self._model.close()


def params_of(num_params: int, seed: int = 0) -> Any:
    """What a consumer needs of an updater's parameters, at random."""
    vector = torch.randn(num_params, generator=torch.Generator().manual_seed(seed))
    return SimpleNamespace(num_params=num_params, vector=vector)


def assert_it_learns_and_resumes(config):
    """That a policy with a state learns, and that its producer resumes what it remembers."""
    with SmallMode(config) as small:
        before = small.params.vector.clone()
        for _ in range(small.consumer.records_per_update or 1):
            small.producer.produce(small.port)
        saved = small.producer.state()
        small.consumer.consume(small.port.records, 1e-2, forever)
        small.consumer.state()  # in mode model it brings the parameters up to date
        assert not torch.equal(small.params.vector, before)
        state = [part.clone() for part in small.producer._rollout.state]
        assert len(state) == (2 if config.memory == "lstm" else 1)
        small.producer.produce(small.port)
        assert small.producer.load_state(saved)
        for one, other in zip(small.producer._rollout.state, state, strict=True):
            assert torch.equal(one, other)
