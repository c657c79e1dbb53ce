"""The HTTP endpoint of a run: dashboard, status, metrics, events, controls. In the orchestrator's loop.

It is given what it serves and does not know the run. Bodies, listeners and connections are bounded, so
that no client can hold up the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware
from prometheus_client.registry import Collector

from aa2c.config.config import Config
from aa2c.errors import Aa2cError, ConfigError
from aa2c.run.controls import Controls
from aa2c.run.status import ENDED_STATES, TRAINING_STATES
from aa2c.strict_json import strict_json
from aa2c.web import docs
from aa2c.web.assets import asset
from aa2c.web.connections import Connection, connection
from aa2c.web.pictures import frames, video
from aa2c.web.prometheus import exposition
from aa2c.web.security import EVERYWHERE, Guard, add_security_headers, in_url, refusal
from aa2c.web.strict_json import json_response

BODY_LIMIT = 16 * 1024
BODY_TIMEOUT_S = 10.0
SHUTDOWN_S = 1.0
EVENT_S = 1.0
MOST_LISTENERS = 32
IDLE_S = 30.0  # without a request
TURNS = 4  # of strangers, in a round of the loop
EVENT_HEADERS = {
    "Content-Type": "text/event-stream",
    "X-Accel-Buffering": "no",  # or nginx would buffer events
}
BACKLOG = 128

Document = dict[str, Any]
Act = Callable[[Document], Awaitable[str] | str]


@dataclass(frozen=True)
class Served:
    """What a run exposes: its status, other documents by name, metrics and controls."""

    status: Callable[[], Document]
    documents: Mapping[str, Callable[[], Document]]
    collector: Collector
    controls: Controls
    token: str


def open_socket(config: Config) -> socket.socket:
    """Listen, before anything else is started. Raises `ConfigError` if that fails."""
    host, port = config.host, config.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"--host {host} cannot be listened on: {error.strerror}.") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"--port {port} is taken by another program: choose another, or 0 for a free one."
            ) from None
        raise ConfigError(f"--host {host} --port {port}: {error.strerror}.") from None
    return listening


class _ToRunLog(logging.Handler):
    """aiohttp's errors: malformed requests are the client's fault, everything else is a bug of ours."""

    def __init__(self, log: Any) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info and record.exc_info[1]
        if not isinstance(error, HttpProcessingError):
            self._log.error("a request failed", exc_info=error)


class Server:
    """A listening endpoint; `url` is its page."""

    def __init__(self, listening: socket.socket, config: Config, served: Served, log: Any) -> None:
        guard = Guard(served.token, config.host, config.allowed_host)
        routes = _Routes(served, guard)
        app = web.Application(
            middlewares=[_in_turn(guard), guard.check], client_max_size=BODY_LIMIT
        )
        app.on_response_prepare.append(add_security_headers)
        app.on_shutdown.append(routes.let_listeners_go)
        app.add_routes(routes.table())
        complaints = logging.Logger("aa2c.web")
        complaints.addHandler(_ToRunLog(log))
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=complaints,
            shutdown_timeout=SHUTDOWN_S,
            keepalive_timeout=IDLE_S,
        )
        self._socket = listening
        self._listening: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        host = in_url(EVERYWHERE.get(config.host, config.host))
        self.url = f"http://{host}:{listening.getsockname()[1]}/"

    async def start(self) -> None:
        """Start answering."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(self._accept, sock=self._socket)

    def _accept(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None
        return Connection(server(), self._connections)

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.close()
        await self._runner.cleanup()
        self._socket.close()


def _in_turn(guard: Guard) -> Middleware:
    """Answer the run's owner at once, and a few others per round of the loop, which has more to do."""
    turns = asyncio.Semaphore(TURNS)

    @web.middleware
    async def take(request: web.Request, handler: Handler) -> web.StreamResponse:
        asking = connection(request)
        if asking is None:
            return await handler(request)
        if guard.may_control(request):
            asking.is_owners = True
        else:
            async with turns:
                await asyncio.sleep(0)
        with asking.answering():
            return await handler(request)

    return take


class _Routes:
    """The routes' handlers."""

    def __init__(self, served: Served, guard: Guard) -> None:
        self._served = served
        self._guard = guard
        self._listeners: dict[Connection, None] = {}  # oldest first
        self._closing = asyncio.Event()

    def table(self) -> list[web.AbstractRouteDef]:
        controls = self._served.controls
        acts: dict[str, Act] = {
            "pause": lambda _: controls.pause(),
            "resume": lambda _: controls.resume(),
            "stop": lambda _: controls.stop(),
            "checkpoint": lambda _: controls.checkpoint(),
            "video": lambda _: controls.video(),
            "workers": lambda body: controls.set_workers(_only(body, "workers")),
            "set": controls.set,
        }
        return [
            web.get("/", self.page),
            web.get("/status", self.status),
            *(web.get(f"/{name}", _reading(it)) for name, it in self._served.documents.items()),
            web.get("/events", self.events, allow_head=False),  # it has no end
            web.get("/frames", frames(controls)),
            web.get("/video", video(controls), allow_head=False),
            web.get("/metrics", self.metrics),
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
            web.get("/session", self.session),
            web.post("/session", self.open_session),
            *(web.post(f"/control/{name}", _control(act)) for name, act in acts.items()),
            web.get("/static/{name:.*}", self.static),
            web.get("/docs", self.docs_root),
            web.get("/docs/", self.docs_page),
            web.get("/docs/{name}", self.docs_page),
        ]

    async def page(self, _: web.Request) -> web.Response:
        return asset("index.html") or refusal(
            404, "The dashboard is missing from this installation."
        )

    async def static(self, request: web.Request) -> web.Response:
        return asset(request.match_info["name"]) or refusal(404, "There is no such file.")

    async def docs_root(self, _: web.Request) -> web.Response:
        """Relative links between pages need the slash; a proxy may add a prefix unknown here."""
        return web.Response(status=308, headers={"Location": "docs/"})

    async def docs_page(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name", docs.INDEX)
        if picture := docs.pictures().get(name):
            return web.Response(body=picture, content_type="image/png")
        found = docs.page(name)
        if found is None:
            return refusal(404, "There is no such page: see /docs/.")
        return web.Response(text=found, content_type="text/html")

    async def status(self, _: web.Request) -> web.Response:
        return json_response(self._served.status())

    async def metrics(self, request: web.Request) -> web.Response:
        content_type, body = exposition(self._served.collector, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def healthz(self, request: web.Request) -> web.Response:
        """503 once the run has failed."""
        run = self._served.status()["run"]
        return self._health(request, run, run["state"] != "failed")

    async def readyz(self, request: web.Request) -> web.Response:
        """200 while the run makes progress or is paused."""
        run = self._served.status()["run"]
        is_ready = run["state"] in (*TRAINING_STATES, "paused") and run["stall"] is None
        return self._health(request, run, is_ready)

    def _health(self, request: web.Request, run: Document, is_good: bool) -> web.Response:
        """The reason is only for those who may read."""
        keys = ("state", "error", "stall") if self._guard.may_read(request) else ("state",)
        told = {key: run[key] for key in keys}
        return json_response(told, status=200 if is_good else 503)

    async def session(self, request: web.Request) -> web.Response:
        """Whether this browser may control the run."""
        return json_response({"control": self._guard.may_control(request)})

    async def open_session(self, request: web.Request) -> web.Response:
        return self._guard.admit(request)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """The status once a second, until the run has ended."""
        asking = connection(request)
        if asking is None or not self._has_room_for(asking):
            return refusal(503, "Too many clients are watching this run.")
        self._listeners[asking] = None
        try:
            response = web.StreamResponse(headers=EVENT_HEADERS)
            await response.prepare(request)
            await self._tell(response)
            return response
        finally:
            self._listeners.pop(asking, None)

    def _has_room_for(self, asking: Connection) -> bool:
        """The run's owner may take the place of someone who may only read."""
        if len(self._listeners) < MOST_LISTENERS:
            return True
        strangers = [it for it in self._listeners if not it.is_owners]
        if not asking.is_owners or not strangers:
            return False
        del self._listeners[strangers[0]]
        strangers[0].drop()
        return True

    async def _tell(self, response: web.StreamResponse) -> None:
        while True:
            is_last = self._closing.is_set()
            status = self._served.status()
            try:
                await response.write(f"data: {strict_json(status)}\n\n".encode())
            except ConnectionError:
                return
            if is_last or status["run"]["state"] in ENDED_STATES:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), EVENT_S)

    async def let_listeners_go(self, _: web.Application) -> None:
        self._closing.set()


def _reading(document: Callable[[], Document]) -> Handler:
    """A route that serves a document."""

    async def handle(_: web.Request) -> web.Response:
        return json_response(document())

    return handle


def _control(act: Act) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A route that reads a JSON object, acts on it, and returns the result."""

    async def handle(request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = json.loads(await request.read())
        except TimeoutError:
            return refusal(408, "The body did not arrive in time.")
        except (ValueError, RecursionError):
            return refusal(400, "The body is not JSON.")
        if not isinstance(body, dict):
            return refusal(400, "The body is not a JSON object.")
        try:
            said = act(body)
            text = said if isinstance(said, str) else await said
        except ConfigError as error:
            return refusal(422, str(error))
        except Aa2cError as error:
            return refusal(409, str(error))
        return json_response({"ok": True, "text": text})

    return handle


def _only(body: Document, name: str) -> Any:
    """The one value of a body. Raises `ConfigError`."""
    if set(body) != {name}:
        raise ConfigError(f'The body must be {{"{name}": …}}.')
    return body[name]
