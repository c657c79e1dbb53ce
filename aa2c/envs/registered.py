"""Environments that exist only in the program that starts a run, brought to its processes.

`registered_here` runs in the orchestrator and imports nothing; the rest runs where environments are
made.
"""

from __future__ import annotations

import dataclasses
import pickle
import re
import sys
from collections.abc import Mapping
from typing import Any

from aa2c.config.factory import Factory, factory_of, is_factory, pickled
from aa2c.errors import ConfigError

KNOWN_EVERYWHERE = ("gymnasium.", "ale_py.")  # modules whose ids are registered by importing them
_MAINS = ("__main__", "__mp_main__")


def registered_here(env: str) -> dict[str, bytes]:
    """The ids that this program has registered, as far as they can be pickled.

    But for that of `module:id`, which importing the module registers. Raises `ConfigError` if `env`
    cannot be pickled.
    """
    gymnasium = sys.modules.get("gymnasium")
    module, _, wanted = env.rpartition(":")
    found = {}
    for env_id, spec in list(getattr(gymnasium, "registry", {}).items()):
        if _is_known_everywhere(spec) or (env_id == wanted and module not in ("", *_MAINS)):
            continue
        try:
            found[env_id] = pickled(_without_main(spec))
        except Exception as error:  # of other ids nobody may ever ask
            if env_id == wanted:
                raise ConfigError(not_sent("--env", env, error)) from error
    return found


def not_sent(flag: str, name: str, error: Exception) -> str:
    """The sentence for code that stays where it is."""
    return (
        f"{flag} {name} cannot be sent to the processes of a run: {type(error).__name__}: "
        f"{' '.join(str(error).split())}; let it make what it needs itself, or put it into a module."
    )


def _is_known_everywhere(spec: Any) -> bool:
    entry_points = (spec.entry_point, spec.vector_entry_point)
    return all(
        at is None or (isinstance(at, str) and at.startswith(KNOWN_EVERYWHERE))
        for at in entry_points
    )


def _without_main(spec: Any) -> Any:
    """The same spec with the class itself for "__main__:MyEnv": there, __main__ is another."""
    changes = {}
    for name in ("entry_point", "vector_entry_point"):
        module, _, attribute = str(getattr(spec, name)).partition(":")
        if isinstance(getattr(spec, name), str) and module in _MAINS:
            changes[name] = getattr(sys.modules["__main__"], attribute)
    return dataclasses.replace(spec, **changes) if changes else spec


def register(registered: Mapping[str, bytes]) -> None:
    """Know the ids of the program that started the run."""
    from gymnasium import registry

    known = {}  # apart at first: what loads imports may register ids, too, and none twice
    for env_id, spec in registered.items():
        try:
            known[env_id] = pickle.loads(spec)
        except Exception as error:  # one that is needed will be missed by its name
            print(f"{env_id} cannot be registered: {error!r}", file=sys.stderr)
    registry.update(known)


def known_to_gymnasium(env: str) -> str:
    """What to ask Gymnasium for: the value of --env, or an id under which its code is registered.

    Raises `ConfigError` where that code is missing, and whatever unpickling it does.
    """
    if not is_factory(env):
        return env
    from gymnasium import register as register_id
    from gymnasium import registry

    factory = factory_of("--env", env)
    env_id = "aa2c/" + re.sub(r"[^\w.-]", "", env)
    registry.pop(env_id, None)  # of another one of this name, in a program that makes several
    register_id(env_id, entry_point=_entry_point(factory))
    return env_id


def _entry_point(factory: Factory) -> Any:
    """A plain function for what Gymnasium could not copy, such as a partial of a simulator."""
    make = factory.load()
    return make if isinstance(make, type) else lambda **options: make(**options)
