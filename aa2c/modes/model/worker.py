"""The worker's half of mode model: acts on the shared network, and steps it."""

from __future__ import annotations

import copy
import math

import torch

from aa2c.failpoint import failpoint
from aa2c.learn.losses import Losses
from aa2c.learn.optimizer import make_optimizer, rate_of_stale
from aa2c.modes.common import RolloutProducer, add_losses
from aa2c.modes.mode import WorkerSetup
from aa2c.policy.flat import FlatParameters
from aa2c.ports import WorkerPort
from aa2c.shared_model import PARAMS, SharedModel


class ModelProducer(RolloutProducer):
    """Acts, evaluates the loss of the rollout, and steps."""

    def __init__(self, setup: WorkerSetup) -> None:
        super().__init__(setup)
        self._model: SharedModel | None = None
        is_copy = self._config.act_on == "snapshot"
        self._acting = copy.deepcopy(self._policy) if is_copy else self._policy
        self._acting_params = FlatParameters(self._acting)
        # The first optimizer takes seconds to import: before ready.
        make_optimizer(self._config, torch.zeros(1))

    def produce(self, port: WorkerPort) -> None:
        """Act for one rollout, learn from it, and tell the updater."""
        arrays = port.reserve()
        if arrays is None:
            return
        if self._model is None or self._acting is not self._policy:
            version = port.pull(self._acting_params.numpy)
        else:
            version = self._model.version
        if version == 0:
            return
        model = self._model or self._share(port)
        if not self._take_statistics(model):
            return
        self._statistics.begin()
        self._act(port, self._acting)
        losses = self._loss()
        if model.is_locked and not port.lock_model():
            return
        failpoint("model.locked")
        try:
            learned_at = model.version
            grad_norm = self._learn(model, losses, learned_at - version)
        finally:
            if model.is_locked:
                model.unlock()
        if not math.isfinite(grad_norm):
            self._set_aside(port, losses, grad_norm)
        values = {"env_steps": float(self._rollout.env_steps), "learned_at": float(learned_at)}
        add_losses(values, losses, grad_norm, self._config.max_grad_norm)
        self._statistics.write(arrays)
        port.commit(version, values)

    def _share(self, port: WorkerPort) -> SharedModel:
        """Take the shared vectors for the network's and the optimizer's own.

        But not for the running means and stds: these are the same from a rollout's start to its loss.
        """
        model = port.shared_model()
        tensors = {name: torch.from_numpy(vector) for name, vector in model.vectors.items()}
        shared = tensors.pop(PARAMS)
        self._params = FlatParameters(self._policy, vector=shared, own_statistics=True)
        self._optimizer = make_optimizer(self._config, self._params.vector, state=tensors)
        self._model = model
        return model

    def _take_statistics(self, model: SharedModel) -> bool:
        """Those that act are those that learn; False if they could not be read now."""
        if self._acting is self._policy:
            return model.pull_statistics(self._params.statistics.numpy())
        self._params.statistics.copy_(self._acting_params.statistics)
        return True

    def _learn(self, model: SharedModel, losses: Losses, lag: int) -> float:
        """Go backward and step, if the gradient is finite; returns its norm before clipping."""
        params = self._params
        params.grad.zero_()
        losses.total.backward()  # type: ignore[no-untyped-call]
        grad_norm = params.clip_grad_norm(self._config.max_grad_norm)
        if math.isfinite(grad_norm):
            (group,) = self._optimizer.param_groups
            stale_after = self._config.stale_after
            group["lr"] = rate_of_stale(model.learning_rate, lag, stale_after)
            group["params"][0].grad = params.grad
            if model.is_locked:
                with model.step():
                    self._optimizer.step()
            else:
                self._optimizer.step()
                model.count_step(self._worker)
        return grad_norm
