"""Configurations from and to TOML: presets, --config files, checkpoints, `python -m aa2c config`.

What is read is typed strictly: an unknown or ill-typed key is an error that names it.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import cattrs

from aa2c.config.config import Config
from aa2c.config.options import GROUPS
from aa2c.errors import ConfigError


def load_config(
    *, preset: str = "none", file: Path | None = None, flags: Mapping[str, Any] | None = None
) -> Config:
    """Resolve a configuration: defaults, then preset, then file, then flags.

    Raises `ConfigError`, which names the option and what to do.
    """
    values: dict[str, Any] = {}
    if preset != "none":
        values |= structure(_read_preset(preset), f"preset {preset}")
    if file is not None:
        values |= structure(_read_toml(file), str(file))
    return Config(**(values | dict(flags or {})))


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
    """A preset's options, on top of those of the preset that it extends, which extends none."""
    if name not in preset_names():
        raise ConfigError(f"--preset {name} does not exist{_nearest(name, preset_names())}")
    values = tomllib.loads(_preset_text(name))
    extended = values.pop("extends", None)
    return (tomllib.loads(_preset_text(extended)) if extended else {}) | values


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
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(known)}."


def structure(raw: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The options that a document sets, strictly typed. Raises `ConfigError`, which names `source`."""
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{source}: not a table of options.")
    hints = get_type_hints(Config)
    values = {}
    for key, value in raw.items():
        if key not in hints:
            raise ConfigError(f"{source}: unknown option {key!r}{_nearest(key, list(hints))}")
        if get_origin(hints[key]) is tuple and not isinstance(value, list):
            value = [value]  # one value stands for a list of one
        try:
            values[key] = _strict.structure(value, hints[key])
        except Exception as error:  # cattrs raises many kinds
            raise ConfigError(
                f"{source}: {key} = {_shown(value)} is not {_type_in_words(hints[key])}."
            ) from error
    return values


def _shown(value: Any) -> str:
    try:
        return repr(value)[:80]
    except ValueError:  # an integer of thousands of digits
        return "a huge number"


def _type_in_words(hint: Any) -> str:
    words = {
        int: "an integer",
        float: "a number",
        bool: "true or false",
        str: "a string",
        tuple[int, ...]: "a list of integers",
        tuple[float, ...]: "a number or a list of numbers",
        tuple[str, ...]: "a string or a list of strings",
    }
    if get_origin(hint) is tuple and hint not in words:
        return f"a list of {_type_in_words(hint.__args__[0])}"
    return words.get(hint) or f"one of {', '.join(map(str, hint.__args__))}"


def _strict_converter() -> cattrs.Converter:
    """A converter that takes each TOML type for itself: no "3" for 3, no true for 1."""
    converter = cattrs.Converter(forbid_extra_keys=True)

    def exactly(*types: type) -> Any:
        def structure(value: Any, wanted: Any) -> Any:
            if type(value) not in types:
                raise TypeError(f"{value!r} is not {wanted}")
            return wanted(value)

        return structure

    converter.register_structure_hook(int, exactly(int))
    converter.register_structure_hook(float, exactly(int, float))
    converter.register_structure_hook(bool, exactly(bool))
    converter.register_structure_hook(str, exactly(str))
    return converter


_strict = _strict_converter()


def to_toml(config: Config) -> str:
    """The whole configuration as TOML, in groups, with each option's help."""
    lines = []
    for group in GROUPS:
        lines.append(f"# {group.__doc__}")
        for item in fields(group):
            unit = f" [{item.metadata['unit']}]" if item.metadata["unit"] else ""
            lines.append(f"# {item.metadata['help']}{unit}")
            lines.append(f"{item.name} = {_toml_value(getattr(config, item.name))}")
        lines.append("")
    return "\n".join(lines)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):  # JSON escapes as TOML does, but for DEL
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    return repr(value)
