"""The worker's half of mode grad: its own replica of the network, and no optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from aa2c.config.config import Config
from aa2c.learn.losses import Losses
from aa2c.modes.common import RolloutProducer, add_losses
from aa2c.modes.mode import WorkerSetup
from aa2c.policy.flat import FlatParameters
from aa2c.ports import WorkerPort


class GradProducer(RolloutProducer):
    """Sums the gradients of some rollouts, and pushes them."""

    def __init__(self, setup: WorkerSetup) -> None:
        super().__init__(setup)
        self._params = FlatParameters(self._policy)
        self._policy_version = 0
        self._rollouts_since_pull = rollouts_per_pull(self._config)
        self._summed = torch.zeros_like(self._params.grad)

    def produce(self, port: WorkerPort) -> None:
        """Sum the gradients of some rollouts, and push them."""
        rollouts = rollouts_per_push(self._config)
        grad = self._params.grad
        summed = grad if rollouts == 1 else self._summed.zero_()
        oldest_version = None
        values: dict[str, float] = {"env_steps": 0}
        self._statistics.begin()
        for _ in range(rollouts):
            if not self._pull_if_due(port):
                return
            if oldest_version is None:
                oldest_version = self._policy_version
            self._act(port, self._policy)
            losses, grad_norm = self._differentiate()
            if not math.isfinite(grad_norm):
                self._set_aside(port, losses, grad_norm)
            if summed is not grad:
                summed += grad
            values["env_steps"] += self._rollout.env_steps
            kept = self._config.max_grad_norm
            add_losses(values, losses, grad_norm, kept, weight=1 / rollouts)
            if not port.beat():
                return
        arrays = port.reserve()
        if arrays is None or oldest_version is None:
            return
        arrays["grad"][:] = summed.numpy()
        self._statistics.write(arrays)
        port.commit(oldest_version, values)

    def _own_state(self) -> dict[str, Any]:
        pulled = [self._policy_version, self._rollouts_since_pull]
        return {"params": self._params.numpy, "pulled": np.array(pulled)}

    def _load_own_state(self, arrays: Mapping[str, Any]) -> None:
        self._params.numpy[:] = arrays["params"]
        self._policy_version, self._rollouts_since_pull = arrays["pulled"].tolist()

    def _pull_if_due(self, port: WorkerPort) -> bool:
        if self._rollouts_since_pull >= rollouts_per_pull(self._config):
            self._policy_version = port.pull(self._params.numpy)
            self._rollouts_since_pull = 0
        self._rollouts_since_pull += 1
        return self._policy_version > 0

    def _differentiate(self) -> tuple[Losses, float]:
        """Leave the clipped gradient of the rollout's loss in the flat gradient."""
        losses = self._loss()
        self._params.grad.zero_()
        losses.total.backward()  # type: ignore[no-untyped-call]
        return losses, self._params.clip_grad_norm(self._config.max_grad_norm)


def rollouts_per_push(config: Config) -> int:
    """Rollouts whose gradients make one record."""
    return max(1, config.grad_sync_steps // config.num_steps)


def rollouts_per_pull(config: Config) -> int:
    """Rollouts that a worker makes with the same parameters."""
    return max(1, config.target_update_steps // config.num_steps)
