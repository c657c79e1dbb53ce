"""The docs as a run serves them: under the same rules as all else, and each link leads somewhere."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import aiohttp
import pytest
from yarl import URL

from aa2c import Orchestrator
from aa2c.web import docs
from aa2c.web.assets import STATIC
from aa2c.web.security import SECURITY_HEADERS


class Read(HTMLParser):
    """What a browser would follow or apply."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.add(value)
            elif name == "id" and value:
                self.anchors.add(value)
            elif name == "style" or name.startswith("on"):
                self.inline.append(f"{tag} {name}")
        if tag in ("script", "style"):
            self.inline.append(tag)


@pytest.fixture
async def run(small: Any) -> AsyncIterator[Orchestrator]:
    async with Orchestrator(small(total_env_steps=10**9, port=0), http=True) as run:
        yield run


async def test_the_docs_of_a_running_run(run):
    """One run for everything, because a run takes seconds to come up."""
    async with aiohttp.ClientSession() as client:
        pages = await _every_page_is_there_and_applies_nothing_inline(client, run.url)
        await _every_link_leads_somewhere(client, run.url, pages)
        await _nothing_else_is_served(client, run.url)
        await _other_hosts_and_methods_are_refused(client, run.url)
    documented = (docs.FOLDER / "metrics.md").read_text("utf-8")
    assert [key for key in run.status() if f"`{key}`" not in documented] == []


async def _every_page_is_there_and_applies_nothing_inline(client, url):
    pages = {}
    for name in ("", *sorted(docs.page_names()), "options.md"):
        async with client.get(f"{url}docs/{name}") as answer:
            assert (answer.status, answer.content_type) == (200, "text/html"), name
            assert SECURITY_HEADERS.items() <= dict(answer.headers).items()
            pages[f"docs/{name}"] = Read(await answer.text())
    assert [inline for page in pages.values() for inline in page.inline] == []
    assert {"index", "options", "survival"} <= docs.page_names()
    async with client.get(f"{url}docs", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (308, "docs/")
    return pages


async def _every_link_leads_somewhere(client, url, pages):
    pages = {"": Read((STATIC / "index.html").read_text())} | pages
    wanted = {urljoin(url + place, link) for place, page in pages.items() for link in page.links}
    wanted = {link for link in wanted if link.startswith(url)}
    assert f"{url}docs/survival#crashes-and-hangs" in wanted
    assert f"{url}docs/scale.png" in wanted
    for link in sorted(wanted):
        async with client.get(link) as answer:
            assert answer.status == 200, link
            assert link.endswith(".png") == (answer.content_type == "image/png"), link
            _, _, anchor = link.partition("#")
            if anchor:
                assert anchor in Read(await answer.text()).anchors, link


async def _nothing_else_is_served(client, url):
    for name in (
        "no-such-page",
        "options.md.md",
        "../server.py",
        "..%2Fserver.py",
        "..%2f..%2f..%2f..%2fetc%2fpasswd",
        "%2Fetc%2Fpasswd",
        "..%5cversion.py",
        "../web/static/page.css",
        "options/",
        "options%2F..%2Fhttp.md",
        "options.md%00",
        "no-such-picture.png",
        "%2E%2E%2Fdocs%2Fscale.png",
    ):
        async with client.get(URL(f"{url}docs/{name}", encoded=True)) as answer:
            body = await answer.text()
            assert answer.status == 404, name
            assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
            assert not re.search("root:|__version__|def ", body), name


async def _other_hosts_and_methods_are_refused(client, url):
    async with client.get(f"{url}docs/options", headers={"Host": "evil.example"}) as answer:
        assert answer.status == 403
    async with client.post(f"{url}docs/options", json={}) as answer:
        assert answer.status == 405


async def test_beyond_loopback_the_docs_need_the_token_as_all_that_is_read(small):
    config = small(total_env_steps=10**9, port=0, host="0.0.0.0")
    async with Orchestrator(config, http=True) as run, aiohttp.ClientSession() as client:
        async with client.get(f"{run.url}docs/") as answer:
            assert answer.status == 401
        bearer = {"Authorization": f"Bearer {run.token}"}
        async with client.get(f"{run.url}docs/", headers=bearer) as answer:
            assert answer.status == 200


def test_raw_html_is_shown_as_text_and_headings_have_the_anchors_of_code_hosts():
    shown = docs.render("# A & B\n\n<script>alert(1)</script>\n\n## The page, `/status`\n")
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown
    assert "<title>A &amp; B · aa2c</title>" in shown
    assert '<h2 id="the-page-status">' in shown
