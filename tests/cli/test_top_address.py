"""The addresses that `top` takes: below a prefix, by a tunnel's port, whatever proxies the environment has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from aa2c.cli import main, top
from aa2c.errors import ConfigError
from aa2c.run.status import SCHEMA
from tests.web.endpoint import TOKEN, endpoint

STATUS = {"schema": SCHEMA, "run": {"state": "running"}}


@pytest.fixture(autouse=True)
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on many clusters; nobody answers there."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)


@pytest.fixture
async def below_a_prefix() -> AsyncIterator[str]:
    """The address of a stand-in for a proxy, which refuses what lies elsewhere in a run's words."""

    async def status(_: web.Request) -> web.Response:
        return web.json_response(STATUS)

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"error": "start with --allowed-host box.\x1b[2J\n"}, status=403)

    app = web.Application()
    app.add_routes([web.get("/user/me/status", status), web.get("/{rest:.*}", refuse)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


async def test_proxies_of_the_environment_are_not_asked():
    async with endpoint(STATUS, host="0.0.0.0") as it:
        assert await asyncio.to_thread(top.read_status, it.url, TOKEN) == STATUS
        local = it.url.replace("127.0.0.1", "localhost")
        assert await asyncio.to_thread(top.read_status, local, TOKEN) == STATUS


async def test_a_prefix_is_part_of_the_address(below_a_prefix):
    found = await asyncio.to_thread(top.read_status, f"{below_a_prefix}user/me/", "")
    assert found == STATUS


async def test_what_the_run_says_of_a_refusal_is_told_without_what_a_terminal_obeys(below_a_prefix):
    with pytest.raises(ConfigError) as refused:
        await asyncio.to_thread(top.read_status, below_a_prefix, "")
    assert str(refused.value).endswith("status 403: start with --allowed-host box.[2J")


@pytest.mark.parametrize(
    "given", [["http://box:1/"], ["--url", "http://box:1/"], ["--url=http://box:1/"]]
)
def test_the_address_needs_no_flag(given: list[str], monkeypatch: pytest.MonkeyPatch):
    watched: list[Any] = []
    monkeypatch.setattr(top, "watch_run", lambda *asked: watched.append(asked))
    assert main.top([*given, "--token", "x"]) == 0
    assert watched == [("http://box:1/", "x")]
