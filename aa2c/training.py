"""A run from its beginning to its end, for programs without an event loop of their own."""

from __future__ import annotations

import asyncio

from aa2c.config import Config
from aa2c.orchestrator import Orchestrator
from aa2c.status import Status


def train(config: Config) -> Status:
    """Run a training to its end; returns the last status. Raises `Aa2cError` if it fails."""

    async def run_to_end() -> Status:
        async with Orchestrator(config) as run:
            return await run.wait()

    return asyncio.run(run_to_end())
