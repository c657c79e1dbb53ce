"""What a mode is made of: facts, the leaves of its records, and its two halves.

The producer runs in each worker and the consumer in the updater. Both must agree on the arrays and
values of a record, so one declaration names both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from aa2c.config.modes import FACTS, ModeFacts, register

if TYPE_CHECKING:
    import torch

    from aa2c.config.config import Config
    from aa2c.envs.spec import EnvSpec, Leaf
    from aa2c.envs.vector import Envs
    from aa2c.policy.flat import FlatParameters
    from aa2c.policy.policy import Policy
    from aa2c.ports import Record, UpdaterPort, WorkerPort

__all__ = ["MODES", "Consumer", "Mode", "Outcome", "Producer", "UpdaterSetup", "WorkerSetup", "register"]  # fmt: skip


class WorkerSetup(NamedTuple):
    """What a producer is made of: environments, a policy that acts in them, random numbers."""

    config: Config
    worker: int
    envs: Envs
    policy: Policy
    generator: torch.Generator


class UpdaterSetup(NamedTuple):
    """What a consumer is made of. `params` are those of `policy`, which learns from `leaves`."""

    config: Config
    params: FlatParameters
    policy: Policy
    leaves: Sequence[Leaf]
    port: UpdaterPort


class Outcome(NamedTuple):
    """What learning from some records led to.

    Optimizer steps, the parts of the loss, the policy version where workers made it, so that there
    is nothing to publish, and the steps that were not made because loss or gradient was not finite.
    """

    updates: int
    losses: Mapping[str, float]
    policy_version: int | None = None
    nonfinite: int = 0


class Producer(Protocol):
    """The worker's half."""

    def produce(self, port: WorkerPort) -> None:
        """Make one record and commit it, or return early once the worker is to stop."""

    def state(self) -> bytes:
        """All that the next record depends on, but for what it pulls; for --deterministic."""

    def load_state(self, saved: bytes) -> bool:
        """Resume from what `state` gave; False, and nothing done, if its environments are not in it."""


class Consumer(Protocol):
    """The updater's half."""

    records_per_update: int  # 0: as many as wait

    @property
    def is_running(self) -> bool:
        """Whether workers step the network already, so that it is resumed as it is."""

    def accepts(self, record: Record) -> bool:
        """Whether the record's arrays and values are what this mode learns from."""

    def learned_at(self, record: Record, version: int) -> int:
        """The policy version that the record's update was applied to; `version` is the updater's."""

    def undone_version(self, published: int) -> int:
        """Where the network returns to a checkpoint: the newest policy version of before.

        `published` is the updater's.
        """

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
        """Resume from what `state` gave, with this learning rate.

        Raises `ValueError` or `KeyError` if it does not fit.
        """

    def close(self) -> None: ...


class Mode(ModeFacts, ABC):
    """A declaration. Its methods import what they need: the orchestrator reads the facts only."""

    @abstractmethod
    def record_leaves(self, config: Config, spec: EnvSpec, num_params: int) -> list[Leaf]:
        """The arrays of a record."""

    def shared_vectors(self, config: Config, params: FlatParameters) -> dict[str, int]:
        """Names and lengths of the vectors that are shared, if workers step the network there."""
        return {}

    @abstractmethod
    def make_producer(self, setup: WorkerSetup) -> Producer:
        """The worker's half."""

    @abstractmethod
    def make_consumer(self, setup: UpdaterSetup) -> Consumer:
        """The updater's half. The parameters are published already, unless `workers_step`."""


MODES = cast("dict[str, Mode]", FACTS)
