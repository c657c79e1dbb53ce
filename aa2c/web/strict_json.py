"""JSON that every parser takes: what is no number (NaN, an infinity) is null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from aiohttp import web


def dumps(document: Any) -> str:
    """The text of a document."""
    try:
        return json.dumps(document, allow_nan=False)
    except ValueError:  # seldom, so that only then the whole document is walked
        return json.dumps(_finite(document), allow_nan=False)


def json_response(
    document: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A document as an answer."""
    text = dumps(document)
    return web.Response(text=text, status=status, headers=headers, content_type="application/json")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
