"""The connections of an endpoint: no client can exhaust them.

A connection is closed if its answer is not read in time. If all are taken, the most expendable one makes
room for a new one: first those that do not read, then idle ones; those that have shown the token last.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import cast

from aiohttp import web

MOST_CONNECTIONS = 256  # more would exhaust the run's file descriptors
WRITE_S = 5.0  # within this time a client must read at least
LEAST_BYTES = 16 * 1024  # of an answer: 3 KiB/s, the slowest usable line


class Connection(asyncio.Protocol):
    """One client: passes everything on to `inner`, and knows how long it has been stuck."""

    def __init__(self, inner: asyncio.Protocol, others: set[Connection]) -> None:
        self.is_owners = False  # has shown the token
        self._inner = inner
        self._others = others
        self._answers = 0  # under way
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._since = _now()  # it is stuck, or the last request came

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        # An answer is done once its last byte has been sent, so that answers do not pile up.
        self._transport.set_write_buffer_limits(0)
        if len(self._others) >= MOST_CONNECTIONS:
            min(self._others, key=Connection._worth).drop()
        self._others.add(self)
        self._inner.connection_made(transport)

    def _worth(self) -> tuple[bool, int, float]:
        """A sort key: the most expendable first."""
        is_stuck = self._timer is not None
        return self.is_owners, 0 if is_stuck else 2 if self._answers else 1, self._since

    def data_received(self, data: bytes) -> None:
        if self._timer is None:
            self._since = _now()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """The client has not read everything yet."""
        self._since = _now()
        self._wait_for_reader()
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """The client has read everything."""
        self._forget_timer()
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        self._others.discard(self)
        self._inner.connection_lost(exc)

    def drop(self) -> None:
        """Close at once, even if there is unsent data."""
        self._others.discard(self)
        if self._transport is not None:
            self._transport.abort()

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """A context in which a handler is at work."""
        self._answers += 1
        try:
            yield
        finally:
            self._answers -= 1

    def _wait_for_reader(self) -> None:
        assert self._transport is not None
        left = self._transport.get_write_buffer_size()
        self._timer = asyncio.get_running_loop().call_later(WRITE_S, self._check, left)

    def _check(self, before: int) -> None:
        assert self._transport is not None
        if before - self._transport.get_write_buffer_size() < LEAST_BYTES:
            self.drop()
        else:
            self._wait_for_reader()

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def connection(request: web.Request) -> Connection | None:
    """The connection of a request; None if it has been lost."""
    protocol = request.transport.get_protocol() if request.transport else None
    return protocol if isinstance(protocol, Connection) else None


def _now() -> float:
    return asyncio.get_running_loop().time()
