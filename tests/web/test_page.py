"""The page of a real run in a real browser: what a person sees, and what their clicks do."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import psutil
import pytest

from aa2c import Orchestrator
from aa2c.host.incarnation import ChildSlot
from tests.conftest import until
from tests.run.test_hosts_shown import HOSTS
from tests.web.browser import Watched, open_page

axe = pytest.importorskip(
    "axe_playwright_python.async_playwright", reason="NOT CHECKED: the page (axe is not installed)"
)
pytestmark = pytest.mark.timeout(240)
INK = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const colours = new Set();
  for (let i = 0; i < data.length; i += 4) if (data[i + 3]) colours.add(data.slice(i, i + 3).join());
  return colours.size;
}"""


@pytest.mark.long
async def test_the_page_of_a_run(small, browser, tmp_path):
    """One run and one browser for everything, because both take seconds to come up."""
    slow_restarts = {"restart_backoff_s": 3.0}  # the page, which looks once a second, must see one
    evaluation = {"eval_interval_s": 1.0, "eval_episodes": 1, "eval_max_steps": 60}
    config = small(total_env_steps=10**9, port=0, **evaluation, **slow_restarts)
    async with Orchestrator(config, http=True) as run:
        await run.ready()
        await until(lambda: run.status()["returns"]["test"]["sampled"]["count"])
        page = await open_page(browser, f"{run.url}#token={run.token}")
        assert page.page.url == run.url, "the token does not stay in the address bar"
        await _it_shows_the_run(page, run)
        await _its_points_are_those_of_the_run(page, run)
        await _a_zoom_survives_updates(page)
        await _it_tells_of_the_run_itself(page, run)
        await _it_says_how_often_a_worker_was_killed(page, run)
        await _it_shows_hosts_where_workers_are_elsewhere(page, run)
        await _each_control_has_its_effect(page, run)
        await _it_shows_what_a_worker_sees(page)
        await _it_plays_a_video_of_the_newest_policy(page, run)
        await _who_comes_late_sees_what_was(browser, run)
        await _it_can_be_read_by_everyone(browser, run, tmp_path)
        await _a_dialog_asks_before_the_run_is_stopped(page, run)
        # Refused on purpose: a value, and at last every connection.
        expected = ("422", "ERR_CONNECTION_REFUSED")
        assert [e for e in page.errors if not any(words in e for words in expected)] == []
        assert page.hosts == {"127.0.0.1"}


async def _it_shows_hosts_where_workers_are_elsewhere(page, run):
    assert await page.page.locator("#hosts-section").is_hidden()
    run._engine.hosts = lambda: HOSTS
    await page.becomes("#hosts tr:first-child", "node-1")
    assert "24 MB" in await page.text("#hosts tr:first-child")
    assert await page.text("#hosts tr:nth-child(2) td.bad") == "lost"
    run._engine.bridge = ChildSlot("engine", restarts=1, exits=Counter({"SIGKILL": 1}))
    await page.becomes("#engine", "Engine: starting; restarted once, after SIGKILL once.")
    run._engine.bridge = None
    del run._engine.hosts
    await page.page.locator("#hosts-section").wait_for(state="hidden")


async def _it_shows_the_run(page, run):
    assert await page.text("#what") == "CartPole-v1, mode grad"
    await page.becomes("#state", "running")
    await _the_next_update(page)
    assert await page.page.title() == "0 % CartPole-v1 · aa2c"
    canvases = page.page.locator(".u-wrap canvas")
    assert await canvases.count() == 12, "returns, and eleven of losses and speed"
    for i in range(12):
        assert await canvases.nth(i).evaluate(INK) > 2, f"chart {i} is blank"
    hint = page.page.locator("[data-series=explained_variance] .hint")
    await hint.locator("summary").click()
    assert "no better than a constant" in await hint.inner_text()
    assert await page.page.is_hidden("#warnings")
    assert "over env steps" in await page.page.get_attribute("#returns", "aria-label")
    assert "Records by policy lag." in await page.page.get_attribute("#lag", "aria-label")
    assert (await page.text("#advice")).endswith(".")
    assert await page.page.locator("#workers tr").count() == 2


