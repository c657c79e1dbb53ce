"""Mode model, A3C on one network: workers step it themselves, in shared memory (arXiv:1602.01783).

Each worker acts on the shared network without a lock, and evaluates its rollout's loss on it. Then,
one worker at a time, it goes backward, clips, and steps. With `update_order` hogwild nobody waits for
anybody, as in the paper: optimizer and moments are shared, updates may be lost, memory never is.

A record is a header: the counts and losses of one rollout that has been learned from already. The
updater counts, sets the step size, and saves.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from aa2c.config.config import Config
from aa2c.envs.vector import Envs, EnvSpec
from aa2c.failpoint import failpoint
from aa2c.learn.losses import Losses
from aa2c.learn.optimizer import load_states, make_optimizer, optimizer_vectors
from aa2c.learn.rollout import Rollout
from aa2c.modes.common import (
    LOSSES,
    Actor,
    Outcome,
    add_losses,
    has_losses,
    rollout_loss,
)
from aa2c.policy.flat import FlatParameters
from aa2c.policy.policy import Policy
from aa2c.ports import PARAMS, Record, SharedModel, UpdaterPort, WorkerPort
from aa2c.shm.slot import ArraySpec


def record_arrays(config: Config, spec: EnvSpec, num_params: int) -> list[ArraySpec]:
    """None: all that matters is in memory already."""
    return []


def shared_vectors(config: Config, num_params: int) -> dict[str, int]:
    """Names and lengths of what is shared: the parameters and the optimizer's state."""
    return {PARAMS: num_params, **optimizer_vectors(config, num_params)}


def _tensors(model: SharedModel) -> dict[str, torch.Tensor]:
    """The shared vectors as tensors, not copies of them."""
    return {name: torch.from_numpy(vector) for name, vector in model.vectors.items()}


class Producer(Actor[Rollout]):
    """The worker's half: acts on the shared network, and steps it."""

    def __init__(
        self,
        config: Config,
        worker: int,
        envs: Envs,
        network: Policy,
        generator: torch.Generator,
    ) -> None:
        rollout = Rollout(envs, config.num_steps)
        super().__init__(config, worker, envs, network, generator, rollout)
        self._model: SharedModel | None = None
        self._acting = copy.deepcopy(network) if config.act_on == "snapshot" else network
        self._acting_params = FlatParameters(self._acting)
        make_optimizer(config, torch.zeros(1))  # the first takes seconds to import: before ready

    def produce(self, port: WorkerPort) -> None:
        """Act for one rollout, learn from it, and tell the updater."""
        if port.reserve() is None:
            return
        if self._model is None or self._acting is not self._network:
            version = port.pull(self._acting_params.numpy)
        else:
            version = self._model.version
        if version == 0:
            return
        model = self._model or self._share(port)
        self._act(port, self._acting)
        losses = rollout_loss(self._config, self._network, self._rollout, self._worker)
        if model.is_locked and not port.lock_model():
            return
        failpoint("model.locked")
        try:
            learned_at = model.version
            grad_norm = self._learn(model, losses)
        finally:
            if model.is_locked:
                model.unlock()
        if not math.isfinite(grad_norm):
            self._set_aside(port, losses, grad_norm)
        values = {"env_steps": float(self._rollout.env_steps), "learned_at": float(learned_at)}
        add_losses(values, losses, grad_norm)
        port.commit(version, values)

    def _share(self, port: WorkerPort) -> SharedModel:
        """Take the shared vectors for the network's and the optimizer's own."""
        model = port.shared_model()
        tensors = _tensors(model)
        self._params = FlatParameters(self._network, vector=tensors.pop(PARAMS))
        self._optimizer = make_optimizer(self._config, self._params.vector, state=tensors)
        self._model = model
        return model

    def _learn(self, model: SharedModel, losses: Losses) -> float:
        """Go backward and step, if the gradient is finite; returns its norm before clipping."""
        params = self._params
        params.grad.zero_()
        losses.total.backward()  # type: ignore[no-untyped-call]
        grad_norm = params.clip_grad_norm(self._config.max_grad_norm)
        if math.isfinite(grad_norm):
            (group,) = self._optimizer.param_groups
            group["lr"] = model.learning_rate
            group["params"][0].grad = params.grad
            if model.is_locked:
                with model.step():
                    self._optimizer.step()
            else:
                self._optimizer.step()
                model.count_step(self._worker)
        return grad_norm


class Consumer:
    """The updater's half: it only counts, and keeps the step size and a copy for checkpoints."""

    records_per_update = 0

    def __init__(
        self, config: Config, params: FlatParameters, network: Policy, port: UpdaterPort
    ) -> None:
        self._params = params
        self._model = port.shared_model()
        if not self._model.version:
            self._model.learning_rate = config.learning_rate
        self._port = port

    def accepts(self, record: Record) -> bool:
        """A header with finite counts and losses."""
        values = record.header.values
        return has_losses(values) and math.isfinite(values.get("learned_at", math.nan))

    def consume(
        self, records: Sequence[Record], learning_rate: float, keep_going: Callable[[], bool]
    ) -> Outcome:
        """Set the step size. The losses are the last record's."""
        self._model.learning_rate = learning_rate
        self._port.counters.set("torn_steps", self._model.torn_steps)
        values = records[-1].header.values
        return Outcome(len(records), {name: values[name] for name in LOSSES}, self._model.version)

    def state(self) -> dict[str, torch.Tensor]:
        """The optimizer's state; brings the updater's own parameters up to the same moment."""
        with self._standing_still() as tensors:
            copies = {name: tensor.clone() for name, tensor in tensors.items()}
        self._params.vector.copy_(copies.pop(PARAMS))
        return copies

    def load_state(self, saved: Mapping[str, torch.Tensor], learning_rate: float) -> None:
        """Workers that step the network already go on from the updater's parameters, too."""
        self._model.learning_rate = learning_rate
        with self._standing_still() as tensors:
            vector = tensors.pop(PARAMS)
            load_states([tensors], saved)
            if self._model.version:
                vector.copy_(self._params.vector)

    @contextlib.contextmanager
    def _standing_still(self) -> Iterator[dict[str, torch.Tensor]]:
        """The shared vectors, while nobody steps them (unless there is no lock)."""
        while True:
            with self._model.reading() as is_still:
                if is_still:
                    yield _tensors(self._model)
                    return
            self._port.beat()

    def close(self) -> None: ...
