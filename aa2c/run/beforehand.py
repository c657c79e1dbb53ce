"""What a run can know before it starts anything: packages, ids, and code that is to be imported.

An environment's module that this program has not imported is imported in a process of its own:
whatever it does there, this one lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process

from aa2c.config.config import IMPORTING_OPTIONS, Config
from aa2c.config.factory import is_factory
from aa2c.errors import ConfigError
from aa2c.run.requirements import check_requirements

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


def require_possible(config: Config) -> None:
    """Raise `ConfigError` for a missing package or module, or an id that does not exist."""
    check_requirements(config)
    if all(getattr(config, name) == getattr(Config(), name) for name in IMPORTING_OPTIONS):
        return  # do not make the default case wait for an import
    from aa2c.envs.known import require_known

    require_known(config)


async def require_importable(config: Config) -> None:
    """Raise `ConfigError` for an environment's module that fails, or has no such id."""
    module, colon, _ = config.env.rpartition(":")
    if not colon or is_factory(config.env) or module in sys.modules:
        return
    path = [entry or os.getcwd() for entry in sys.path]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", _PROBE, json.dumps([path, config.env]),
        stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, start_new_session=True,
    )  # fmt: skip
    if said := await _answer_of(process):
        raise ConfigError(said)


async def _answer_of(process: Process) -> str:
    """Empty if there is none in time."""
    answer = asyncio.create_task(process.communicate())
    try:
        await asyncio.wait({answer}, timeout=PATIENCE_S)
        return (await answer)[0].decode() if answer.done() else ""
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and what the module has started
        await answer
