"""A page in a real browser, with all that went wrong on it."""

from __future__ import annotations

from typing import Any

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT_MS = 30_000


class Watched:
    """A page, with all that went wrong on it and all that it asked for."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._hear)
        page.on("request", lambda request: self.hosts.add(request.url.split("/")[2].split(":")[0]))

    def _hear(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    async def text(self, selector: str) -> str:
        return await self.page.inner_text(selector)

    async def becomes(self, selector: str, text: str) -> None:
        await self.page.locator(selector, has_text=text).first.wait_for()


async def open_page(browser: Any, url: str, **options: Any) -> Watched:
    context = await browser.new_context(**options)
    watched = Watched(await context.new_page())
    await watched.page.goto(url)
    await watched.page.locator(".u-wrap canvas").first.wait_for()
    return watched
