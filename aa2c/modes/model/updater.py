"""The updater's half of mode model: it counts what workers learned, merges statistics, and saves."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from aa2c.errors import StartError
from aa2c.learn.optimizer import load_states
from aa2c.learn.statistics import ReceivedStatistics
from aa2c.modes.common import UpdaterHalf, has_losses, losses_of
from aa2c.modes.mode import Outcome, UpdaterSetup
from aa2c.ports import Record
from aa2c.shared_model import PARAMS


class ModelConsumer(UpdaterHalf):
    """Sets the learning rate, and brings a copy of the network up to date for checkpoints."""

    def __init__(self, setup: UpdaterSetup) -> None:
        self._params, self._port = setup.params, setup.port
        self._model = self._port.shared_model()
        self._statistics = ReceivedStatistics(setup.leaves, setup.policy)
        if not self._model.version:
            self._model.learning_rate = setup.config.learning_rate
        elif not self._model.pull_statistics(self._params.statistics.numpy()):
            raise StartError("the shared running means and stds cannot be read")

    @property
    def is_running(self) -> bool:
        """The shared network outlives an updater."""
        return self._model.version > 0

    def learned_at(self, record: Record, version: int) -> int:
        """The version that its worker stepped."""
        return int(record.header.values["learned_at"])

    def undone_version(self, published: int) -> int:
        """The newest but one: a return is no step, so what follows acts on the newest, too."""
        return self._model.version - 1

    def accepts(self, record: Record) -> bool:
        """A header with finite counts and losses."""
        values = record.header.values
        return (
            has_losses(values)
            and math.isfinite(values.get("learned_at", math.nan))
            and self._statistics.accepts(record.arrays)
        )

    def consume(
        self, records: Sequence[Record], learning_rate: float, keep_going: Callable[[], bool]
    ) -> Outcome:
        """Merge statistics and set the learning rate. The losses are the last record's."""
        if self._statistics.are_there:
            self._statistics.merge([record.arrays for record in records])
            self._model.publish_statistics(self._params.statistics.numpy())
        self._model.learning_rate = learning_rate
        self._port.counters.set("torn_steps", self._model.torn_steps)
        return Outcome(len(records), losses_of(records[-1]), self._model.version)

    def state(self) -> dict[str, torch.Tensor]:
        """The optimizer's state; brings the updater's own parameters up to the same moment."""
        with self._while_nobody_steps() as tensors:
            copies = {name: tensor.clone() for name, tensor in tensors.items()}
        stepped = self._params.num_params - self._params.num_statistics
        self._params.vector[:stepped] = copies.pop(PARAMS)[:stepped]
        return copies

    def load_state(self, saved: Mapping[str, torch.Tensor], learning_rate: float) -> None:
        """Workers that step the network already resume from the updater's parameters, too."""
        self._model.learning_rate = learning_rate
        with self._while_nobody_steps() as tensors:
            vector = tensors.pop(PARAMS)
            load_states([tensors], saved)
            if self._model.version:
                vector.copy_(self._params.vector)
                self._model.publish_statistics(self._params.statistics.numpy())

    @contextlib.contextmanager
    def _while_nobody_steps(self) -> Iterator[dict[str, torch.Tensor]]:
        """The shared vectors, while nobody steps them (unless there is no lock)."""
        while True:
            with self._model.reading() as is_still:
                if is_still:
                    vectors = self._model.vectors.items()
                    yield {name: torch.from_numpy(vector) for name, vector in vectors}
                    return
            self._port.beat()
