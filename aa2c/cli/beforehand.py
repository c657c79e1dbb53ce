"""What `serve` can know before it starts anything: that the code it is given can be imported.

An environment's module is imported in a process of its own: whatever it does there, this one lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio import Event
from asyncio.subprocess import DEVNULL, PIPE, Process

from aa2c.config.config import IMPORTING_OPTIONS, Config
from aa2c.config.factory import is_factory
from aa2c.errors import ConfigError

PATIENCE_S = 10.0  # a module that takes longer is left to the run, which has its own deadline

# What the module prints goes nowhere; the answer has a descriptor of its own.
_PROBE = """\
import json, os, sys
answer = os.dup(1)
os.dup2(2, 1)
sys.path[:], env = json.loads(sys.argv[1])
from aa2c.envs.known import say_what_is_wrong
os.write(answer, say_what_is_wrong(env).encode())
os._exit(0)
"""


async def look(config: Config, unless: Event) -> None:
    """Raise `ConfigError` for code that cannot be imported or an id that does not exist."""
    if all(getattr(config, name) == getattr(Config(), name) for name in IMPORTING_OPTIONS):
        return  # do not make the default case wait for an import
    from aa2c.envs.known import require_known

    require_known(config)
    if ":" not in config.env or is_factory(config.env):
        return
    path = [entry or os.getcwd() for entry in sys.path]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", _PROBE, json.dumps([path, config.env]),
        stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, start_new_session=True,
    )  # fmt: skip
    if said := await _answer_of(process, unless):
        raise ConfigError(said)


async def _answer_of(process: Process, unless: Event) -> str:
    """Empty if there is none in time."""
    answer = asyncio.create_task(process.communicate())
    ended = asyncio.create_task(unless.wait())
    try:
        await asyncio.wait({answer, ended}, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        return (await answer)[0].decode() if answer.done() else ""
    finally:
        ended.cancel()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await answer
