"""What differs between the modes, and nothing else: one file a mode, with both its halves.

A mode's `Producer` runs in each worker and its `Consumer` in the updater; they stand in one file
because both must agree on the arrays and values of a record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from aa2c.config import Config
from aa2c.ipc.port import WorkerPort
from aa2c.ipc.ring import Record
from aa2c.ipc.slot import ArraySpec
from aa2c.modes import grad, traj
from aa2c.modes.common import Outcome
from aa2c.rl.envs import Envs, EnvSpec
from aa2c.rl.network import ActorCritic, FlatParameters


class Producer(Protocol):
    """The worker's half."""

    def __init__(
        self, config: Config, worker: int, envs: Envs, network: ActorCritic, generator: torch.Generator
    ) -> None: ...  # fmt: skip

    def produce(self, port: WorkerPort) -> None:
        """Make one record and commit it, or return early once the worker is to stop."""


class Consumer(Protocol):
    """The updater's half."""

    records_per_update: int

    def __init__(self, config: Config, params: FlatParameters, network: ActorCritic) -> None:
        """`params` are the parameters of `network`, which learns."""

    def accepts(self, record: Record) -> bool:
        """Whether the record's arrays and values are what this mode learns from."""

    def consume(
        self, records: Sequence[Record], learning_rate: float, keep_going: Callable[[], bool]
    ) -> Outcome:
        """Learn from `records_per_update` records (1: from one or more).

        Where that takes long, `keep_going` is asked between steps, and False ends it early.
        """

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        """The optimizer's tensors, for a checkpoint."""

    def close(self) -> None: ...


class Mode(Protocol):
    """A module with these three."""

    Producer: type[Any]
    Consumer: type[Any]

    def record_arrays(self, config: Config, spec: EnvSpec, num_params: int) -> list[ArraySpec]:
        """The arrays of a record."""


MODES: dict[str, Mode] = {"grad": grad, "traj": traj}
