"""A whole run, measured: the same `Orchestrator` that `serve` starts, without an evaluator."""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import replace

from aa2c.config.config import Config
from aa2c.orchestrator import Orchestrator

LOOK_S = 0.1
WARM_UPDATES = 3  # publications before it counts: the first ones wait for the slowest worker
MOST_WARM_S = 5.0  # as well: kernels are compiled, and memory is touched for the first time


async def whole_rate(config: Config, seconds: float) -> float:
    """Env steps a second of a run with these options, once it is under way.

    It is measured from one publication of parameters to another, `seconds` or a little more
    apart, because a batch's env steps come all at once. Raises `Aa2cError` if the run fails.
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
    """Wait for a new policy version; the env steps taken by then, and when that was."""
    version = run.status()["progress"]["policy_version"]
    while True:
        await asyncio.sleep(LOOK_S)
        progress = run.status()["progress"]
        if progress["policy_version"] != version:
            return progress["env_steps"], time.monotonic()
        if run.state in ("stopping", "finished", "failed"):
            await run.wait()
