"""Runs that differ in nothing but their seeds, as repetitions of one configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aa2c.config.config import Config
from aa2c.config.options import HttpOptions, TrackingOptions
from aa2c.config.toml import toml_value
from aa2c.report.reading import Floats, Run

# They say which repetition a run is, where it is kept, and who may look at it.
_INCIDENTAL = {"seed", "name", "runs_dir"} | {
    item.name for group in (HttpOptions, TrackingOptions) for item in dataclasses.fields(group)
}
COMPARED = tuple(item.name for item in dataclasses.fields(Config) if item.name not in _INCIDENTAL)
LONGEST_NAME = 50
NOT_USED = "–"  # by the mode
GRID = 400  # points of a mean over runs

Curve = tuple[Floats, Floats]  # env steps, rising, and values


@dataclass(frozen=True, eq=False)
class Group:
    """The runs of one configuration, in the order in which they were named."""

    name: str
    runs: tuple[Run, ...]

    @property
    def config(self) -> Config:
        """That of the first run."""
        return self.runs[0].config

    @property
    def is_repeated(self) -> bool:
        """Whether there is anything to average over."""
        return len(self.runs) > 1


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """The runs by configuration, in the order of their first ones."""
    found: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        key = tuple(toml_value(getattr(run.config, name)) for name in COMPARED)
        found.setdefault(key, []).append(run)
    groups = [Group("", tuple(members)) for members in found.values()]
    telling = _telling(differences(groups))
    return [
        dataclasses.replace(group, name=_name_of(i, group, telling))
        for i, group in enumerate(groups)
    ]


def differences(groups: Sequence[Group]) -> dict[str, list[str]]:
    """The options that are not the same in all groups, each with its value in every one, as in TOML."""
    configs = [group.config for group in groups]
    return {
        name: [
            toml_value(getattr(config, name)) if config.uses(name) else NOT_USED
            for config in configs
        ]
        for name in COMPARED
        if len({toml_value(getattr(config, name)) for config in configs}) > 1
    }


def _telling(differing: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """As few of the options that differ as tell the configurations apart, the first ones first."""
    told: dict[str, Sequence[str]] = {}
    for name, values in differing.items():
        told[name] = values
        if len(set(zip(*told.values(), strict=True))) == len(values):
            break
    return told


def _name_of(index: int, group: Group, telling: Mapping[str, Sequence[str]]) -> str:
    """A lone run's own name; of several what tells them apart, or else the first one's name."""
    if not group.is_repeated:
        return group.runs[0].name
    options = {"env": group.config.env_name, "mode": group.config.mode}
    told = {name: values[index].strip('"') for name, values in telling.items()} or options
    name = ", ".join(f"{option} {value}" for option, value in told.items())
    if len(name) <= LONGEST_NAME:
        return f"{name} ({len(group.runs)} runs)"
    return f"{group.runs[0].name} and {len(group.runs) - 1} more"


def mean_over(curves: Sequence[Curve]) -> tuple[Floats, Floats, Floats]:
    """Env steps, mean and std of several curves, where all of them are known; empty if nowhere."""
    known = [(x, y) for x, y in curves if len(x)]
    low = max((x[0] for x, _ in known), default=0.0)
    high = min((x[-1] for x, _ in known), default=-1.0)
    if len(known) < 2 or low > high:
        return np.empty(0), np.empty(0), np.empty(0)
    grid = np.linspace(low, high, GRID)
    values = np.array([np.interp(grid, x, y) for x, y in known])
    return grid, values.mean(axis=0), values.std(axis=0, ddof=1)
