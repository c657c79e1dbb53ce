"""Who may read and control: the token, the hosts, the addresses."""

from __future__ import annotations

import json
import socket
import stat

import aiohttp
import pytest

from aa2c import ConfigError, Orchestrator
from tests.conftest import until
from tests.web.asking import READING, ask, bearer, get
from tests.web.endpoint import BEARER, endpoint, port_of


@pytest.mark.long
async def test_the_token_opens_the_controls_and_is_kept_where_only_its_owner_reads(small):
    async with Orchestrator(small(total_env_steps=10**9, port=0), http=True) as run:
        file = run.dir / "token"
        assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == (run.token, 0o600)
        assert len(run.token) >= 43, "32 random bytes"
        await run.ready()
        await until(lambda: run.state == "running")
        port = int(run.url.rstrip("/").rpartition(":")[2])
        own = {"Origin": f"http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}
        jar = aiohttp.CookieJar(unsafe=True)  # addresses may have cookies, too
        async with aiohttp.ClientSession(run.url, cookie_jar=jar, headers=own) as page:
            assert await (await page.get("/session")).json() == {"control": False}
            answer = await page.post("/session", json={}, headers=bearer(run.token))
            assert answer.status == 204
            cookie = answer.headers["Set-Cookie"]
            assert cookie.startswith(f"aa2c_{port}=")
            assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
            assert "Path" not in cookie, "below a prefix it stays there"
            assert await (await page.get("/session")).json() == {"control": True}
            answer = await page.post("/control/pause", json={})
            assert (answer.status, await answer.json()) == (200, {"ok": True, "text": "paused"})
            assert (await page.post("/control/set", json={"ent_coef": 0.5})).status == 200
            assert (await page.post("/control/resume", json={})).status == 200
            assert (await page.post("/control/workers", json={"workers": 1})).status == 200
            status = await (await page.get("/status")).json()
            assert [len(status["workers"]), status["settings"]["ent_coef"]["value"]] == [1, 0.5]
            assert (await page.post("/control/stop", json={})).status == 200
        await run.wait()
        async with aiohttp.ClientSession(headers=bearer(run.token)) as late:
            for name, body in (("stop", {}), ("pause", {}), ("set", {"ent_coef": 0.1})):
                answer = await late.post(f"{run.url}control/{name}", json=body)
                assert answer.status == 409, name
            events = await late.get(f"{run.url}events")
            document = json.loads((await events.text()).removeprefix("data: "))
            assert document["run"]["state"] == "stopped"


async def test_beyond_loopback_reading_needs_the_token_too():
    async with endpoint(host="::", allowed_host=("box.example",)) as it:
        port = port_of(it)
        for host in (f"127.0.0.1:{port}", f"box.example:{port}"):
            for path in set(READING) - {"session"}:
                assert (await get(port, path, Host=host))[0] == 401, (host, path)
            for path in ("", "healthz", "static/page.js"):
                assert (await get(port, path, Host=host))[0] in (200, 503), (host, path)
            headers = BEARER | {"Host": host}
            assert (await get(port, "status", **headers))[0] == 200
            for path in ("healthz", "readyz"):
                assert json.loads((await get(port, path, Host=host))[1]).keys() == {"state"}
                assert "error" in json.loads((await get(port, path, **headers))[1])
        for host in ("box.example:1", f"evil.example:{port}", f"[::]:{port}"):
            headers = BEARER | {"Host": host}
            assert (await get(port, "status", **headers))[0] in (403, 400), host
        for host in (f"box.example:{port}", "box.example"):  # the second as behind a proxy
            headers = BEARER | {"Host": host}
            own = headers | {"Origin": f"http://{host}"}
            assert (await get(port, "status", **own))[0] == 200, host
            for more in (".evil", "0", ":1", f":{port}0"):
                foreign = headers | {"Origin": f"http://{host}{more}"}
                assert (await get(port, "status", **foreign))[0] == 403, (host, more)
                assert (await get(port, "status", **headers | {"Host": host + more}))[0] in (
                    400,
                    403,
                ), (host, more)


@pytest.mark.parametrize("host", ["127.0.0.2", "localhost", "::1", socket.gethostname()])
async def test_the_address_that_is_printed_is_answered(host):
    async with endpoint(host=host) as it:
        assert (await ask(it, "GET", "status", headers=BEARER))[0] == 200


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
async def test_an_address_that_is_not_this_machine_s_is_refused_before_anything_starts(
    small, host, tmp_path
):
    with pytest.raises(ConfigError, match=f"--host {host}"):
        await Orchestrator(small(host=host, port=0), http=True).start()
    assert not (tmp_path / "runs").exists()
