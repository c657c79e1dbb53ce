"""Environments and networks that are given as a class or a function, not by a name to import.

Their code exists only in the program that runs: it travels to that run's processes, with cloudpickle,
and nowhere else. Configurations, checkpoints and pages have its name, with "()" behind it.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Callable
from typing import Any

from aa2c.errors import ConfigError

Maker = str | Callable[..., Any]  # of an environment or a network: its name, or itself
MARK = "()"  # no Gymnasium id and no package.module:function ends so


class Factory(str):
    """A class or function that makes an environment or a network; as a string, what it is called."""

    _call: Callable[..., Any] | None
    _pickled: bytes

    def __new__(
        cls, name: str, call: Callable[..., Any] | None = None, pickled: bytes = b""
    ) -> Factory:
        self = super().__new__(cls, name)
        self._call, self._pickled = call, pickled
        return self

    @classmethod
    def of(cls, call: Callable[..., Any]) -> Factory:
        """The class or function, under its qualified name."""
        return call if isinstance(call, Factory) else cls(_qualified_name(call) + MARK, call)

    def load(self) -> Callable[..., Any]:
        """The class or function; in another process it is unpickled here, which may raise anything."""
        if self._call is None:
            self._call = pickle.loads(self._pickled)
        return self._call

    def packed(self) -> Factory:
        """As it is now, for all processes of a run. Raises what pickling it does."""
        return Factory(
            self, self._call, self._pickled if self._call is None else pickled(self._call)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Factory, (str(self), None, self._pickled or pickled(self._call))

    def __deepcopy__(self, memo: Any) -> Factory:
        return self


def _qualified_name(call: Any) -> str:
    for what in (call, getattr(call, "func", None), type(call)):  # a partial has its func
        if name := getattr(what, "__qualname__", ""):
            return str(name)
    raise TypeError(f"{call!r} has no name")  # but every type has one


def pickled(value: Any) -> bytes:
    """By value, where it lives in the program itself and cannot be imported. Raises anything."""
    import cloudpickle

    spawned = sys.modules.get("__mp_main__")  # what __main__ is called in a process of a pool
    if spawned is not None:
        cloudpickle.register_pickle_by_value(spawned)
    data: bytes = cloudpickle.dumps(value)
    return data


def is_factory(name: str) -> bool:
    """Whether an option's value names a class or function of a program."""
    return name.endswith(MARK)


def load_code(flag: str, name: str) -> Callable[..., Any]:
    """What `package.module:name` names, or the class or function itself. Raises anything."""
    if isinstance(name, Factory) or is_factory(name):
        return factory_of(flag, name).load()
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


def factory_of(flag: str, name: str) -> Factory:
    """The value itself, if the code is there. Raises `ConfigError` where only its name is."""
    if isinstance(name, Factory):
        return name
    raise ConfigError(
        f"{flag} {name} is a class or function of the program that trained it, which no file holds: "
        f"pass it again in Python, as {flag.removeprefix('--')}=..."
    )
