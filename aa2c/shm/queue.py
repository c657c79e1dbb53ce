"""Small messages between the orchestrator and one child: msgpack over a one-way pipe.

Every incarnation of a child gets its own pair of pipes (commands down, reports up), so a killed
child spoils only its own. No pickle, no lock, no feeder thread, and the reader never blocks: a
message that was cut off by a kill simply never becomes whole.
"""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from typing import Any

import msgpack

from aa2c.ports import Message
from aa2c.shm.slot import Malformed

MESSAGE_LIMIT = 1024 * 1024
_READ_BYTES = 65536


class Sender:
    """The writing end; blocks while the pipe is full."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, kind: str, **fields: Any) -> None:
        """Send one message. Raises `OSError` when nobody reads any more."""
        data = memoryview(msgpack.packb({"kind": kind, **fields}))
        while data:
            data = data[os.write(self._connection.fileno(), data) :]

    def close(self) -> None:
        self._connection.close()


class Receiver:
    """The reading end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        os.set_blocking(connection.fileno(), False)
        self._unpacker = msgpack.Unpacker(
            raw=False,
            strict_map_key=True,
            max_buffer_size=MESSAGE_LIMIT,
            max_str_len=MESSAGE_LIMIT,
            max_bin_len=MESSAGE_LIMIT,
            max_ext_len=0,
        )

    def fileno(self) -> int:
        return self._connection.fileno()

    def drain(self) -> list[Message]:
        """All whole messages that have arrived; never blocks.

        Raises `EOFError` when the other end is closed and everything was read, and `Malformed`
        when what arrives is not a message.
        """
        try:
            data = os.read(self.fileno(), _READ_BYTES)
        except BlockingIOError:
            return []
        if not data:
            raise EOFError
        try:
            self._unpacker.feed(data)
            messages = list(self._unpacker)
        except Exception:  # msgpack raises many kinds for bytes that are not msgpack
            raise Malformed("invalid") from None
        if not all(type(m) is dict and type(m.get("kind")) is str for m in messages):
            raise Malformed("invalid")
        return messages

    def close(self) -> None:
        self._connection.close()
