"""What the link to a host on a Ray cluster carries, and the CPU time that it takes at both ends: for `bench`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from aa2c.config.config import Config
from aa2c.host.cluster.ray import RayCluster, RayLink, given
from aa2c.host.usage import cpu_s_and_rss

FRAME = bytes(300)  # about as long as one of a run
WARM_CALLS = 10


class LinkProbe:
    """An actor on a node, which answers as a host does."""

    def __init__(self, record_bytes: int) -> None:
        self._record = np.arange(record_bytes, dtype=np.uint8)

    async def tell(self, frame: bytes, params: list[Any]) -> None:
        await given(params)

    async def collect(self) -> tuple[bytes, list[Any]]:
        return FRAME, [self._record]

    async def spent(self) -> tuple[str, float, float]:
        """Its node, and CPU time in seconds: of this process, and of its parent, which is the node's raylet."""
        import ray

        raylet = cpu_s_and_rss(os.getppid())
        node: str = ray.get_runtime_context().get_node_id()
        return node, time.process_time(), raylet[0] if raylet else 0.0


def link_rates(
    config: Config, directory: Path, record_bytes: int, params_bytes: int, seconds: float
) -> dict[str, float]:
    """Calls per second to a host, MB/s (10**6) of records from it and of parameters to it.

    And the CPU time in microseconds of a call with neither, with a record, and with parameters: `_here_us`
    of this process and its node's raylet, `_there_us` of the actor and its node's. Raises `StartError`.
    """
    cluster = RayCluster(config, directory)
    cluster.open()
    try:
        return asyncio.run(_rates(cluster, record_bytes, params_bytes, seconds))
    finally:
        cluster.close()


async def _rates(
    cluster: RayCluster, record_bytes: int, params_bytes: int, seconds: float
) -> dict[str, float]:
    import ray  # not before: it takes its token when it is imported
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    on_this_node = NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    probe: Any = ray.remote(LinkProbe)
    there = probe.options(num_cpus=1, scheduling_strategy="SPREAD").remote(record_bytes)
    here = probe.options(num_cpus=0, scheduling_strategy=on_this_node).remote(0)
    link, meter = RayLink(cluster, there), _Meter(here, there)
    versions = iter(range(1, 2**60))
    params = np.zeros(params_bytes // 4, np.float32)

    def tell() -> Awaitable[None]:
        return link.tell(FRAME, next(versions), params)

    calls, call_here, call_there = await meter.measure(lambda: link.tell(FRAME, 0, None), seconds)
    records, record_here, record_there = await meter.measure(link.collect, seconds)
    parameters, params_here, params_there = await meter.measure(tell, seconds)
    return {
        "link_calls": calls,
        "link_records": records * record_bytes / 1e6,
        "link_parameters": parameters * params_bytes / 1e6,
        "link_call_here_us": call_here,
        "link_call_there_us": call_there,
        "link_record_here_us": record_here,
        "link_record_there_us": record_there,
        "link_parameters_here_us": params_here,
        "link_parameters_there_us": params_there,
    }


class _Meter:
    """Makes calls one after the other, and looks at the clocks of both ends."""

    def __init__(self, here: Any, there: Any) -> None:
        self._here, self._there = here, there

    async def measure(
        self, call: Callable[[], Awaitable[Any]], seconds: float
    ) -> tuple[float, float, float]:
        """Calls per second, and the CPU time in microseconds that each takes here and there."""
        for _ in range(WARM_CALLS):
            await call()
        before = await self._spent()
        count, started = 0, time.perf_counter()
        while (passed := time.perf_counter() - started) < seconds:
            await call()
            count += 1
        here, there = (
            1e6 * (now - then) / count
            for now, then in zip(await self._spent(), before, strict=True)
        )
        return count / passed, here, there

    async def _spent(self) -> tuple[float, float]:
        node_here, _, raylet_here = await self._here.spent.remote()
        node, actor, raylet = await self._there.spent.remote()
        of_its_own = raylet if node != node_here else 0.0
        return time.process_time() + raylet_here, actor + of_its_own
