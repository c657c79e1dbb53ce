"""Mode grad, A3C by gradients: workers differentiate, the updater steps (arXiv:1602.01783).

A record is the sum of the clipped gradients of `grad_sync_steps / num_steps` rollouts. The
gradient is zeroed between rollouts, so that each is clipped by itself. How update threads share
the work is `update_order`:

* fifo: each thread owns a shard of the flat vector (parameters and moments) and applies every
  gradient to it, in order. Adam and RMSProp work element by element, so the result is bit for
  bit that of one thread.
* sum: the gradients that wait are summed, then one step; shards as above.
* hogwild: each thread steps the whole vector with its own part of the gradients, with no
  synchronisation: updates may be lost, memory never is, for nothing is allocated or freed.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import dlpack

from aa2c.config.config import Config
from aa2c.envs.vector import Envs, EnvSpec
from aa2c.learn.losses import Losses
from aa2c.learn.optimizer import get_state, join_states, load_states, make_optimizer
from aa2c.learn.rollout import Rollout
from aa2c.modes.common import (
    LOSSES,
    Actor,
    Outcome,
    add_losses,
    has_losses,
    rollout_loss,
)
from aa2c.policy.flat import SHARD_ALIGNMENT, FlatParameters
from aa2c.policy.policy import Policy
from aa2c.ports import Record, UpdaterPort, WorkerPort
from aa2c.shm.slot import ArraySpec

Vector = NDArray[np.float32]


def record_arrays(config: Config, spec: EnvSpec, num_params: int) -> list[ArraySpec]:
    """One gradient."""
    return [ArraySpec("grad", "<f4", (num_params,))]


def shared_vectors(config: Config, num_params: int) -> dict[str, int]:
    """None."""
    return {}


class Producer(Actor[Rollout]):
    """The worker's half: its own replica of the network, and no optimizer."""

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
        self._params = FlatParameters(network)
        self._policy_version = 0
        self._rollouts_since_pull = config.rollouts_per_pull
        self._summed = torch.zeros_like(self._params.grad)

    def produce(self, port: WorkerPort) -> None:
        """Sum the gradients of some rollouts, and push them."""
        rollouts = self._config.rollouts_per_push
        grad = self._params.grad
        summed = grad if rollouts == 1 else self._summed.zero_()
        oldest_version = None
        values: dict[str, float] = {"env_steps": 0}
        for _ in range(rollouts):
            if not self._pull_if_due(port):
                return
            if oldest_version is None:
                oldest_version = self._policy_version
            self._act(port, self._network)
            losses, grad_norm = self._differentiate()
            if not math.isfinite(grad_norm):
                self._set_aside(port, losses, grad_norm)
            if summed is not grad:
                summed += grad
            values["env_steps"] += self._rollout.env_steps
            add_losses(values, losses, grad_norm, weight=1 / rollouts)
            if not port.beat():
                return
        arrays = port.reserve()
        if arrays is None or oldest_version is None:
            return
        arrays["grad"][:] = summed.numpy()
        port.commit(oldest_version, values)

    def _own_state(self) -> dict[str, Any]:
        pulled = [self._policy_version, self._rollouts_since_pull]
        return {"params": self._params.numpy, "pulled": np.array(pulled)}

    def _load_own_state(self, arrays: Mapping[str, Any]) -> None:
        self._params.numpy[:] = arrays["params"]
        self._policy_version, self._rollouts_since_pull = arrays["pulled"].tolist()

    def _pull_if_due(self, port: WorkerPort) -> bool:
        if self._rollouts_since_pull >= self._config.rollouts_per_pull:
            self._policy_version = port.pull(self._params.numpy)
            self._rollouts_since_pull = 0
        self._rollouts_since_pull += 1
        return self._policy_version > 0

    def _differentiate(self) -> tuple[Losses, float]:
        """Leave the clipped gradient of the rollout's loss in the flat gradient."""
        losses = rollout_loss(self._config, self._network, self._rollout, self._worker)
        self._params.grad.zero_()
        losses.total.backward()  # type: ignore[no-untyped-call]
        return losses, self._params.clip_grad_norm(self._config.max_grad_norm)