async def _its_points_are_those_of_the_run(page, run):
    """As the returns' CSV has them: evaluations at the env steps of their parameters, and episodes."""
    async with page.page.expect_download() as downloading:
        await page.page.click("#returns-csv")
    path = await (await downloading.value).path()
    with open(path, newline="") as file:  # noqa: ASYNC230 (a small file)
        rows = list(csv.DictReader(file))
    shown = [int(row["env_steps"]) for row in rows if row["kind"] == "test_greedy_mean"]
    assert shown
    assert set(shown) <= set(run._history.document()["tests"]["greedy"]["env_steps"])
    assert [row for row in rows if row["kind"] == "train_episode"]


async def _a_zoom_survives_updates(page):
    box = await page.page.locator("#returns .u-over").bounding_box()
    x, y = box["x"] + box["width"] / 4, box["y"] + box["height"] / 2
    await page.page.mouse.move(x, y)
    await page.page.mouse.down()
    await page.page.mouse.move(x + box["width"] / 2, y, steps=3)
    await page.page.mouse.up()
    await page.page.locator("#whole").wait_for()
    shown = (await _range_shown(page))[0]
    assert " from " in shown
    for _ in range(2):
        await _the_next_update(page)
    assert await _range_shown(page) == [shown] * 12, "all charts show the same part, as before"
    await page.page.click("#whole")
    assert not any(" from " in it for it in await _range_shown(page))
    assert await page.page.is_hidden("#whole")


async def _it_tells_of_the_run_itself(page, run):
    assert f"aa2c serve --resume {run.dir}" in await page.text("#commands")
    await page.becomes("#different .differs", "eval_interval_s")
    await page.page.select_option("#log-level", "all")
    await page.becomes("#log li", "orchestrator: running")
    await page.page.select_option("#log-level", "warnings")


async def _range_shown(page):
    labels = await page.page.eval_on_selector_all(
        "[aria-label^='Chart over']", "all => all.map(it => it.getAttribute('aria-label'))"
    )
    return [label.partition(";")[0] for label in labels]


async def _the_next_update(page):
    before = await page.text("#progress")
    await page.page.wait_for_function(
        "before => document.getElementById('progress').textContent !== before", arg=before
    )


async def _it_says_how_often_a_worker_was_killed(page, run):
    psutil.Process(run.status()["workers"][0]["pid"]).kill()
    await page.becomes("#state", "degraded")
    await page.becomes("#workers tr:first-child", "SIGKILL")
    await page.becomes("#advice", "Worker 0 is ")
    psutil.Process(run.status()["evaluator"]["pid"]).kill()
    await page.becomes("#evaluator", "restarted once, after SIGKILL once")
    await page.becomes("#log li", "child ended and is started again")
    await until(lambda: run.state == "running")


async def _each_control_has_its_effect(page, run):
    click = page.page.click
    await click("#pause")
    await page.becomes("#state", "paused")
    assert run.state == "paused"
    await page.becomes("#pause", "Resume")
    await click("#pause")
    await page.becomes("#state", "running")
    await click("#checkpoint")
    await page.becomes("#said", "written: ")
    await page.page.fill("#value-learning_rate", "0.0005")
    await page.page.press("#value-learning_rate", "Enter")
    await until(lambda: run.status()["settings"]["learning_rate"]["value"] == 0.0005)
    await page.page.fill("#value-ent_coef", "-1")
    await click("#setting-ent_coef button")
    await page.becomes("#refused-ent_coef", "--ent-coef -1.0 must be at least 0")
    assert run.status()["settings"]["ent_coef"]["value"] == 0.0
    await page.page.fill("#value-workers", "3")
    await click("#setting-workers button")
    await until(lambda: len(run.status()["workers"]) == 3)
    await page.page.locator("#workers tr").nth(2).wait_for()
    marks = [mark["kind"] for mark in run.status()["marks"]]
    assert marks == ["pause", "resume", "checkpoint", "set", "workers"]
    await page.page.select_option("#x-axis", "time_s")
    assert "over time" in await page.page.get_attribute("#returns", "aria-label")


async def _it_shows_what_a_worker_sees(page):
    for _ in range(2):  # impatient
        await page.page.click("#watch")
    await page.page.click("#watch")
    await page.becomes("#vector", "Newest observation:")
    assert await page.text("#watch") == "Stop"
    await page.page.click("#watch")
    assert await page.text("#watch") == "Watch"


