"""The updater's half of mode grad: the optimizer, on shards of the flat vector, in update threads.

How the threads share the work is `update_order`:

* fifo: each thread owns a shard of the flat vector (parameters and optimizer state) and applies every
  gradient to it, in order. Adam and RMSProp work element by element, so the result is bit for
  bit that of one thread.
* sum: the gradients that wait are summed, then one step; shards as above.
* hogwild: each thread steps the whole vector with its own part of the gradients, with no
  synchronisation: updates may be lost, memory never is, for nothing is allocated or freed.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch.utils import dlpack

from aa2c.learn.optimizer import (
    get_state,
    join_states,
    load_states,
    make_optimizer,
    rate_of_stale,
)
from aa2c.learn.statistics import ReceivedStatistics
from aa2c.modes.common import UpdaterHalf, has_losses, losses_of
from aa2c.modes.mode import Outcome, UpdaterSetup
from aa2c.policy.flat import SHARD_ALIGNMENT
from aa2c.ports import Record

MOST_VERSIONS = 1000  # whose steps are remembered


class GradConsumer(UpdaterHalf):
    """Steps the network with gradients."""

    def __init__(self, setup: UpdaterSetup) -> None:
        config, params = setup.config, setup.params
        self._num_params = params.num_params
        self._statistics = ReceivedStatistics(setup.leaves, setup.policy)
        self._order = config.update_order
        self._stale_after = config.stale_after
        self._steps = 0
        self._steps_at: dict[int, int] = {}  # by policy version, the newest last
        self._port = setup.port
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
            and self._statistics.accepts(record.arrays)
        )

    def consume(
        self, records: Sequence[Record], learning_rate: float, keep_going: Callable[[], bool]
    ) -> Outcome:
        """Step the network with the records' gradients. The losses are the last record's."""
        # from_dlpack, unlike from_numpy, takes read-only arrays; the optimizer only reads them.
        gradients = [dlpack.from_dlpack(record.arrays["grad"]) for record in records]
        steps = 1 if self._order == "sum" else len(gradients)
        pairs = list(zip(gradients, self._rates(records, learning_rate), strict=True))
        self._steps += steps
        parts = [pairs] * len(self._shards)
        if self._order == "hogwild":
            parts = [pairs[i :: len(self._shards)] for i in range(len(self._shards))]
        jobs: list[Callable[[], None]] = [
            functools.partial(self._apply, shard, optimizer, part)
            for (shard, optimizer), part in zip(self._shards, parts, strict=True)
        ]
        if len(jobs) == 1:
            jobs[0]()
        else:
            for future in [self._threads.submit(job) for job in jobs]:
                future.result()
        # Only now, while all threads rest: a step writes the whole vector, and the statistics are in it.
        self._statistics.merge([record.arrays for record in records])
        return Outcome(steps, losses_of(records[-1]))

    def _rates(self, records: Sequence[Record], learning_rate: float) -> list[float]:
        """The learning rate of each record's gradient, by the steps since its parameters were published.

        However many are taken at once, so that it does not depend on the updater's speed.
        """
        if not self._stale_after:
            return [learning_rate] * len(records)
        version = self._port.counters.count("policy_version")
        self._steps_at[version] = self._steps
        if len(self._steps_at) > MOST_VERSIONS:
            del self._steps_at[next(iter(self._steps_at))]
        oldest, fewest = next(iter(self._steps_at.items()))
        rates = []
        for i, record in enumerate(records):
            acted = record.header.policy_version
            before = self._steps_at.get(acted, fewest - max(0, oldest - acted))
            lag = self._steps - before + (0 if self._order == "sum" else i)
            rates.append(rate_of_stale(learning_rate, lag, self._stale_after))
        return rates

    def _apply(
        self,
        shard: slice,
        optimizer: torch.optim.Optimizer,
        pairs: Sequence[tuple[torch.Tensor, float]],
    ) -> None:
        """Step a shard with each gradient and its rate, or with their sum, at the least rate."""
        (group,) = optimizer.param_groups
        (parameter,) = group["params"]
        own = [(gradient[shard], rate) for gradient, rate in pairs]
        if self._order == "sum" and len(own) > 1:
            parts, rates = zip(*own, strict=True)
            own = [
                (functools.reduce(torch.Tensor.add_, parts[2:], parts[0] + parts[1]), min(rates))
            ]
        for gradient, rate in own:
            group["lr"] = rate
            parameter.grad = gradient
            optimizer.step()
        parameter.grad = None

    def state(self) -> dict[str, torch.Tensor]:
        """The optimizer's state as flat vectors [num_params], and its step count."""
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
