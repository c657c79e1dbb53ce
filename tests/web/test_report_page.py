"""A report's page in a browser: light and dark, wide and narrow, from its file alone."""

from __future__ import annotations

import pytest

from aa2c.report.report import draw_report
from tests.report.written_run import write_run
from tests.web.browser import Watched

axe = pytest.importorskip(
    "axe_playwright_python.async_playwright",
    reason="NOT CHECKED: the report's page (axe is not installed)",
)


@pytest.mark.long
async def test_the_page_of_a_report_is_accessible_and_asks_for_nothing(tmp_path, browser):
    runs = [
        write_run(tmp_path / f"{mode}-{seed}", mode=mode, seed=seed)
        for mode in ("grad", "traj")
        for seed in (0, 1)
    ]
    path = draw_report(runs, tmp_path / "report")[-1]
    for scheme, width in (("light", 1400), ("dark", 390)):
        context = await browser.new_context(
            color_scheme=scheme, viewport={"width": width, "height": 900}
        )
        page = Watched(await context.new_page())
        await page.page.goto(path.as_uri())
        found = await axe.Axe().run(page.page)
        assert found.violations_count == 0, found.generate_report()
        assert await page.page.evaluate("document.documentElement.scrollWidth") == width
        loaded = "[...document.images].map(image => image.naturalWidth > 1000)"
        assert await page.page.evaluate(loaded) == [True] * 3
        dark = await page.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (dark == "rgb(18, 18, 18)") == (scheme == "dark")
        assert page.errors == []
        assert page.hosts == {""}, "but for the file itself"
