"""Attacks on the endpoint of a real run, over real sockets; each must fail, and change nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from aa2c import Orchestrator
from aa2c.web import connections, server
from tests.conftest import until
from tests.web.asking import CONTROLS, READING, ask, bearer


@pytest.fixture
async def run(small: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Orchestrator]:
    monkeypatch.setattr(server, "IDLE_S", 5.0)
    async with Orchestrator(small(total_env_steps=10**9, port=0), http=True) as run:
        await run.ready()
        await until(lambda: run.state == "running")
        yield run
        assert run.state == "running", "an attack has had an effect"
        assert run.status()["marks"] == []
        await asyncio.to_thread(run._log_file.flush)
        assert run.token not in (run.dir / "log.jsonl").read_text()


@pytest.mark.long
async def test_attacks(run, caplog):
    """One run for the whole matrix, because a run takes seconds to come up."""
    await _nobody_controls_without_the_token(run)
    await _the_token_is_not_enough_from_elsewhere(run)
    await _a_page_of_another_site_reads_nothing(run)
    await _no_form_can_post(run)
    await _strange_bodies_are_refused(run)
    await _bytes_that_are_no_request_are_refused(run)
    assert not caplog.records, "nobody reads of it on a terminal"
    await _a_body_that_never_ends_is_abandoned(run)
    await _other_methods_are_refused(run)
    await _too_many_and_too_slow_listeners_are_let_go(run)
    await _connections_that_say_nothing_use_nothing_up(run)


async def _connections_that_say_nothing_use_nothing_up(run):
    port = int(run.url.rstrip("/").rpartition(":")[2])
    files = len(list(Path("/proc/self/fd").iterdir()))
    with contextlib.ExitStack() as idle:
        clients = []
        for _ in range(400):
            connect = asyncio.to_thread(socket.create_connection, ("127.0.0.1", port))
            clients.append(idle.enter_context(await connect))
        held = []

        def are_refused():
            held.append(len(list(Path("/proc/self/fd").iterdir())) - files - 400)
            return sum(map(_is_closed, clients)) >= 400 - connections.MOST_CONNECTIONS

        await until(are_refused)
        # Those that arrive in one round of the loop are there until others have made room for them.
        assert max(held) < connections.MOST_CONNECTIONS + 100, (
            "closed, but only after they were idle"
        )
        before = run.status()["progress"]["env_steps"]
        await until(lambda: run.status()["progress"]["env_steps"] > before)
        assert await answer_to_a_latecomer(port) == b"200", "they make room for others"


def _is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


async def answer_to_a_latecomer(port: int) -> bytes:
    with contextlib.suppress(ConnectionError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        line = await reader.readline()
        writer.close()
        return line[9:12]
    return b""


async def _nobody_controls_without_the_token(run):
    token = run.token
    wrong = (None, "", "x", token[:-1], token + "x", token[::-1], token.upper(), "é" * 43, "\t")
    for given in wrong:
        headers = {} if given is None else bearer(given)
        for name in CONTROLS:
            status, body = await ask(run, "POST", f"control/{name}", json={}, headers=headers)
            assert (status, "token" in body) == (401, True), (given, name)
        assert (await ask(run, "POST", "session", json={}, headers=headers))[0] == 401
    port = run.url.rstrip("/").rpartition(":")[2]
    for cookies in (
        {"aa2c": token},
        {f"aa2c_{port}": token[:-1]},
        {f"aa2c_{int(port) + 1}": token},
    ):
        assert (await ask(run, "POST", "control/pause", json={}, cookies=cookies))[0] == 401
    assert (await ask(run, "POST", "control/pause", json={}, headers={"Authorization": token}))[
        0
    ] == 401
    assert (await ask(run, "POST", f"control/pause?token={token}", json={}))[0] == 401


async def _the_token_is_not_enough_from_elsewhere(run):
    port = run.url.rstrip("/").rpartition(":")[2]
    good = bearer(run.token)
    for foreign in (
        {"Host": f"evil.example:{port}"},
        {"Host": f"0.0.0.0:{port}"},
        {"Host": f"xlocalhost:{port}"},
        {"Host": f"localhostx:{port}"},
        {"Origin": "http://evil.example"},
        {"Origin": f"http://evil.example:{port}"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": f"http://127.0.0.1:{int(port) + 1}"},
        {"Origin": f"http://127.0.0.1:{port}.evil"},
        {"Origin": f"http://127.0.0.1:{port}0"},
        {"Origin": f"xhttp://127.0.0.1:{port}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        for name in (*CONTROLS, "../session"):
            headers = good | foreign
            status, _ = await ask(run, "POST", f"control/{name}", json={}, headers=headers)
            assert status == 403, (foreign, name)


async def _a_page_of_another_site_reads_nothing(run):
    for foreign in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        for path in READING:
            assert (await ask(run, "GET", path, headers=foreign))[0] == 403, (foreign, path)
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert (await ask(run, "GET", "", headers=link))[0] == 200, "a link to the page is no attack"
    assert (await ask(run, "GET", "status", headers=link))[0] == 403


async def _no_form_can_post(run):
    good = bearer(run.token)
    for kind in (
        "application/x-www-form-urlencoded", "multipart/form-data", "text/plain", "", "text/json",
    ):  # fmt: skip
        headers = good | {"Content-Type": kind}
        assert (await ask(run, "POST", "control/stop", data=b"{}", headers=headers))[0] == 415


async def _bytes_that_are_no_request_are_refused(run):
    port = int(run.url.rstrip("/").rpartition(":")[2])
    long_line = b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n"
    for garbage in (b"\x00" * 4096, long_line, b"GET / HTTP/9\r\n\r\n", b"\x16\x03\x01" * 99):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(garbage)
        writer.write_eof()
        assert (await reader.read(12))[9:] in (b"400", b""), garbage[:20]
        writer.close()


async def _strange_bodies_are_refused(run):
    good = bearer(run.token) | {"Content-Type": "application/json"}

    async def post(name: str, body: bytes) -> tuple[int, str]:
        return await ask(run, "POST", f"control/{name}", data=body, headers=good)

    for body in (b"", b"{", b"[]", b"3", b"null", b'"x"', b"\xff\xfe", b"[" * 10_000):
        assert (await post("set", body))[0] == 400, body[:20]
    assert (await post("set", b'{"learning_rate": ' + b"9" * 20_000 + b"}"))[0] == 413
    for body, why in (
        (b'{"learning_rate": -1}', "--learning-rate -1.0 must be at least 0"),
        (b'{"learning_rate": NaN}', "finite"),
        (b'{"learning_rate": 1e999}', "finite"),
        (b'{"learning_rate": {}}', "is not a number"),
        (b'{"learning_rate": ' + b"9" * 4000 + b"}", "is not a number"),
        (b'{"nothing": 1}', "cannot be changed during a run"),
        (b'{"learning_rate": 2}', "--learning-rate 2.0 must be at most 1"),
        (b"{}", "nothing to set"),
    ):
        status, text = await post("set", body)
        assert (status, why in json.loads(text)["error"]) == (422, True), body[:40]
    strange = good | {"Content-Type": "application/json; charset=nonsense"}
    body = b'{"learning_rate": -1}'
    assert (await ask(run, "POST", "control/set", data=body, headers=strange))[0] == 422
    for body in (b"{}", b'{"workers": 0}', b'{"workers": "2"}', b'{"workers": 2, "more": 1}'):
        assert (await post("workers", body))[0] == 422, body


async def _a_body_that_never_ends_is_abandoned(run):
    server_timeout, server.BODY_TIMEOUT_S = server.BODY_TIMEOUT_S, 0.3
    port = int(run.url.rstrip("/").rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /control/pause HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 2\r\n"
        f"Content-Type: application/json\r\nAuthorization: Bearer {run.token}\r\n\r\n{{"
    )
    writer.write(head.encode())
    assert b" 408 " in await reader.readline()
    writer.close()
    server.BODY_TIMEOUT_S = server_timeout


async def _other_methods_are_refused(run):
    good = bearer(run.token)
    for name in CONTROLS:
        assert (await ask(run, "GET", f"control/{name}", headers=good))[0] == 405
        for method in ("PUT", "DELETE", "PATCH"):
            assert (await ask(run, method, f"control/{name}", json={}, headers=good))[0] == 405
    for path in ("status", "control/stop"):
        assert (await ask(run, "OPTIONS", path, headers=good))[0] == 405
    assert (await ask(run, "HEAD", "status"))[0] == 200
    assert (await ask(run, "HEAD", "events"))[0] == 405, "its body has no end"


async def _too_many_and_too_slow_listeners_are_let_go(run):
    port = int(run.url.rstrip("/").rpartition(":")[2])
    request = f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    listeners = []
    for _ in range(server.MOST_LISTENERS):
        listener = socket.create_connection(("127.0.0.1", port))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.sendall(request)
        listener.setblocking(False)
        listeners.append(listener)
    for listener in listeners:
        async with asyncio.timeout(30):
            begins = await asyncio.get_running_loop().sock_recv(listener, 12)
        assert begins == b"HTTP/1.1 200"
    assert (await ask(run, "GET", "events"))[0] == 503
    assert (await ask(run, "GET", "status"))[0] == 200, "the others are served"
    for listener in listeners:
        listener.close()
    async with asyncio.timeout(30):  # the next event finds them gone
        while (await ask(run, "GET", "events"))[0] != 200:
            pass
    await _a_slow_reader_is_let_go(port, request)


async def _a_slow_reader_is_let_go(port, request):
    """It reads nothing: its buffers fill, and then the endpoint must not wait for it."""
    before = server.EVENT_S, connections.WRITE_S
    server.EVENT_S, connections.WRITE_S = 0.0, 0.3
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", port))
        slow.sendall(request)
        await until(lambda: _is_served(slow))
        await until(lambda: not _is_served(slow))
    server.EVENT_S, connections.WRITE_S = before


def _is_served(client: socket.socket) -> bool:
    """Whether the endpoint, which is in this process, has the other end of this connection."""
    held = psutil.Process().net_connections("tcp4")
    return any(connection.raddr == client.getsockname() for connection in held)
