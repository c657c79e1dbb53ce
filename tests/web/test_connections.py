"""Clients that do not read, ask or end: they are let go, and the others are served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import aiohttp
import pytest
import uvloop

from aa2c.web import connections, server
from aa2c.web.server import Server
from tests.conftest import until
from tests.web.endpoint import BEARER, endpoint, port_of

LOOPS = (asyncio.new_event_loop, uvloop.new_event_loop)  # serve's is the second


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


@contextlib.asynccontextmanager
async def that_never_read(port: int, count: int, path: str, asks: int = 100, buffer: int = 2048):
    """Clients with a small receive buffer, that ask often and read nothing."""
    ask = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as opened:
        clients = []
        for _ in range(count):
            client = opened.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", port))
            with contextlib.suppress(ConnectionError, TimeoutError):
                await asyncio.wait_for(loop.sock_sendall(client, ask * asks), 5)
            clients.append(client)
        yield clients


def is_open(client: socket.socket) -> bool:
    """Whether the other end still holds this connection: what was sent until then may be read."""
    try:
        while client.recv(1 << 16):
            pass
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    return False


def stuck(it: Server) -> list[connections.Connection]:
    """Those with bytes that their clients have not taken."""
    return [connection for connection in it._connections if connection._timer]


async def answers(url: str, count: int) -> list[int]:
    found = []
    for _ in range(count):  # each by a connection of its own
        async with aiohttp.ClientSession() as client, client.get(f"{url}healthz") as answer:
            found.append(answer.status)
    return found


def test_clients_that_never_read_lock_nobody_out(runner, monkeypatch):
    monkeypatch.setattr(connections, "WRITE_S", 600.0)  # they make room even before they are let go

    async def attacked() -> None:
        async with endpoint(host="0.0.0.0") as it:
            port = port_of(it)
            count = connections.MOST_CONNECTIONS + 4
            async with that_never_read(port, count, "/static/vendor/uPlot.esm.js"):
                await until(lambda: len(stuck(it)) > connections.MOST_CONNECTIONS // 2)
                assert await answers(it.url, 25) == [200] * 25
                assert len(it._connections) <= connections.MOST_CONNECTIONS

    runner.run(attacked())


def test_an_answer_that_nobody_reads_ends_its_connection(runner, monkeypatch):
    monkeypatch.setattr(connections, "WRITE_S", 0.3)

    async def attacked() -> None:
        async with endpoint(status={"run": {"state": "running"}, "much": "x" * 300}) as it:
            for path in ("/static/vendor/uPlot.esm.js", "/status", "/docs/options", "/", "/none"):
                async with that_never_read(port_of(it), 1, path, asks=20_000):
                    await until(lambda: not it._connections)

    runner.run(attacked())


def test_a_slow_reader_that_reads_is_served_to_the_end(runner, monkeypatch):
    monkeypatch.setattr(connections, "WRITE_S", 0.5)
    monkeypatch.setattr(connections, "LEAST_BYTES", 1)

    async def read_slowly() -> None:
        async with endpoint(status={"much": "x" * 2_000_000}) as it:
            # Of the endpoint's side: else the kernel holds all of it at once.
            it._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
            slowly = that_never_read(port_of(it), 1, "/status", asks=1, buffer=1 << 15)
            async with slowly as (slow,):
                loop = asyncio.get_running_loop()
                told, looks_stuck = b"", 0
                while b"\r\n\r\n" not in told or len(told) < length(told):
                    told += await loop.sock_recv(slow, 1 << 16)
                    looks_stuck += len(stuck(it))
                    await asyncio.sleep(0.02)
                assert looks_stuck > 30, "this is longer than WRITE_S"
                assert told.endswith(b"}")

    runner.run(read_slowly())


def length(told: bytes) -> int:
    """Of an answer with its head."""
    head, _, _ = told.partition(b"\r\n\r\n")
    size = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    return len(head) + 4 + int(size.split()[1])


def test_who_shows_the_token_stays_and_others_make_room(runner, monkeypatch):
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 8)

    async def crowded() -> None:
        async with endpoint() as it, aiohttp.ClientSession(headers=BEARER) as owner:
            assert (await owner.get(f"{it.url}status")).status == 200
            (owners,) = it._connections
            async with that_never_read(port_of(it), 30, "/healthz", asks=1):
                await until(lambda: len(it._connections) == 8)
                assert owners in it._connections
                assert (await owner.get(f"{it.url}status")).status == 200
                assert owners in it._connections, "by the connection that it had"

    runner.run(crowded())


def test_the_owner_need_not_wait_for_what_others_have_asked(runner):
    asked = []

    def status() -> dict[str, str]:
        asked.append(1)
        return {"some": "x"}

    async def crowded() -> None:
        count = connections.MOST_CONNECTIONS - 8
        async with endpoint(status) as it, aiohttp.ClientSession(headers=BEARER) as owner:
            assert (await owner.get(f"{it.url}session")).status == 200
            async with that_never_read(port_of(it), count, "/status", asks=500, buffer=1 << 20):
                before = len(asked)
                await until(lambda: len(asked) > before + 1000)
                before = len(asked)
                assert (await owner.get(f"{it.url}session")).status == 200
                assert len(asked) - before < count, "not even one more for each of them"

    runner.run(crowded())


def test_the_owner_takes_a_listener_s_place(runner, monkeypatch):
    monkeypatch.setattr(server, "MOST_LISTENERS", 3)

    async def crowded() -> None:
        async with (
            endpoint() as it,
            that_never_read(port_of(it), 3, "/events", asks=1) as listeners,
            aiohttp.ClientSession() as client,
        ):
            await until(lambda: [c._answers for c in it._connections] == [1, 1, 1])
            assert (await client.get(f"{it.url}events")).status == 503
            async with client.get(f"{it.url}events", headers=BEARER) as answer:
                assert answer.status == 200
                assert (await answer.content.readline()).startswith(b"data: ")
                await until(lambda: not is_open(listeners[0]))
                assert all(map(is_open, listeners[1:]))

    runner.run(crowded())
