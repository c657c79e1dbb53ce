"""What an environment's own code raises, in one sentence with the file and line to look at."""

from __future__ import annotations

import inspect
import sysconfig
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym

from aa2c.errors import Aa2cError, RunFailed, StartError

ENV_ERRORS = (Exception, SystemExit)
"""What third-party code may raise; an exit often carries the only explanation there is."""

_OURS = (str(Path(__file__).parents[1]), str(Path(gym.__file__).parent))
_STDLIB = sysconfig.get_paths()["stdlib"]
_INSTALLED = tuple(sysconfig.get_paths()[name] for name in ("purelib", "platlib"))


class Unusable(Exception):
    """What an environment returned is not what Gymnasium asks of it; says what and the remedy."""


@contextmanager
def explain_failures(flags: str) -> Iterator[None]:
    """Turn whatever an environment's own code raises into a `StartError` of one sentence.

    `flags` say how it is made, such as `Config.env_flags`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Gymnasium's advice on versions
            yield
    except Aa2cError:
        raise
    except ENV_ERRORS as error:
        raise StartError(f"{flags} cannot be made: {one_line(error)}{_at(error)}") from error


def failed_call(flag: str, env: Any, call: str, error: BaseException) -> RunFailed:
    """What to raise when `call` of the environment failed, or returned what is `Unusable`.

    `flag` says which environment, such as `Config.env_flag`.
    """
    if isinstance(error, Unusable):
        return RunFailed(f"{flag}: {call}() {error}{_defined_at(env, call)}")
    at = _at(error) or _defined_at(env, call)
    return RunFailed(f"{flag}: {call}() raised {one_line(error)}{at}")


def one_line(error: BaseException) -> str:
    """What kind of error it is and what it says, without line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def shown(value: Any) -> str:
    """A value in one line of a few words."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _at(error: BaseException) -> str:
    """The innermost line of the user's own code; without such, of an installed package."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in reversed(frames) if not f.filename.startswith((*_OURS, "<"))]
    installed = [f for f in theirs if f.filename.startswith(_INSTALLED)]
    own = [f for f in theirs if f not in installed and not f.filename.startswith(_STDLIB)]
    for frame in (*own, *installed):
        return f" ({frame.filename}:{frame.lineno}, in {frame.name})"
    return ""


def _defined_at(env: Any, call: str) -> str:
    try:
        method = getattr(type(env.unwrapped), call)
        return f" ({inspect.getsourcefile(method)}:{inspect.getsourcelines(method)[1]})"
    except (AttributeError, OSError, TypeError):
        return ""
