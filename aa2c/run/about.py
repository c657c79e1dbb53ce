"""What the page tells of a run beyond its numbers: its options, the commands for it, its log.

Runs in the orchestrator; read when a page asks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from functools import cache
from pathlib import Path
from typing import Any

from aa2c.config.config import Config
from aa2c.config.option import help_of
from aa2c.config.options import GROUPS
from aa2c.config.toml import load_config, preset_names, toml_value
from aa2c.errors import ConfigError
from aa2c.log import readable
from aa2c.run.files import last_rows
from aa2c.run.quantities import QUANTITIES

LOG_LINES = 200
COMMANDS = {"resume": "serve --resume", "evaluate": "eval", "report": "report"}


def about(config: Config, run_dir: Path) -> dict[str, Any]:
    """What /about serves: the run's options beside those of the recipe that is nearest to them."""
    recipe = _nearest_recipe(config)
    there = _with_workers(recipe, config)
    options = [
        _option(item, getattr(config, item.name), there[item.name])
        for group in GROUPS
        for item in dataclasses.fields(group)
        if config.uses(item.name)
    ]
    where = shlex.quote(str(run_dir))
    commands = {name: f"python -m aa2c {words} {where}" for name, words in COMMANDS.items()}
    told = {"dir": str(run_dir), "recipe": recipe, "options": options, "commands": commands}
    return told | {"readings": readings()}


def readings() -> dict[str, str]:
    """What each series of a chart is, and what a practitioner reads from it."""
    return {q.name: f"{q.help} {q.reading}" for q in QUANTITIES if q.series and q.reading}


def _option(item: dataclasses.Field[Any], value: Any, recipes: Any) -> dict[str, Any]:
    return {
        "name": item.name,
        "help": help_of(item),
        "value": toml_value(value),
        "recipe": toml_value(recipes) if value != recipes else None,
    }


def _with_workers(name: str, config: Config) -> dict[str, Any]:
    """The recipe's options; those that follow from the number of workers as they are with the run's."""
    own = vars(_recipes(config.mode)[name])
    with contextlib.suppress(ConfigError):  # not every recipe fits every number
        followed = vars(load_config(preset=name, flags={"workers": config.workers}))
        return followed | {"workers": own["workers"]}
    return own


@cache
def _recipes(mode: str) -> dict[str, Config]:
    """The mode's presets, its general recipe first; the defaults if it has none."""
    names = [name for name in preset_names() if name.startswith(f"{mode}/")]
    names.sort(key=lambda name: not name.endswith("/vector"))
    return {name: load_config(preset=name) for name in names or ["none"]}


def _nearest_recipe(config: Config) -> str:
    """The preset from which the fewest options differ: a run does not keep which one it began with."""

    def distance(other: Config) -> int:
        names = [item.name for item in dataclasses.fields(Config)]
        return sum(getattr(config, name) != getattr(other, name) for name in names)

    recipes = _recipes(config.mode)
    return min(recipes, key=lambda name: distance(recipes[name]))


def log_tail(run_dir: Path) -> dict[str, Any]:
    """What /log serves: the newest lines of log.jsonl, of all processes and levels."""
    lines: list[dict[str, Any]] = []
    for event in last_rows(run_dir / "log.jsonl"):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            told = {"time": event["timestamp"], "level": event["level"]}
            text = readable(event, with_prefix=False)
            lines.append(told | {"process": event.get("process"), "text": text})
        if len(lines) == LOG_LINES:
            break
    return {"lines": lines[::-1]}
