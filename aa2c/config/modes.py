"""What a mode declares before anything heavy is imported, and the registry of modes.

Each mode lives in a package of its own, `aa2c.modes.NAME`, and registers itself there. The rest of
the package reads these facts and never tests a mode's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from aa2c.config.values import flag
from aa2c.errors import ConfigError

if TYPE_CHECKING:
    from aa2c.config.config import Config

BALANCED = "Neither the workers nor the updater wait much."
WATCHED = ("entropy", "approx_kl", "explained_variance", "grad_share")
"""Quantities of which the updater keeps the sum over all batches, and of how many it is."""


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


def require_used(option: str, mode: str) -> None:
    """Raise `ConfigError` for an option that only other modes use: none is ignored silently."""
    users = [name for name, facts in FACTS.items() if option in facts.uses]
    if users and option not in FACTS[mode].uses:
        raise ConfigError(
            f"{flag(option)} needs --mode {' or '.join(users)}: --mode {mode} does not use it."
        )


def about_modes() -> str:
    """What each mode is, in one line."""
    return "; ".join(f"{mode.name}: {mode.about}" for mode in FACTS.values())