class Consumer:
    """The updater's half: the optimizer, on shards of the flat vector, in update threads."""

    records_per_update = 0

    def __init__(
        self, config: Config, params: FlatParameters, network: Policy, port: UpdaterPort
    ) -> None:
        self._num_params = params.num_params
        self._order = config.update_order
        self._threads = ThreadPoolExecutor(config.update_threads, "aa2c-update")
        vector = params.vector
        if self._order == "hogwild":
            whole = slice(0, self._num_params)
            self._shards = [(whole, make_optimizer(config, vector))]
            state = get_state(self._shards[0][1])
            self._shards += [
                (whole, make_optimizer(config, vector, state=state))
                for _ in range(config.update_threads - 1)
            ]
        else:
            self._shards = [
                (shard, make_optimizer(config, vector[shard]))
                for shard in shards(self._num_params, config.update_threads)
            ]

    def accepts(self, record: Record) -> bool:
        """A gradient of the right length, all of it finite."""
        grad = record.arrays.get("grad")
        return (
            grad is not None
            and grad.dtype == np.float32
            and grad.shape == (self._num_params,)
            and bool(np.isfinite(grad).all())
            and has_losses(record.header.values)
        )

    def consume(
        self, records: Sequence[Record], learning_rate: float, keep_going: Callable[[], bool]
    ) -> Outcome:
        """Step the network with the records' gradients. The losses are the last record's."""
        # from_dlpack, unlike from_numpy, takes read-only arrays; the optimizer only reads them.
        gradients = [dlpack.from_dlpack(record.arrays["grad"]) for record in records]
        steps = 1 if self._order == "sum" else len(gradients)
        parts = [gradients] * len(self._shards)
        if self._order == "hogwild":
            parts = [gradients[i :: len(self._shards)] for i in range(len(self._shards))]
        jobs: list[Callable[[], None]] = [
            lambda s=shard, o=optimizer, p=part: self._apply(s, o, p, learning_rate)  # type: ignore[misc]
            for (shard, optimizer), part in zip(self._shards, parts, strict=True)
        ]
        if len(jobs) == 1:
            jobs[0]()
        else:
            for future in [self._threads.submit(job) for job in jobs]:
                future.result()
        values = records[-1].header.values
        return Outcome(steps, {name: values[name] for name in LOSSES})

    def _apply(
        self,
        shard: slice,
        optimizer: torch.optim.Optimizer,
        gradients: Sequence[torch.Tensor],
        learning_rate: float,
    ) -> None:
        """Step a shard with each gradient, or with their sum."""
        (group,) = optimizer.param_groups
        group["lr"] = learning_rate
        (parameter,) = group["params"]
        own = [gradient[shard] for gradient in gradients]
        if self._order == "sum" and len(own) > 1:
            own = [functools.reduce(torch.Tensor.add_, own[2:], own[0] + own[1])]
        for gradient in own:
            parameter.grad = gradient
            optimizer.step()
        parameter.grad = None

    def state(self) -> dict[str, torch.Tensor]:
        """The optimizer's moments as flat vectors [num_params], and its step count."""
        return join_states(self._owners)

    def load_state(self, saved: Mapping[str, torch.Tensor], learning_rate: float) -> None:
        load_states([get_state(optimizer) for optimizer in self._owners], saved)

    @property
    def _owners(self) -> list[torch.optim.Optimizer]:
        """The optimizers that have a state of their own."""
        count = 1 if self._order == "hogwild" else len(self._shards)
        return [optimizer for _, optimizer in self._shards[:count]]

    def close(self) -> None:
        self._threads.shutdown()


def shards(num_params: int, count: int) -> list[slice]:
    """Cut [0, num_params) into at most `count` contiguous parts of whole alignment units."""
    units = num_params // SHARD_ALIGNMENT
    borders = [units * i // count * SHARD_ALIGNMENT for i in range(count)] + [num_params]
    cuts = [slice(a, b) for a, b in itertools.pairwise(borders)]
    return [cut for cut in cuts if cut.stop > cut.start]
