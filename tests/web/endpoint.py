"""An endpoint without a run behind it, for what is the endpoint's own: up at once, and it serves anything."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from aa2c import Config
from aa2c.errors import ControlRefused
from aa2c.web.server import Served, Server, open_socket

TOKEN = "a-token-of-a-run-that-is-none-but-long-enough"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
RUN = {"id": "1", "state": "running", "error": None, "stall": None}


@contextlib.asynccontextmanager
async def endpoint(
    status: Any = None,
    history: Any = None,
    frames: Any = None,
    video: Any = None,
    **options: Any,
) -> AsyncIterator[Server]:
    """Serve these documents; the status may be a function that makes one."""

    async def shown() -> Any:
        return frames

    def file() -> Any:
        if video is None:
            raise ControlRefused("there is no video.")
        return video

    acts = {"set": lambda _: "set", "pause": lambda: "paused", "video": lambda: "asked for"}
    controls: Any = SimpleNamespace(frames=shown, videos=SimpleNamespace(file=file), **acts)
    served = Served(
        status=status if callable(status) else lambda: status or {"run": RUN},
        documents={
            "history": lambda: history or {},
            "about": lambda: {
                "dir": "",
                "recipe": "none",
                "options": [],
                "commands": {},
                "readings": {},
            },
            "log": lambda: {"lines": []},
        },
        collector=CollectorRegistry(),
        controls=controls,
        token=TOKEN,
    )
    config = Config(port=0, **options)
    server = Server(open_socket(config), config, served, structlog.get_logger())
    await server.start()
    try:
        yield server
    finally:
        await server.close()


def port_of(server: Server) -> int:
    """By which it is reached on this machine."""
    return int(server.url.rstrip("/").rpartition(":")[2])
