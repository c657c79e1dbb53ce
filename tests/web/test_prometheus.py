"""Prometheus with a real run; and the dashboard and the alert rules, which name only what there is."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from aa2c import Orchestrator
from tests.conftest import program, until
from tools.docs_tables import metric_families

TOOLS = Path(__file__).parents[2] / "tools"
SUFFIXES = {
    "counter": ("_total",),
    "info": ("_info",),
    "histogram": ("_bucket", "_count", "_sum"),
    "gauge": ("",),
    "stateset": ("",),
}


@pytest.fixture(scope="module")
def exposed() -> dict[str, set[str]]:
    """Every sample's name with its labels."""
    return {
        family.name + suffix: {label for sample in family.samples for label in sample.labels}
        for family in metric_families()
        for suffix in SUFFIXES[family.type]
    }


def expressions() -> Iterator[str]:
    yield from re.findall(r"^ +expr: (.*)$", (TOOLS / "alerts.yml").read_text(), re.MULTILINE)
    for panel in json.loads((TOOLS / "grafana.json").read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def test_dashboard_and_alerts_name_only_metrics_and_labels_that_exist(exposed):
    found = 0
    for expression in expressions():
        names = re.findall(
            r"\baa2c_[a-z_]+(?!\w|=)", re.sub(r"aa2c_run_state=", "state=", expression)
        )
        assert names, expression
        for name in names:
            assert name in exposed, (name, expression)
            found += 1
    assert found > 35
    texts = (TOOLS / "alerts.yml").read_text() + (TOOLS / "grafana.json").read_text()
    labels = set().union(*exposed.values())
    shown = set(re.findall(r"\$labels\.(\w+)|\{\{(\w+)\}\}", texts))
    assert {a or b for a, b in shown} <= labels | {"instance"}


@pytest.mark.parametrize(
    "arguments", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")]
)
def test_the_alert_rules_are_sound_and_fire_when_they_should(promtool, arguments):
    result = subprocess.run(
        [promtool, *arguments], cwd=TOOLS, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "SUCCESS" in result.stdout


@asynccontextmanager
async def prometheus_of(binary: str, target: str, directory: Path) -> AsyncIterator[str]:
    """A real server that scrapes this every second; its address."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(TOOLS / "alerts.yml")],
        "scrape_configs": [{"job_name": "aa2c", "static_configs": [{"targets": [target]}]}],
    }
    (directory / "prometheus.yml").write_text(json.dumps(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (directory / "prometheus.log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            binary, f"--config.file={directory}/prometheus.yml", f"--web.listen-address={address}",
            f"--storage.tsdb.path={directory}/data", stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield f"http://{address}/api/v1"
        finally:
            process.terminate()
            await process.wait()


async def ask(api: str, path: str, **query: Any) -> Any:
    """What the server answers; None while it is not up."""
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{api}/{path}", params=query) as answer,
        ):
            return (await answer.json())["data"]
    except aiohttp.ClientError:
        return None


async def value_of(api: str, query: str) -> float | None:
    found = await ask(api, "query", query=query)
    return float(found["result"][0]["value"][1]) if found and found["result"] else None


async def becomes(api: str, query: str, least: float) -> None:
    async with asyncio.timeout(60):
        while ((await value_of(api, query)) or 0) < least:  # noqa: ASYNC110 (another server's state)
            await asyncio.sleep(0.3)


@pytest.mark.long
async def test_a_prometheus_server_scrapes_a_run_whose_counters_survive_a_kill(small, tmp_path):
    binary = program("scraping by Prometheus", "prometheus")
    async with Orchestrator(small(total_env_steps=10**9, port=0), http=True) as run:
        await run.ready()
        target = run.url.removeprefix("http://").rstrip("/")
        async with prometheus_of(binary, target, tmp_path) as api:
            await becomes(api, "up", 1)
            await becomes(api, "rate(aa2c_env_steps_total[10s])", 1)
            psutil.Process(run.status()["workers"][0]["pid"]).kill()
            await becomes(api, 'aa2c_worker_restarts_total{worker="0"}', 1)
            await until(lambda: run.status()["workers"][0]["state"] == "running")
            await becomes(api, 'rate(aa2c_worker_env_steps_total{worker="0"}[4s])', 1)
            await _no_counter_has_gone_back(api)
            groups = (await ask(api, "rules"))["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            assert {rule["health"] for rule in rules} == {"ok"}, rules
            assert {rule["state"] for rule in rules} <= {"inactive", "pending"}


async def _no_counter_has_gone_back(api: str) -> None:
    found = await ask(api, "query", query='{__name__=~"aa2c_.*_total"}[5m]')
    assert len(found["result"]) > 15
    for series in found["result"]:
        values = [float(value) for _, value in series["values"]]
        assert values == sorted(values), series["metric"]