async def _it_plays_a_video_of_the_newest_policy(page, run):
    await page.page.click("#record")
    await until(lambda: (run.status()["video"] or {}).get("state") in ("ready", "failed"), 120)
    told = run.status()["video"]
    assert told["state"] == "ready", told["error"]
    await page.becomes("#video-words", "Return ")
    assert f"{told['length']} env steps" in await page.text("#video-words")
    await page.page.wait_for_function("() => document.getElementById('video').currentTime > 0")
    shown = await page.page.eval_on_selector("#video", "it => [it.videoWidth, it.duration]")
    assert shown == [600, pytest.approx(told["duration_s"], abs=0.1)]
    async with page.page.expect_download() as downloading:
        await page.page.click("#video-words a")
    saved = await downloading.value
    assert saved.suggested_filename == f"{run.dir.name}-{told['env_steps']}.mp4"
    assert Path(await saved.path()).stat().st_size == told["bytes"]
    assert not await page.page.is_disabled("#record"), "another may be asked for"


async def _who_comes_late_sees_what_was(browser, run):
    late = await open_page(browser, run.url)
    series = await late.page.evaluate("fetch('/history').then(answer => answer.json())")
    assert series["series"]["time_s"][0] < 5
    await late.becomes("#locked", "open the address that the program printed")
    for control in (
        "#pause",
        "#checkpoint",
        "#stop",
        "#record",
        "#value-workers",
        "#value-ent_coef",
    ):
        assert await late.page.is_disabled(control), control
    assert late.errors == []
    await late.page.context.close()


async def _it_can_be_read_by_everyone(browser, run, tmp_path: Path):
    for scheme in ("light", "dark"):
        for width in (1280, 360):
            view = {"width": width, "height": 800}
            page = await open_page(
                browser, run.url, color_scheme=scheme, viewport=view, bypass_csp=True
            )
            await page.becomes("#state", "running")
            await page.page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)
            wide = await page.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{scheme}, {width} wide: the page must be moved sideways"
            found = await axe.Axe().run(page.page)
            assert found.response["violations"] == [], found.generate_report()
            await page.page.context.close()


async def _a_dialog_asks_before_the_run_is_stopped(page, run):
    await page.page.click("#stop")
    await page.page.click("#go-on")
    assert run.state == "running"
    await page.page.click("#stop")
    await page.page.click("#really-stop")
    await page.becomes("#state", "stopped")
    assert run.state == "stopped"
    before = await page.text("#headlines")
    await run._close_server()  # as when its program ends
    await page.becomes("#progress", "the program has exited")
    assert await page.text("#state") == "stopped", "an end is no trouble"
    assert await page.page.is_hidden("#trouble")
    assert await page.page.locator("body.stale").count() == 0, "it is the last word, and readable"
    assert await page.text("#headlines") == before
    assert await page.page.locator("main .bad").count() == 0, "all has ended as it should"
    assert await page.page.is_disabled("#stop")


@pytest.mark.long
async def test_the_page_beyond_loopback_takes_its_token_from_the_address(small, browser):
    config = small(total_env_steps=10**9, port=0, host="0.0.0.0")
    async with Orchestrator(config, http=True) as run:
        await run.ready()
        context = await browser.new_context()
        page = Watched(await context.new_page())
        await page.page.goto(run.url)
        await page.becomes("#trouble", "Reading this run needs its token")
        # As when the whole address is pasted where the page is open already: nothing is loaded anew.
        await page.page.evaluate("token => { location.hash = `token=${token}`; }", run.token)
        await page.becomes("#what", "CartPole-v1, mode grad")
        assert page.page.url == run.url, "the token does not stay in the address bar"
        await page.becomes("#state", "running")
        assert not await page.page.is_disabled("#pause")
        again = await open_page(browser, f"{run.url}#token={run.token}")
        await again.becomes("#state", "running")
        assert again.errors == []


@pytest.mark.long
async def test_a_page_finds_the_next_run_on_its_port(small, browser):
    async with Orchestrator(small(total_env_steps=10**9, port=0), http=True) as run:
        await run.ready()
        page = await open_page(browser, f"{run.url}#token={run.token}")
        await page.becomes("#state", "running")
        assert not await page.page.is_disabled("#pause")
        port = int(run.url.rstrip("/").rpartition(":")[2])
        await run._close_server()
        await page.becomes("#state", "connection lost")
        await page.becomes("#trouble", "Trying again")
        assert not await page.page.is_disabled("#really-stop"), "nothing enables it again"
    again = small(total_env_steps=10**9, port=port, env="Acrobot-v1")
    async with Orchestrator(again, http=True) as run:
        await page.becomes("#what", "Acrobot-v1, mode grad")
        await page.becomes("#state", "running")
        assert await page.page.is_disabled("#pause"), "the next run has another token"
