"""What differs between the modes, and nothing else: one file a mode, with both its halves.

A mode's `Producer` runs in each worker and its `Consumer` in the updater; they stand in one file
because both must agree on the arrays and values of a record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from aa2c.config.config import Config
from aa2c.envs.vector import Envs, EnvSpec
from aa2c.modes import grad, model, traj
from aa2c.modes.common import Outcome
from aa2c.policy.flat import FlatParameters
from aa2c.policy.policy import Policy
from aa2c.ports import Record, UpdaterPort, WorkerPort
from aa2c.shm.slot import ArraySpec


class Producer(Protocol):
    """The worker's half."""

    def __init__(
        self, config: Config, worker: int, envs: Envs, network: Policy, generator: torch.Generator
    ) -> None: ...  # fmt: skip

    def produce(self, port: WorkerPort) -> None:
        """Make one record and commit it, or return early once the worker is to stop."""

    def state(self) -> bytes:
        """All that the next record depends on, but for what it pulls; for --deterministic."""

    def load_state(self, saved: bytes) -> bool:
        """Go on from what `state` gave; False, and nothing done, if its environments are not in it."""


class Consumer(Protocol):
    """The updater's half."""

    records_per_update: int  # 0: as many as wait

    def __init__(
        self, config: Config, params: FlatParameters, network: Policy, port: UpdaterPort
    ) -> None:
        """`params` are the parameters of `network`, which learns; they are published already."""

    def accepts(self, record: Record) -> bool:
        """Whether the record's arrays and values are what this mode learns from."""

    def consume(
        self, records: Sequence[Record], learning_rate: float, keep_going: Callable[[], bool]
    ) -> Outcome:
        """Learn from `records_per_update` records (0: from one or more).

        Where that takes long, `keep_going` is asked between steps, and False ends it early.
        """

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds beside the network: the optimizer's tensors and more.

        Where the workers step the network, `params` are brought up to the same moment.
        """

    def load_state(self, saved: Mapping[str, torch.Tensor], learning_rate: float) -> None:
        """Go on from what `state` gave, with this step size.

        Raises `ValueError` or `KeyError` if it does not fit.
        """

    def close(self) -> None: ...


class Mode(Protocol):
    """A module with these four."""

    Producer: type[Any]
    Consumer: type[Any]

    def record_arrays(self, config: Config, spec: EnvSpec, num_params: int) -> list[ArraySpec]:
        """The arrays of a record."""

    def shared_vectors(self, config: Config, num_params: int) -> dict[str, int]:
        """Names and lengths of vectors that all workers step in shared memory, if they do."""


MODES: dict[str, Mode] = {"grad": grad, "model": model, "traj": traj}
