"""What a mode declares before anything heavy is imported, and the registry of modes.

Each mode lives in a package of its own, `aa2c.modes.NAME`, and registers itself there. The rest of
the package reads these facts and never tests a mode's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from aa2c.config.config import Config

BALANCED = "Neither the workers nor the updater wait much."


class ModeFacts:
    """How the workers and the updater share the work.

    `uses` are the mode-specific options that this mode uses; it refuses those that only other modes
    use. `loss_in` is the role that evaluates the loss. With `workers_step`, workers step one network
    in shared memory themselves (one at a time in lock-step), and the updater only counts. `losses`
    are the loss terms that an update reports, and `diagnostics` what it tells beside them, where that
    is known, of how learning goes. `advice` has a sentence for each bottleneck, with
    {share} for the share of time spent waiting.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    uses: ClassVar[frozenset[str]] = frozenset()
    update_orders: ClassVar[tuple[str, ...]] = ("fifo",)
    loss_in: ClassVar[Literal["worker", "updater"]] = "worker"
    workers_step: ClassVar[bool] = False
    losses: ClassVar[tuple[str, ...]] = ("policy", "value", "entropy", "grad_norm")
    diagnostics: ClassVar[tuple[str, ...]] = ("explained_variance", "grad_share")
    advice: ClassVar[Mapping[str, str]] = {"balanced": BALANCED}

    def check(self, config: Config) -> None:
        """Raise `ConfigError` for options that do not fit together in this mode."""

    def least_workers(self, config: Config) -> int:
        """The number of workers below which not even one update could be made."""
        return 1


FACTS: dict[str, ModeFacts] = {}
"""All modes by name, in order of declaration."""


def register(mode: ModeFacts) -> None:
    """Add a mode to `FACTS`."""
    FACTS[mode.name] = mode


def about_modes() -> str:
    """What each mode is, in one line."""
    return "; ".join(f"{mode.name}: {mode.about}" for mode in FACTS.values())
