"""Whether what --env, --wrapper, --vector and --network name is there, before anything is started.

Nothing is made. `require_known` imports no code that is not there already; `say_what_is_wrong` does, and
so runs in a process of its own.
"""

from __future__ import annotations

import importlib.util
import sys

from aa2c.config.config import IMPORTING_OPTIONS, Config, codes, flag
from aa2c.config.factory import is_factory
from aa2c.envs.failure import explain_failures
from aa2c.envs.find import find_env
from aa2c.errors import Aa2cError, ConfigError


def require_known(config: Config) -> None:
    """Raise `ConfigError` for an id that does not exist, or a module that is not there.

    Of a module that this program has not imported the ids are not known.
    """
    for name in IMPORTING_OPTIONS:
        for code in codes(getattr(config, name)):
            module = code.partition(":")[0].partition(".")[0] if ":" in code else "sys"
            if not is_factory(code) and module not in sys.modules and not _is_there(module):
                raise ConfigError(
                    f"{flag(name)} {code} cannot be imported: there is no module {module} here or "
                    "among the installed packages."
                )
    module = config.env.rpartition(":")[0]
    if not is_factory(config.env) and (not module or module in sys.modules):
        _find(config)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _find(config: Config) -> None:
    try:
        with explain_failures(config.env_flags):
            find_env(config)
    except Aa2cError as error:
        raise ConfigError(str(error)) from error


def say_what_is_wrong(env: str) -> str:
    """Why the module of `module:id` cannot be imported, or has no such id; empty if all is well."""
    try:
        _find(Config(env=env))
    except ConfigError as error:
        return str(error)
    return ""
