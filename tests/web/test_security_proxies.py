"""Tunnels, proxies, code spaces: what is safe works, and what is refused says the flag that lets it in."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from aa2c.web.server import Server
from tests.web.endpoint import BEARER, endpoint, port_of

SPACE = "octo-8420.app.github.dev"
FORWARDED = {"X-Forwarded-Host": SPACE, "X-Forwarded-Proto": "https", "X-Forwarded-For": "1.2.3.4"}

ALL = {"OPTIONS", "TRACE", "PUT", "DELETE", "PATCH", "GET", "POST"}


async def ask(it: Server, method: str, path: str, **headers: str) -> tuple[int, Any, Any]:
    body = {} if method == "GET" else {"json": {}}
    async with (
        aiohttp.ClientSession() as client,
        client.request(method, f"{it.url}{path}", headers=headers, **body) as answer,
    ):
        is_json = answer.content_type == "application/json"
        return answer.status, await answer.json() if is_json else None, answer.headers


@pytest.mark.parametrize("listening", ["127.0.0.1", "0.0.0.0"])
async def test_loopback_names_and_addresses_pass_with_any_port(listening):
    async with endpoint(host=listening) as it:
        for host in (
            "localhost:9000", "localhost", "LOCALHOST:9000", "127.0.0.1:9000", "127.0.0.1",
            "[::1]:9000", "[::1]", "192.0.2.7:80", "[2001:db8::7]:8420",
        ):  # fmt: skip
            own = BEARER | {"Host": host, "Origin": f"http://{host}"}
            assert (await ask(it, "GET", "status", **own))[0] == 200, host
            assert (await ask(it, "POST", "control/pause", **own))[0] == 200, host


async def test_a_page_on_another_port_of_this_machine_is_another_site():
    async with endpoint() as it:
        for origin in (
            "http://localhost:9001",
            "http://127.0.0.1:9000",
            "http://localhost",
            "null",
        ):
            own = BEARER | {"Host": "localhost:9000", "Origin": origin}
            assert (await ask(it, "GET", "status", **own))[0] == 403, origin
            assert (await ask(it, "POST", "control/pause", **own))[0] == 403, origin
            sibling = own | {"Sec-Fetch-Site": "same-site"}
            assert (await ask(it, "POST", "control/pause", **sibling))[0] == 403, origin


async def test_a_name_that_dns_can_point_here_is_refused_with_the_flag_that_lets_it_in():
    async with endpoint() as it:
        for host in (SPACE, "hub.example.org:8000", f"trainer:{port_of(it)}"):
            for path in ("", "status", "static/page.js", "docs/", "healthz", "no-such-path"):
                status, told, _ = await ask(it, "GET", path, **FORWARDED, **BEARER, Host=host)
                assert status == 403, (host, path)
                assert f"--allowed-host {host}." in told["error"], (host, path)
        for host in ("a b", 'x"><script>', "x" * 300, "evil@evil.example", "[zz]", "é.example"):
            status, told, _ = await ask(it, "GET", "status", Host=host)
            assert status in (400, 403)
            if status == 403:
                assert told["error"].endswith("--allowed-host NAME."), "nothing strange is echoed"


async def test_the_flag_lets_in_what_it_names_and_no_more():
    async with endpoint(allowed_host=(SPACE,)) as it:
        own = {"Host": SPACE, "Origin": f"https://{SPACE}", "Sec-Fetch-Site": "same-origin"}
        assert (await ask(it, "GET", "status", **FORWARDED, **own))[0] == 200
        assert (await ask(it, "POST", "control/pause", **BEARER, **own))[0] == 200
        assert (await ask(it, "POST", "control/pause", **own))[0] == 401
        for host in (f"evil.{SPACE}", f"{SPACE}.evil", f"{SPACE}:1", "octo-8420.app.github"):
            assert (await ask(it, "GET", "status", Host=host))[0] == 403, host


async def test_a_proxy_may_put_the_address_that_it_asks_in_place_of_host():
    rewritten = BEARER | FORWARDED | {"Host": "127.0.0.1:8420", "Origin": f"https://{SPACE}"}
    async with endpoint() as it:
        by_browser = rewritten | {"Sec-Fetch-Site": "same-origin"}
        assert (await ask(it, "POST", "control/pause", **by_browser))[0] == 200
        status, told, _ = await ask(it, "POST", "control/pause", **rewritten)
        assert status == 403, "an old browser, or no TLS: only the flag tells this from an attack"
        assert f"--allowed-host {SPACE}." in told["error"]
        for site in ("cross-site", "same-site", "none"):
            foreign = rewritten | {"Sec-Fetch-Site": site}
            assert (await ask(it, "POST", "control/pause", **foreign))[0] == 403, site
    async with endpoint(allowed_host=(SPACE, "box.example")) as it:
        assert (await ask(it, "POST", "control/pause", **rewritten))[0] == 200
        # Under its own name there is no proxy between: another port is another program's page.
        sibling = {"Host": f"box.example:{port_of(it)}", "Origin": "http://box.example"}
        assert (await ask(it, "POST", "control/pause", **BEARER, **sibling))[0] == 403


async def test_the_cookie_stays_below_the_prefix_and_with_its_port():
    async with endpoint(allowed_host=(SPACE,)) as it:
        for host, name in (
            ("localhost:9000", "aa2c_9000"),
            ("localhost:9001", "aa2c_9001"),
            ("[::1]", f"aa2c_{port_of(it)}"),
            (SPACE, f"aa2c_{port_of(it)}"),
        ):
            status, _, headers = await ask(it, "POST", "session", **BEARER, Host=host)
            first, *rest = headers["Set-Cookie"].split("; ")
            assert (status, first.split("=")[0]) == (204, name)
            assert sorted(rest) == ["HttpOnly", "SameSite=Strict"], "no path: below the page's own"
            _, told, _ = await ask(it, "GET", "session", Host=host, Cookie=first)
            assert told == {"control": True}
        tls = {"Host": SPACE, "Origin": f"https://{SPACE}"}
        _, _, headers = await ask(it, "POST", "session", **BEARER, **tls)
        assert "Secure" in headers["Set-Cookie"].split("; ")


@pytest.mark.parametrize("listening", ["127.0.0.1", "0.0.0.0"])
async def test_a_wrong_method_is_405_and_says_which_are_right(listening):
    async with endpoint(host=listening) as it, aiohttp.ClientSession() as client:
        for path, right in {
            "status": {"GET", "HEAD"}, "events": {"GET"}, "static/page.js": {"GET", "HEAD"},
            "control/stop": {"POST"}, "session": {"GET", "HEAD", "POST"}, "": {"GET", "HEAD"},
        }.items():  # fmt: skip
            for method in ALL - right:
                async with client.request(method, f"{it.url}{path}") as answer:
                    assert answer.status == 405, (method, path)
                    assert set(answer.headers["Allow"].split(", ")) == right, (method, path)
                    assert "error" in json.loads(await answer.text())
                    assert "Content-Security-Policy" in answer.headers
                foreign = {"Host": "evil.example"}
                async with client.request(method, f"{it.url}{path}", headers=foreign) as answer:
                    assert answer.status == 403, (method, path)
