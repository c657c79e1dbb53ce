"""An option of a run, or a flag of a command: a dataclass field with its help, unit and bounds."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Any, TypeVar

from aa2c.config.modes import about_modes

T = TypeVar("T")

LONGEST_S = 10**6  # poll() counts milliseconds in 31 bits


def option(
    default: T,
    help: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    live: bool = False,
    basic: bool = False,
) -> T:
    """A field with its unit, help and inclusive bounds; a `live` one may change during a run.

    Each live option has a word in the orchestrator's row of counters. `basic` ones are in the short
    --help.
    """
    metadata = {
        "help": help, "unit": unit, "minimum": minimum, "maximum": maximum, "live": live,
        "basic": basic,
    }  # fmt: skip
    result: T = field(default=default, metadata=metadata)
    return result


def seconds(
    default: float, help: str, *, minimum: float = 1, live: bool = False, basic: bool = False
) -> float:
    """A duration, bounded so that no clock or wait overflows."""
    return option(
        default, help, unit="s", minimum=minimum, maximum=LONGEST_S, live=live, basic=basic
    )


def help_of(item: dataclasses.Field[Any]) -> str:
    """An option's help text, with its unit."""
    help: str = item.metadata["help"]
    unit = item.metadata["unit"]
    more = f"; {about_modes()}" if item.name == "mode" else ""
    return help + more + (f" [{unit}]" if unit else "")
