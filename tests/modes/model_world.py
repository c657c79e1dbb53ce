"""A worker of mode model, the updater's half, and another process's attachment."""

from __future__ import annotations

import copy

import numpy as np
import torch

from aa2c.config.config import Config
from aa2c.envs.vector import make_envs
from aa2c.modes.mode import MODES, WorkerSetup
from aa2c.modes.model.worker import ModelProducer
from aa2c.policy.flat import FlatParameters
from aa2c.policy.network import make_policy
from aa2c.shm.segment import Segment, name_prefix
from aa2c.shm.shared_model import SharedModel, shared_model_bytes
from tests.modes.fake_port import FakePort, forever, make_consumer

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


class Beginning:
    """A worker's environments, network and generator; always the same."""

    def __init__(self, config, worker=0):
        self.config, self.worker = config, worker
        self.envs = WatchedEnvs(config)
        torch.manual_seed(SEED)
        self.network = make_policy(config, self.envs.spec)
        self.generator = torch.Generator().manual_seed(SEED)


class World(Beginning):
    """One worker, the updater's half, and another process's attachment."""

    def __init__(self, config, worker=0):
        super().__init__(config, worker)
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


def small(**options):
    defaults = {"num_envs": 3, "num_steps": 4, "hidden_sizes": (8,), "workers": 2}
    return Config(**{**defaults, "mode": "model", **options})


def assert_same(content, other, *, but=()):
    assert content.keys() == other.keys()
    for name in content.keys() - set(but):
        np.testing.assert_array_equal(content[name], other[name], err_msg=name)
