"""The link to a host of another engine, measured in a process of its own, where that engine may do as it likes."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import tempfile
from pathlib import Path

from aa2c.config.config import Config
from aa2c.host.cluster.ray_link import link_rates


def rates_of_link(
    config: Config, record_bytes: int, params_bytes: int, seconds: float
) -> dict[str, float]:
    """As `link_rates`; nothing for the local engine. Raises `StartError` if it cannot be reached."""
    if config.engine == "local":
        return {}
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="aa2c-bench-") as directory,
        concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as process,
    ):
        sizes = record_bytes, params_bytes
        return process.submit(link_rates, config, Path(directory), *sizes, seconds).result()
