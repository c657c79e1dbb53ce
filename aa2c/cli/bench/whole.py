"""The throughput of a whole run: the `Orchestrator` that `serve` starts, without an evaluator."""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import replace

from aa2c.config.config import Config
from aa2c.orchestrator import Orchestrator
from aa2c.run.status import ENDED_STATES

LOOK_S = 0.1
WARM_UPDATES = 3  # publications to skip: the first ones wait for the slowest worker
MOST_WARM_S = 5.0  # to skip as well: kernels are compiled, and memory is first touched


async def whole_rate(config: Config, seconds: float) -> float:
    """Env steps per second of a run with these options, after warm-up.

    Measured from one publication of parameters to another, at least `seconds` apart, because a
    batch's env steps arrive all at once. Raises `Aa2cError` if the run fails.
    """
    with tempfile.TemporaryDirectory(prefix="aa2c-bench-") as runs_dir:
        endless = replace(
            config, total_env_steps=2**53, eval_interval_s=0.0, runs_dir=runs_dir, name="bench"
        )
        async with Orchestrator(endless) as run:
            await run.ready()
            updates, warm_at = 0, time.monotonic() + min(MOST_WARM_S, seconds)
            while updates < WARM_UPDATES or time.monotonic() < warm_at:
                first, started = await _next_publication(run)
                updates += 1
            last, now = first, started
            while now - started < seconds:
                last, now = await _next_publication(run)
    return (last - first) / (now - started)


async def _next_publication(run: Orchestrator) -> tuple[int, float]:
    """Wait for a new policy version; returns the env steps so far, and the time."""
    version = run.status()["progress"]["policy_version"]
    while True:
        await asyncio.sleep(LOOK_S)
        progress = run.status()["progress"]
        if progress["policy_version"] != version:
            return progress["env_steps"], time.monotonic()
        if run.state in ("stopping", *ENDED_STATES):
            await run.wait()
