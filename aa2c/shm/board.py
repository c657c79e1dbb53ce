"""The parameter board: how published parameters reach the workers.

One writer, any number of readers, no lock. Two buffers take turns; each has a sequence word that
is odd while its buffer is written (a seqlock), and the version word moves when a buffer is whole.
A reader copies, then checks that the buffer it copied was not touched meanwhile. A writer killed
in the middle leaves the version word at the whole buffer before it.

    words 0: policy version; 16, 32: sequence words of the buffers     4096: buffer 0, buffer 1
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from aa2c.failpoint import failpoint
from aa2c.shm.segment import STORES_ARE_ORDERED, Segment
from aa2c.shm.slot import align

_CONTROL_BYTES = 4096
_VERSION = 0
_SEQUENCES = (16, 32)
_CHECKSUMS = (17, 33)
_PULL_ATTEMPTS = 100

Vector = NDArray[np.float32]


def board_bytes(num_params: int) -> int:
    """Bytes of a segment for a vector of `num_params` float32."""
    return _CONTROL_BYTES + 2 * align(4 * num_params)


class ParameterBoard:
    """`publish` in the updater, `pull` in everyone else."""

    def __init__(
        self,
        segment: Segment,
        num_params: int,
        *,
        checksum: bool = not STORES_ARE_ORDERED,
        start: int = 0,
    ) -> None:
        """Over the segment's bytes from `start` on."""
        if len(segment.buf) < start + board_bytes(num_params):
            raise ValueError(f"segment {segment.name} is too small for {num_params} parameters")
        self._segment = segment
        self._checksum = checksum
        first = start + _CONTROL_BYTES
        self._words = segment.buf[start:first].cast("Q")
        self._buffers: list[Vector] = [
            np.frombuffer(segment.buf, np.float32, num_params, offset)
            for offset in (first, first + align(4 * num_params))
        ]

    @property
    def version(self) -> int:
        """Number of publications so far; 0 means that there is nothing to pull."""
        return self._words[_VERSION]

    def publish(self, vector: Vector, *, after: int = 0) -> int:
        """Copy the vector [num_params] out to the readers; returns its policy version.

        That is one more than the last, or than `after`, where a run is resumed.
        """
        version = max(self._words[_VERSION], after) + 1
        buffer = version % 2
        self._words[_SEQUENCES[buffer]] = 2 * version - 1
        failpoint("params.mid_publish")
        self._buffers[buffer][:] = vector
        if self._checksum:
            self._words[_CHECKSUMS[buffer]] = zlib.crc32(self._buffers[buffer].data)
        self._words[_SEQUENCES[buffer]] = 2 * version
        self._words[_VERSION] = version
        return version

    def pull(self, out: Vector) -> int:
        """Copy the newest parameters into `out`; returns their policy version.

        0 means that nothing was published, or that the writer overtook every attempt; `out` may
        then hold a mixture and must not be acted on.
        """
        for _ in range(_PULL_ATTEMPTS):
            version = self._words[_VERSION]
            if version == 0:
                return 0
            buffer = version % 2
            if self._words[_SEQUENCES[buffer]] != 2 * version:
                continue
            out[:] = self._buffers[buffer]
            untouched = self._words[_SEQUENCES[buffer]] == 2 * version
            if untouched and self._is_intact(buffer, out):
                return version
        return 0

    def _is_intact(self, buffer: int, copied: Vector) -> bool:
        return not self._checksum or zlib.crc32(copied.data) == self._words[_CHECKSUMS[buffer]]

    def close(self) -> None:
        self._buffers.clear()
        self._words.release()
        self._segment.close()
