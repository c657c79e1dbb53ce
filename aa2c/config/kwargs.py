"""Keyword arguments of an environment, as TOML, JSON, the command line and Python give them.

Everywhere they are what TOML can write, so that a checkpoint repeats them exactly.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MOST_BYTES = 65536
MOST_DEPTH = 16
_INTEGERS = 2**63  # TOML's are of 64 bits
_PYTHONS = {"True": True, "False": False}
_NOTHINGS = ("None", "null")


class NotPlain(ValueError):
    """A keyword argument that no file could hold; says which, and what could."""


class Kwargs(dict[str, Any]):
    """Keyword arguments by name. Never changed, and so a field's default."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(json.dumps(self, sort_keys=True))

    def words(self) -> list[str]:
        """As the command line has them, `name=value` each."""
        return [f"{name}={_literal(value)}" for name, value in self.items()]

    def __str__(self) -> str:
        return " ".join(self.words())


def read_kwargs(given: Any) -> Kwargs:
    """Of a mapping, or of words `name=value`. Raises `NotPlain`."""
    if isinstance(given, str):
        given = [given]
    pairs = given.items() if isinstance(given, Mapping) else map(_parse, _several(given))
    made = Kwargs()
    for name, value in pairs:
        if not isinstance(name, str) or not name.isidentifier():
            raise NotPlain(f"{name!r} is no name of an argument.")
        try:
            made[name] = _plain(value, MOST_DEPTH)
        except ValueError as error:
            raise NotPlain(f"{name} {error}") from None
    if len(json.dumps(made)) > MOST_BYTES:
        raise NotPlain(f"is longer than {MOST_BYTES} bytes.")
    return made


def _several(given: Any) -> Iterable[Any]:
    if isinstance(given, Sequence) and not isinstance(given, bytes | bytearray):
        return given
    raise NotPlain("is no table of names and values.")


def _parse(word: Any) -> tuple[str, Any]:
    """`name=value`, of which the value is JSON or TOML, and text if it is neither."""
    name, equals, text = word.partition("=") if isinstance(word, str) else ("", "", "")
    if not equals:
        raise NotPlain(f"{word!r} is not name=value.")
    if text in _NOTHINGS:
        raise NotPlain(f"{name} cannot be {text}: leave it out.")
    return name.strip(), _PYTHONS.get(text, _read(text))


def _read(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda constant: constant)
    except (ValueError, RecursionError):
        pass
    try:
        (value,) = tomllib.loads(f"x = {text}").values()
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, bool | int | float | str | list | dict) else text


def _plain(value: Any, depth: int) -> Any:
    if hasattr(type(value), "tolist"):  # arrays and their scalars
        value = value.tolist()
    match value:
        case bool():
            return value
        case int() if -_INTEGERS <= value < _INTEGERS:
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case str() if "\0" not in value:
            value.encode()
            return str.__str__(value)
        case list() | tuple() if depth:
            return [_plain(item, depth - 1) for item in value]
        case Mapping() if depth and all(isinstance(name, str) for name in value):
            return {str(name): _plain(item, depth - 1) for name, item in value.items()}
    raise ValueError(
        "must be text, a finite number, true or false, or a list or table of these: anything else is for "
        "a function that makes the environment."
    )


def _literal(value: Any) -> str:
    """A value that `_parse` reads as the same one."""
    if isinstance(value, str) and value not in (*_NOTHINGS, *_PYTHONS) and _read(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)
