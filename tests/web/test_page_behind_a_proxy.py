"""The page in a real browser under a path prefix, as behind a notebook's proxy; and a run of no numbers."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from aa2c import Orchestrator
from tests.conftest import until
from tests.web.browser import Watched, open_page
from tests.web.endpoint import endpoint

pytestmark = pytest.mark.timeout(240)
PREFIX = "/user/me/proxy/8420"


@contextlib.asynccontextmanager
async def proxy(run_url: str, *, keeps_host: bool, holds_back: bool) -> AsyncIterator[str]:
    """Serve what is at an address below a prefix; maybe with Host as it came, and answers only whole."""

    async def on(request: web.Request) -> web.StreamResponse:
        kept = {"Cookie", "Content-Type", "Authorization", "Origin", "Sec-Fetch-Site"}
        headers = {name: value for name, value in request.headers.items() if name in kept}
        if keeps_host:
            headers["Host"] = request.headers["Host"]
        path = request.path_qs.removeprefix(f"{PREFIX}/")
        body = await request.read()
        asked = client.request(
            request.method, run_url + path, headers=headers, data=body, allow_redirects=False
        )
        async with asked as answer:
            more = {n: answer.headers[n] for n in ("Content-Type", "Set-Cookie", "Location") if n in answer.headers}  # fmt: skip
            told = web.StreamResponse(status=answer.status, headers=more)
            if not holds_back:
                await told.prepare(request)
            whole = b""
            async for part in answer.content.iter_any():
                whole += part
                if not holds_back:
                    await told.write(part)
            return told if not holds_back else web.Response(
                status=answer.status, headers=more, body=whole
            )  # fmt: skip

    async with aiohttp.ClientSession(auto_decompress=False) as client:
        app = web.Application()
        app.router.add_route("*", f"{PREFIX}/{{rest:.*}}", on)
        runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}{PREFIX}/"
        finally:
            await runner.cleanup()


@pytest.mark.long
@pytest.mark.parametrize(
    ("keeps_host", "holds_back"), [(True, False), (False, True)], ids=["notebook", "buffering"]
)
async def test_the_page_under_a_prefix(small, browser, tmp_path, keeps_host, holds_back):
    async with (
        Orchestrator(small(total_env_steps=10**9, port=0), http=True) as run,
        proxy(run.url, keeps_host=keeps_host, holds_back=holds_back) as url,
    ):
        await run.ready()
        page = await open_page(browser, f"{url}#token={run.token}")
        await page.becomes("#state", "running")
        await _the_controls_work(page, run)
        await page.page.screenshot(path=tmp_path / "prefix.png", full_page=True)
        (cookie,) = await page.page.context.cookies()
        assert cookie["path"] == PREFIX, "other pages of the proxy's host do not get it"
        before = await page.text("#progress")
        await page.page.wait_for_function(
            "before => document.getElementById('progress').textContent !== before", arg=before
        )
        await _every_link_stays_below(page, url)
        assert page.errors == []
        assert page.hosts == {"127.0.0.1"}


async def _the_controls_work(page: Watched, run: Orchestrator) -> None:
    await page.page.click("#pause")
    await page.becomes("#state", "paused")
    assert run.state == "paused"
    await page.page.click("#pause")
    await until(lambda: run.state == "running")


async def _every_link_stays_below(page: Watched, url: str) -> None:
    seen = "() => [...document.querySelectorAll('[href], [src]')].map(e => e.href || e.src)"
    links = await page.page.evaluate(seen)
    assert [link for link in links if not link.startswith(url)] == []
    await page.page.click("a.docs")
    await page.page.wait_for_url(f"{url}docs/")
    assert [x for x in await page.page.evaluate(seen) if not x.startswith((url, "https:"))] == []
    shown = "() => getComputedStyle(document.querySelector('main')).maxWidth"
    assert await page.page.evaluate(shown) != "none", "the style sheet is there"
    await page.page.click("main a[href^='http']:not([href^='https:'])")
    await page.becomes("h1", "HTTP")
    await page.page.click("nav a:first-child")
    await page.page.wait_for_url(url)
    answer = await page.page.request.get(f"{url}docs", max_redirects=1)
    assert (answer.status, answer.url) == (200, f"{url}docs/")


def without_numbers(document: Any) -> Any:
    """Every measurement gone bad."""
    if isinstance(document, float):
        return math.nan
    if isinstance(document, dict):
        return {key: without_numbers(value) for key, value in document.items()}
    return [without_numbers(x) for x in document] if isinstance(document, list) else document


async def test_a_run_of_which_nothing_is_a_number_is_shown(small, browser, tmp_path: Path):
    async with Orchestrator(small(total_env_steps=10**9, port=0), http=True) as run:
        await run.ready()
        await until(lambda: run.status()["progress"]["updates"])
        status, history = run.status(), run._history.document()
    status, history = without_numbers(status), without_numbers(history)
    status["returns"]["train"] |= {"mean": None, "std": None, "nonfinite": 7}
    assert "NaN" in json.dumps(status)
    async with endpoint(status, history) as it:
        page = await open_page(browser, it.url)
        await page.becomes("#state", "running")
        assert (await page.text("#workers tr:first-child td:nth-child(3)")) == "–"
        await page.becomes("#headlines", "not finite in 7")
        assert await page.page.locator("#workers tr").count() == 2
        assert await page.page.locator("#settings form").count() == len(status["settings"])
        await page.becomes("#log", "No warnings.")
        for part in ("#headlines", "#progress", "#waits", "#workers", "#settings"):
            shown = await page.text(part)
            assert not {"NaN", "null", "undefined"} & set(shown.split()), (part, shown)
        await page.page.screenshot(path=tmp_path / "none.png", full_page=True)
        assert page.errors == []
