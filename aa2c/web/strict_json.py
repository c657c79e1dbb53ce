"""Answers in JSON that every parser takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from aa2c.strict_json import strict_json


def json_response(
    document: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A document as an answer."""
    text = strict_json(document)
    return web.Response(text=text, status=status, headers=headers, content_type="application/json")
