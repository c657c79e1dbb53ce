"""Configurations from and to TOML: presets, --config files, checkpoints, `python -m aa2c config`.

What is read is converted as `Config(...)` converts: an unknown or ill-typed key is an error that
names it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any

from aa2c.config.config import Config, option_types
from aa2c.config.modes import require_used
from aa2c.config.option import help_of
from aa2c.config.options import GROUPS
from aa2c.config.peers import meant
from aa2c.config.values import converted, nearest
from aa2c.errors import ConfigError


def load_config(
    *, preset: str = "none", file: Path | None = None, flags: Mapping[str, Any] | None = None
) -> Config:
    """Resolve a configuration: defaults, then preset, then file, then flags.

    Raises `ConfigError`, which names the option and what to do. A flag that the mode does not use is
    refused whatever its value; a file may hold all options, with their defaults.
    """
    values: dict[str, Any] = {}
    if preset != "none":
        values |= structure(_read_preset(preset), f"preset {preset}")
    if file is not None:
        values |= structure(_read_toml(file), str(file))
    config = Config(**(values | dict(flags or {})))
    for name in flags or {}:
        require_used(name, config.mode)
    return config


def preset_names() -> list[str]:
    """The presets that ship with the package."""
    root = resources.files("aa2c.config") / "presets"
    return sorted(
        f"{folder.name}/{file.name.removesuffix('.toml')}"
        for folder in root.iterdir()
        if folder.is_dir()
        for file in folder.iterdir()
        if file.name.endswith(".toml")
    )


def preset_says(name: str) -> str:
    """The first paragraph of a preset's comment."""
    lines = []
    for line in _preset_text(name).splitlines():
        if not line.startswith("# "):
            break
        lines.append(line.removeprefix("# "))
    return " ".join(lines)


def _read_preset(name: str) -> dict[str, Any]:
    """A preset's options, on top of those of the preset that it extends."""
    if name not in preset_names():
        raise ConfigError(f"--preset {name} does not exist{_nearest(name, preset_names())}")
    values = tomllib.loads(_preset_text(name))
    extended = values.pop("extends", None)
    return (_read_preset(extended) if extended else {}) | values


def _preset_text(name: str) -> str:
    return (resources.files("aa2c.config") / "presets" / f"{name}.toml").read_text()


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"--config {path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--config {path} is not TOML: {error}.") from None


def _nearest(name: str, known: list[str]) -> str:
    return nearest(name, known) or f"; there are: {', '.join(known)}."


def structure(raw: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The options that a document sets, with their types. Raises `ConfigError`, which names `source`."""
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{source}: not a table of options.")
    types = option_types()
    values = {}
    for key, value in raw.items():
        if key not in types:
            near = meant(key, types) or _nearest(key, list(types))
            raise ConfigError(f"{source}: unknown option {key!r}{near}")
        try:
            values[key] = converted(value, types[key])
        except ValueError as error:
            raise ConfigError(f"{source}: {key} = {error}") from None
    return values


def to_toml(config: Config) -> str:
    """The whole configuration as TOML, in groups, with each option's help."""
    lines = []
    for group in GROUPS:
        lines.append(f"# {group.__doc__}")
        for item in fields(group):
            lines.append(f"# {help_of(item)}")
            lines.append(f"{item.name} = {toml_value(getattr(config, item.name))}")
        lines.append("")
    return "\n".join(lines)


def toml_value(value: Any) -> str:
    """An option's value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):  # JSON escapes as TOML does, but for DEL
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        pairs = (f"{toml_value(name)} = {toml_value(item)}" for name, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(toml_value, value))}]"
    return repr(value)
