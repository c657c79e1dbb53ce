"""What passes between the bridge and a host: plain numbers, strings and bytes, as msgpack.

The big parts, parameters down and records up, travel beside a frame as they are. A frame carries its
host's epoch and the next number of its direction: whatever else arrives is `OutOfOrder`, and ends the
host, which is then started again as another epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import msgpack
import numpy as np
from numpy.typing import NDArray

from aa2c.config.config import Config
from aa2c.ports import Message
from aa2c.shared_model import Vector
from aa2c.shm.relay import OutOfOrder

Block = NDArray[np.uint8]
FROM_WORKER, EXITED, STARTED = "from", "exited", "started"  # kinds of events


@dataclass(kw_only=True)
class Frame:
    """Either direction's."""

    epoch: int
    number: int

    def packed(self) -> bytes:
        data: bytes = msgpack.packb(vars(self))
        return data

    @classmethod
    def unpacked(cls, data: bytes, *, epoch: int, number: int) -> Self:
        """The frame, which must be the next of this epoch. Raises `OutOfOrder`."""
        try:
            frame = cls(**msgpack.unpackb(data, raw=False, strict_map_key=True))
        except Exception as error:  # msgpack raises many kinds for bytes that are not msgpack
            raise OutOfOrder(f"not a frame: {error!r}") from None
        if (frame.epoch, frame.number) != (epoch, number):
            raise OutOfOrder(
                f"frame {frame.number} of epoch {frame.epoch} came for {number} of {epoch}"
            )
        return frame


@dataclass(kw_only=True)
class Down(Frame):
    """To a host: the run's and the updater's counters, what the updater has released, commands.

    `version` is that of the parameters that come with it, or 0.
    """

    run: bytes
    updater: bytes
    env_steps_elsewhere: int
    released: list[tuple[int, int, int]] = field(default_factory=list)  # worker, generation, tail
    commands: list[Message] = field(default_factory=list)
    version: int = 0


@dataclass(kw_only=True)
class Up(Frame):
    """From a host: records (worker, generation, sequence, is packed), whose bytes come with it, in order.

    Then what its workers said and how they ended, their counters and lines of its log.
    """

    records: list[tuple[int, int, int, bool]] = field(default_factory=list)
    events: list[Message] = field(default_factory=list)
    rows: list[tuple[int, bytes]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ShareSpec:
    """All that a host is told at its start: which workers are its share, and of which run."""

    config: Config
    registered: dict[str, bytes]
    run_id: str
    epoch: int
    first: int
    count: int
    env_steps_before: int

    @property
    def workers(self) -> range:
        return range(self.first, self.first + self.count)


class Link(Protocol):
    """A host's share, from afar. What it raises means that the host is lost."""

    name: str
    address: str

    async def tell(self, frame: bytes, version: int, params: Vector | None) -> None:
        """Return once the host has acted on it."""

    async def collect(self) -> tuple[bytes, list[Any]]:
        """The next frame up with the records' bytes; waits a moment for something to tell."""

    async def end(self) -> None:
        """End it in good order."""

    def kill(self) -> None: ...


class Cluster(Protocol):
    """Where hosts are."""

    def open(self) -> None:
        """Connect; blocks. Raises `StartError` for what will not be better the next time."""

    async def start(self, share: ShareSpec) -> Link:
        """Start a share on the host that has most room, and wait until it is there.

        Raises `StartError` for what will not be better the next time.
        """

    async def is_there(self) -> bool:
        """Whether its head answers."""

    async def room(self) -> int:
        """Bytes that each node has at least for what is under way from or to it."""

    def close(self) -> None: ...
