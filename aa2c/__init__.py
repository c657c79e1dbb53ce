"""aa2c trains actor-critic agents on one host with many processes, asynchronously.

`Orchestrator` and `Config` embed a run in an asyncio program, `train` runs one to its end, and
`load_policy` reads what was learned. Importing this package imports no torch.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aa2c.config import Config, load_config
from aa2c.errors import Aa2cError, ConfigError, RunFailed, StartError
from aa2c.orchestrator import Orchestrator
from aa2c.version import __version__

if TYPE_CHECKING:
    from aa2c.checkpoint import load_policy

__all__ = [
    "Aa2cError",
    "Config",
    "ConfigError",
    "Orchestrator",
    "RunFailed",
    "StartError",
    "__version__",
    "load_config",
    "load_policy",
    "train",
]


def train(config: Config) -> dict[str, Any]:
    """Run a training to its end; returns the last status. Raises `Aa2cError` if it fails."""

    async def run_to_end() -> dict[str, Any]:
        async with Orchestrator(config) as run:
            return await run.wait()

    return asyncio.run(run_to_end())


def __getattr__(name: str) -> Any:
    if name == "load_policy":  # late, because it needs torch
        from aa2c.checkpoint import load_policy

        return load_policy
    raise AttributeError(f"module 'aa2c' has no attribute {name!r}")
