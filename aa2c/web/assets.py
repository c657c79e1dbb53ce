"""The dashboard's files, served from memory.

Requests are looked up in a table of their names, which rules out path traversal. Unlike files sent by the
kernel, buffers are subject to their connection's write timeout.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from aiohttp import web

STATIC = Path(__file__).parent / "static"
CONTENT_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


@cache
def names() -> frozenset[str]:
    """The names of all files, below `static`."""
    files = (path for path in STATIC.rglob("*") if path.is_file())
    return frozenset(path.relative_to(STATIC).as_posix() for path in files)


def asset(name: str) -> web.Response | None:
    """A response with a file; None if there is no such file."""
    if name not in names():
        return None
    content_type = CONTENT_TYPES.get(Path(name).suffix, "text/plain")
    return web.Response(body=_content(name), content_type=content_type, charset="utf-8")


@cache  # only of names that exist, so that no client can fill it
def _content(name: str) -> bytes:
    return (STATIC / name).read_bytes()
