"""The files of the page, from memory.

A request is looked up in a table of their names, so that no path can lead elsewhere; and unlike a file
that the kernel sends, what is in a buffer is under the write timeout of its connection.
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
    """The files that ship, below `static`."""
    files = (path for path in STATIC.rglob("*") if path.is_file())
    return frozenset(path.relative_to(STATIC).as_posix() for path in files)


def asset(name: str) -> web.Response | None:
    """A file as an answer; None if there is no such file."""
    if name not in names():
        return None
    content_type = CONTENT_TYPES.get(Path(name).suffix, "text/plain")
    return web.Response(body=_content(name), content_type=content_type, charset="utf-8")


@cache  # of names that exist only, so that no client can fill it
def _content(name: str) -> bytes:
    return (STATIC / name).read_bytes()
