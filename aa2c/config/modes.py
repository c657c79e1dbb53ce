"""What a mode says of itself before anything heavy is imported, and the registry of modes.

A mode is declared in a place of its own, `aa2c.modes.NAME`, and registers itself there. The rest of
the package asks these facts and never for a mode's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from aa2c.config.config import Config

BALANCED = "Nobody waits much for anybody."


class ModeFacts:
    """How the workers and the updater share the work.

    `uses` are the options that belong to this mode, or to this one and some others: a mode that does
    not name such an option refuses it. `loss_in` is the role that evaluates the loss. Where
    `workers_step`, they step one network in shared memory themselves, one at a time in lock-step,
    and the updater only counts. `losses` are the parts of the loss that an update tells, and
    `advice` is a sentence on each bottleneck, with {share} for the share of the waiting.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    uses: ClassVar[frozenset[str]] = frozenset()
    update_orders: ClassVar[tuple[str, ...]] = ("fifo",)
    loss_in: ClassVar[Literal["worker", "updater"]] = "worker"
    workers_step: ClassVar[bool] = False
    losses: ClassVar[tuple[str, ...]] = ("policy", "value", "entropy", "grad_norm")
    advice: ClassVar[Mapping[str, str]] = {"balanced": BALANCED}

    def check(self, config: Config) -> None:
        """Raise `ConfigError` for what this mode cannot do."""

    def least_workers(self, config: Config) -> int:
        """Fewer could not make one update."""
        return 1


FACTS: dict[str, ModeFacts] = {}
"""All modes by name, in the order in which they were declared."""


def register(mode: ModeFacts) -> None:
    """Make a mode known by its name."""
    FACTS[mode.name] = mode


def about_modes() -> str:
    """What each mode is, in one line."""
    return "; ".join(f"{mode.name}: {mode.about}" for mode in FACTS.values())
