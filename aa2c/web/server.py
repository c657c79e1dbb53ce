"""The HTTP endpoint of a run. Runs in the orchestrator's event loop and only reads.

Every route answers only to the names under which it listens: a page of another site that reaches
this port through DNS rebinding carries its own name in `Host`, and gets 403.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client.registry import Collector

from aa2c.errors import ConfigError
from aa2c.metrics import exposition

STATIC = Path(__file__).parent / "static"
BODY_LIMIT = 16 * 1024
SHUTDOWN_S = 1.0
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

ReadStatus = Callable[[], dict[str, Any]]
RequestHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """A listening endpoint; `url` is its page."""

    def __init__(self, runner: web.AppRunner, url: str) -> None:
        self._runner = runner
        self.url = url

    @classmethod
    async def listen(
        cls, host: str, port: int, read_status: ReadStatus, collector: Collector
    ) -> Server:
        """Start to serve. Raises `ConfigError` if the port is taken."""
        routes = _Routes(read_status, collector)
        app = web.Application(middlewares=[check_host], client_max_size=BODY_LIMIT)
        app.on_response_prepare.append(_add_security_headers)
        app.add_routes(
            [
                web.get("/", routes.page),
                web.get("/status", routes.status),
                web.get("/metrics", routes.metrics),
                web.get("/healthz", routes.healthz),
                web.get("/readyz", routes.readyz),
                web.static("/static", STATIC),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            await runner.cleanup()
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(
                    f"--port {port} is taken by another program: choose another, or 0 for a free one."
                ) from None
            raise ConfigError(f"--host {host} --port {port}: {error.strerror}.") from None
        except BaseException:
            await runner.cleanup()
            raise
        bound = runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        return cls(runner, f"http://{shown}:{bound}/")

    async def close(self) -> None:
        await self._runner.cleanup()


class _Routes:
    """What each route answers."""

    def __init__(self, read_status: ReadStatus, collector: Collector) -> None:
        self._read_status = read_status
        self._collector = collector

    async def page(self, _: web.Request) -> web.FileResponse:
        return web.FileResponse(STATIC / "index.html")

    async def status(self, _: web.Request) -> web.Response:
        return web.json_response(self._read_status())

    async def metrics(self, request: web.Request) -> web.Response:
        content_type, body = exposition(self._collector, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def healthz(self, _: web.Request) -> web.Response:
        """503 once the run has failed."""
        run = self._read_status()["run"]
        return _health(run["state"] != "failed", run)

    async def readyz(self, _: web.Request) -> web.Response:
        """200 while the run is training."""
        run = self._read_status()["run"]
        return _health(run["state"] in ("running", "paused"), run)


def _health(is_good: bool, run: dict[str, Any]) -> web.Response:
    body = json.dumps({"state": run["state"], "error": run["error"]})
    return web.Response(text=body, status=200 if is_good else 503, content_type="application/json")


@web.middleware
async def check_host(request: web.Request, handler: RequestHandler) -> web.StreamResponse:
    """403 for a `Host` that is not a loopback name with the port it came in by."""
    hosts = request.headers.getall("Host", [])
    if len(hosts) != 1 or not _is_own_name(hosts[0], request):
        raise web.HTTPForbidden(text="This Host is not served here.\n")
    return await handler(request)


def _is_own_name(host: str, request: web.Request) -> bool:
    name, _, port = host.rpartition(":")
    if not name or host.endswith("]"):
        name, port = host, "80"
    transport = request.transport
    own_port = transport.get_extra_info("sockname")[1] if transport else None
    return name.lower() in LOOPBACK_NAMES and port == str(own_port)


async def _add_security_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(SECURITY_HEADERS)
