"""Requests of an endpoint; each answer has the headers of every answer."""

from __future__ import annotations

from typing import Any

import aiohttp

from aa2c import Orchestrator
from aa2c.web.server import Server

READING = ("status", "history", "about", "log", "metrics", "frames", "video", "session", "events")
CONTROLS = ("pause", "resume", "checkpoint", "video", "stop", "workers", "set")


async def ask(
    run: Orchestrator | Server, method: str, path: str, **request: Any
) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"{run.url}{path}", **request) as answer,
    ):
        body = "" if answer.content_type == "text/event-stream" else await answer.text()
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in answer.headers
        return answer.status, body


def bearer(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def get(port: int, path: str, **headers: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/{path}", headers=headers) as answer,
    ):
        return answer.status, await answer.text()
