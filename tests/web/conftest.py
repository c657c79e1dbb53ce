"""What tests of the page share."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conftest import program
from tests.web.browser import ARGUMENTS


@pytest.fixture
def small(small: Any) -> Any:
    """As everywhere, but its runs leave the cores to whoever asks them."""
    return functools.partial(small, wrapper=["tests.web.calm:Calm"])


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    chromium = program("the page in a browser", "chromium", "google-chrome")
    playwright = pytest.importorskip(
        "playwright.async_api", reason="NOT CHECKED: the page (playwright is not installed)"
    )
    async with playwright.async_playwright() as started:
        browser = await started.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        await browser.close()
