"""The HTTP endpoint of a real run, asked over real sockets."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from aa2c import ConfigError, Orchestrator
from tests.conftest import until
from tests.web.endpoint import endpoint

STATUS_SCHEMA = {
    "schema": None,
    "run": "id name dir mode env state started_at uptime_s seed error",
    "progress": "env_steps total_env_steps updates policy_version episodes",
    "throughput": "env_steps_per_s updates_per_s bottleneck",
    "losses": "policy value explained_variance value_unit entropy grad_norm grad_share approx_kl ratio "
    "clip_fraction learning_rate",
    "policy_lag": "min mean max",
    "updater": "pid state threads restarts last_exit",
    "evaluator": "pid state restarts last_exit",
}
WORKER = "id pid state generation env_steps env_steps_per_s restarts last_exit wait_s"
RING = "worker used capacity committed dropped"


@pytest.fixture
async def run(small: Any) -> AsyncIterator[Orchestrator]:
    async with Orchestrator(small(total_env_steps=10**9, port=0), http=True) as run:
        await run.ready()
        yield run


async def get(run: Orchestrator, path: str, **headers: str) -> tuple[int, str, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{run.url}{path}", headers=headers) as answer,
    ):
        return answer.status, await answer.text(), answer.headers


async def test_the_endpoint_of_a_running_run(run):
    """One run for all routes, because a run takes seconds to come up."""
    await until(lambda: run.status()["progress"]["updates"])
    await _status_has_the_schema(run)
    await _metrics_are_sound_in_both_formats(run)
    await _health_and_page(run)
    await _foreign_hosts_are_refused(run)
    await _other_methods_and_paths_are_refused(run)


async def _status_has_the_schema(run):
    async with aiohttp.ClientSession() as session:
        status = await (await session.get(f"{run.url}status")).json()
    for part, keys in STATUS_SCHEMA.items():
        assert part in status
        if keys:
            assert set(keys.split()) <= set(status[part]), part
    assert status["schema"] == 1
    assert set(status["returns"]) == {"train", "test"}
    assert set(status["returns"]["train"]) == {"mean", "std", "nonfinite", "count", "last"}
    assert set(status["returns"]["test"]["greedy"]) == {
        "mean",
        "std",
        "nonfinite",
        "count",
        "env_steps",
    }
    assert set(status["returns"]["test"]["sampled"]) == {
        "mean",
        "std",
        "nonfinite",
        "count",
        "env_steps",
    }
    assert [set(WORKER.split()) <= set(w) for w in status["workers"]] == [True, True]
    assert [set(RING.split()) <= set(r) for r in status["rings"]] == [True, True]
    assert set(status["rings"][0]["dropped"]) == {"checksum", "fenced", "invalid", "lost"}


async def _metrics_are_sound_in_both_formats(run):
    _, text, headers = await get(run, "metrics")
    assert headers["Content-Type"].startswith("text/plain")
    samples = {s.name: s.value for family in prometheus(text) for s in family.samples}
    assert samples["aa2c_env_steps_total"] > 0
    assert samples["aa2c_worker_up"] == 1
    assert samples["aa2c_policy_lag_versions_count"] > 0
    _, text, headers = await get(run, "metrics", Accept="application/openmetrics-text")
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert any(family.name == "aa2c_env_steps" for family in openmetrics(text))


async def test_promtool_finds_nothing_amiss_in_the_metrics(promtool, run):
    _, text, _ = await get(run, "metrics")
    lint = await asyncio.to_thread(
        subprocess.run,
        [promtool, "check", "metrics"],
        input=text,
        text=True,
        capture_output=True,
    )
    assert (lint.returncode, lint.stdout, lint.stderr) == (0, "", "")


async def _health_and_page(run):
    assert (await get(run, "healthz"))[0] == 200
    assert (await get(run, "readyz"))[0] == 200
    status, text, headers = await get(run, "")
    assert status == 200
    assert "aa2c" in text
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert (await get(run, "static/page.js"))[0] == 200


async def _foreign_hosts_are_refused(run):
    port = run.url.rstrip("/").rpartition(":")[2]
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", f"LOCALHOST:{port}"):
        assert (await get(run, "status", Host=host))[0] == 200, host
    evil = ("evil.example", f"evil.example:{port}", "", f":{port}", f"localhost.evil:{port}",
            f"127.0.0.1.evil.example:{port}", f"localhost@evil.example:{port}", f"0.0.0.0:{port}",
            f"[::]:{port}", f"[::1]evil:{port}", f"::1:{port}")  # fmt: skip
    for host in evil:
        for path in ("", "status", "metrics", "healthz", "readyz", "static/page.js", "nothing"):
            assert (await get(run, path, Host=host))[0] == 403, (host, path)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
    writer.write(b"GET /status HTTP/1.0\r\n\r\n")
    assert b" 403 " in (await reader.readline())
    writer.close()
    await writer.wait_closed()


async def _other_methods_and_paths_are_refused(run):
    async with aiohttp.ClientSession() as session:
        assert (await session.post(f"{run.url}status")).status == 405
        assert (await session.get(f"{run.url}nothing")).status == 404
        traversal = await session.get(f"{run.url}static/..%2f..%2f__init__.py")
        assert traversal.status in (403, 404)


async def test_a_taken_port_is_refused_before_anything_starts(small, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port} is taken"):
            await Orchestrator(small(port=port), http=True).start()
    assert not (tmp_path / "runs").exists()


async def test_health_tells_that_a_run_failed(small):
    async with Orchestrator(small(env="Nope-v1", port=0), http=True) as run:
        assert (await get(run, "readyz"))[0] == 503
        with pytest.raises(Exception, match="Nope"):
            await run.wait()
        status, text, _ = await get(run, "healthz")
        assert status == 503
        assert "Nope-v1" in text
        assert (await get(run, "metrics"))[0] == 200


async def test_a_video_is_served_whole_and_only_if_there_is_one(tmp_path):
    path = tmp_path / "video.mp4"
    path.write_bytes(bytes(range(256)) * 1000)
    async with endpoint(video=path) as server, aiohttp.ClientSession() as session:
        for _ in range(2):  # on one connection
            answer = await session.get(f"{server.url}video")
            assert (answer.status, answer.content_type) == (200, "video/mp4")
            assert await answer.read() == path.read_bytes()
        path.unlink()
        assert (await session.get(f"{server.url}video")).status == 404
    async with endpoint() as server, aiohttp.ClientSession() as session:
        answer = await session.get(f"{server.url}video")
        assert (answer.status, await answer.json()) == (404, {"error": "there is no video."})
