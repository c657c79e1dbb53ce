"""The values of options: converted to their types, and held to their bounds.

The one converter of `Config(...)`, TOML, checkpoints and the command line. NumPy's and torch's
numbers are known by what they can do, so that nothing heavy is imported.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import operator
import os
import reprlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_args, get_origin

from aa2c.config.kwargs import Kwargs, NotPlain, read_kwargs

MOST_CHARACTERS = 4096
MOST_ITEMS = 1024  # of a list

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 80


def converted(value: Any, hint: Any) -> Any:
    """The value as an option of this type has it, of Python's own types only.

    Raises `ValueError`, with the value and what it is not.
    """
    try:
        return _converted(value, hint)
    except NotPlain:
        raise
    except Exception as error:  # whatever a stranger's object raises when it is asked
        wrong = f"{shown(value)} is not {_in_words(hint)}"
        lone = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
        near = nearest(lone, _choices(hint)) if isinstance(lone, str) else ""
        raise ValueError(wrong + (near or ".")) from error


def _converted(value: Any, hint: Any) -> Any:
    if hint is not Kwargs and hasattr(type(value), "tolist"):  # arrays, tensors and their scalars
        value = value.tolist()
    if get_origin(hint) is tuple:
        several = isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)
        items = list(value) if several else [value]  # one value stands for a list of one
        (kind, _) = get_args(hint)
        if kind in (int, float):  # "64,64"
            parts = (item.split(",") if isinstance(item, str) else [item] for item in items)
            items = [item for part in parts for item in part]
        if len(items) > MOST_ITEMS:
            raise ValueError
        return tuple(_converted(item, kind) for item in items)
    if hint in _CONVERTERS:
        return _CONVERTERS[hint](value)
    text = _string(value)
    if text not in get_args(hint):
        raise ValueError
    return text


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _int(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:  # "1e6"
            value = float(value)
    if hasattr(value, "__index__"):
        return operator.index(value)
    number = _float(value)
    if not number.is_integer():
        raise ValueError
    return int(number)


def _float(value: Any) -> float:
    if isinstance(value, bool | bytes | bytearray):
        raise TypeError
    return float(value) + 0.0  # and no -0.0


def _string(value: Any) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise TypeError
    return str.__str__(value)  # a member of an enum of strings is its string


_CONVERTERS: dict[Any, Callable[[Any], Any]] = {
    bool: _bool,
    int: _int,
    float: _float,
    str: _string,
    Kwargs: read_kwargs,
}


def _choices(hint: Any) -> list[str]:
    """Of a Literal, or a tuple of them; none of other types."""
    if get_origin(hint) is tuple:
        return _choices(get_args(hint)[0])
    return list(get_args(hint))


def _in_words(hint: Any) -> str:
    words = {
        int: "an integer",
        float: "a number",
        bool: "true or false",
        str: "a string",
        Kwargs: "a table",
        tuple[int, ...]: "a list of integers",
        tuple[float, ...]: "a number or a list of numbers",
        tuple[str, ...]: "a string or a list of strings",
    }
    if get_origin(hint) is tuple and hint not in words:
        return f"a list of {_in_words(get_args(hint)[0]).replace('one of', 'any of')}"
    return words.get(hint) or f"one of {', '.join(_choices(hint))}"


def broken_bound(item: dataclasses.Field[Any], value: Any) -> str:
    """What is wrong with an option's value, of the right type; empty if nothing is."""
    minimum, maximum = item.metadata["minimum"], item.metadata["maximum"]
    unit = f" {item.metadata['unit']}" if item.metadata["unit"] else ""
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, str) and not _is_writable(number):
            return "has characters that cannot be written to a file."
        if isinstance(number, str) and len(number) > MOST_CHARACTERS:
            return f"is longer than {MOST_CHARACTERS} characters."
        if isinstance(number, float) and not math.isfinite(number):
            return "is not a finite number."
        if minimum is not None and number < minimum:
            return f"{shown(number)} must be at least {minimum}{unit}."
        if maximum is not None and number > maximum:
            return f"{shown(number)} must be at most {maximum}{unit}."
    return ""


def _is_writable(text: str) -> bool:
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: Any) -> str:
    """A value in a few characters."""
    try:
        return _repr.repr(value)
    except Exception:  # an integer of thousands of digits, or a repr that raises
        return f"this {type(value).__name__}"


def nearest(name: str, known: Iterable[str], cutoff: float = 0.4) -> str:
    """The known name that was meant; empty if none is alike, by `cutoff` or more of 1."""
    near = difflib.get_close_matches(name[:MOST_CHARACTERS], list(known), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""


def flag(name: str) -> str:
    """The command line's spelling of an option."""
    return "--" + name.replace("_", "-")
