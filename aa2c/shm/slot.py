"""The bytes of one record: a checked prefix, a msgpack header, and aligned arrays.

    0    8 words: sequence, header bytes, payload bytes, has payload CRC?, payload CRC-32, -, -,
         CRC-32 of the words before it and the header
    64   header (msgpack), at most `HEADER_LIMIT` bytes
    1024 arrays, each aligned to 64 bytes, in the header's order

The reader trusts nothing it finds here: every length is bounded by the slot before it is used,
and whatever does not fit raises `Malformed`, which the ring turns into a counted drop.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import msgpack
import numpy as np
from numpy.typing import NDArray

LAYOUT_VERSION = 1
ALIGNMENT = 64
PREFIX_BYTES = 64
PAYLOAD_OFFSET = 1024
HEADER_LIMIT = PAYLOAD_OFFSET - PREFIX_BYTES
MAX_ARRAYS = 16
MAX_DIMENSIONS = 8
MAX_ELEMENTS = 2**32
MAX_VALUES = 32
MAX_NAME = 64
DTYPES = frozenset({"|u1", "|i1", "|b1", "<i4", "<i8", "<f4", "<f8"})

_SEQUENCE, _HEADER_BYTES, _PAYLOAD_BYTES, _HAS_PAYLOAD_CRC, _PAYLOAD_CRC = range(5)
_HEADER_CRC = 7
_CHECKED_PREFIX_BYTES = 8 * _HEADER_CRC

Arrays = dict[str, NDArray[Any]]


class Malformed(Exception):
    """The bytes are not a record; `reason` is the label under which the drop is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ArraySpec(NamedTuple):
    """Name, numpy dtype string (with byte order) and shape of one array of a record."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * int(self.dtype[-1])


@dataclass(frozen=True, slots=True)
class Header:
    """What every record says about itself; `values` holds the mode's own counts and losses."""

    worker: int
    generation: int
    sequence: int
    policy_version: int
    values: Mapping[str, float] = field(default_factory=dict)


def align(nbytes: int) -> int:
    """The next multiple of `ALIGNMENT`."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


@lru_cache(maxsize=64)
def slot_bytes(specs: tuple[ArraySpec, ...]) -> int:
    """Bytes of a slot that holds these arrays."""
    return PAYLOAD_OFFSET + sum(align(spec.nbytes) for spec in specs)


def map_arrays(slot: memoryview, specs: tuple[ArraySpec, ...], *, writeable: bool) -> Arrays:
    """Views of the arrays in a slot, in place. The specs must fit (see `check_specs`)."""
    memory = slot if writeable else slot.toreadonly()
    arrays: Arrays = {}
    offset = PAYLOAD_OFFSET
    for spec in specs:
        arrays[spec.name] = np.ndarray(spec.shape, spec.dtype, memory, offset)
        offset += align(spec.nbytes)
    return arrays


@lru_cache(maxsize=64)
def _pack_specs(specs: tuple[ArraySpec, ...]) -> tuple[bytes, int]:
    """The specs as they stand in a header, and the payload's bytes. Raises `ValueError`."""
    try:
        check_specs(specs)
    except Malformed:
        raise ValueError(f"no reader would accept arrays {specs}") from None
    packed: bytes = msgpack.packb(specs)
    return packed, slot_bytes(specs) - PAYLOAD_OFFSET


def write_header(
    slot: memoryview, header: Header, specs: tuple[ArraySpec, ...], *, payload_checksum: bool
) -> None:
    """Fill prefix and header; the arrays are in place already.

    Raises `ValueError` for what no reader would accept.
    """
    packed_specs, payload_bytes = _pack_specs(specs)
    if len(header.values) > MAX_VALUES:
        raise ValueError(f"a record has {len(header.values)} values, the limit is {MAX_VALUES}")
    fields = (
        LAYOUT_VERSION,
        header.worker,
        header.generation,
        header.sequence,
        header.policy_version,
        header.values,
    )
    # A list of seven: six packed now, and the specs, which are packed once.
    packed = b"\x97" + msgpack.packb(fields)[1:] + packed_specs
    if len(packed) > HEADER_LIMIT:
        raise ValueError(f"record header has {len(packed)} bytes, the limit is {HEADER_LIMIT}")
    slot[PREFIX_BYTES : PREFIX_BYTES + len(packed)] = packed
    words = slot[:PREFIX_BYTES].cast("Q")
    words[_SEQUENCE] = header.sequence
    words[_HEADER_BYTES] = len(packed)
    words[_PAYLOAD_BYTES] = payload_bytes
    words[_HAS_PAYLOAD_CRC] = payload_checksum
    words[_PAYLOAD_CRC] = _payload_crc(slot, payload_bytes) if payload_checksum else 0
    words[_HEADER_CRC] = zlib.crc32(packed, zlib.crc32(slot[:_CHECKED_PREFIX_BYTES]))


def read_slot(slot: memoryview, sequence: int) -> tuple[Header, Arrays]:
    """Check a slot and map its arrays, read-only. Raises `Malformed`, and nothing else."""
    prefix = bytes(slot[:PREFIX_BYTES])
    words = memoryview(prefix).cast("Q")
    header_bytes, payload_bytes = words[_HEADER_BYTES], words[_PAYLOAD_BYTES]
    if not 0 < header_bytes <= HEADER_LIMIT or payload_bytes > len(slot) - PAYLOAD_OFFSET:
        raise Malformed("invalid")
    packed = bytes(slot[PREFIX_BYTES : PREFIX_BYTES + header_bytes])
    checksum = zlib.crc32(packed, zlib.crc32(prefix[:_CHECKED_PREFIX_BYTES]))
    if checksum != words[_HEADER_CRC] or words[_SEQUENCE] != sequence:
        raise Malformed("checksum")
    if words[_HAS_PAYLOAD_CRC] and _payload_crc(slot, payload_bytes) != words[_PAYLOAD_CRC]:
        raise Malformed("checksum")
    header, specs = _decode(packed)
    if header.sequence != sequence or slot_bytes(specs) - PAYLOAD_OFFSET != payload_bytes:
        raise Malformed("invalid")
    return header, map_arrays(slot, specs, writeable=False)


def _payload_crc(slot: memoryview, payload_bytes: int) -> int:
    return zlib.crc32(slot[PAYLOAD_OFFSET : PAYLOAD_OFFSET + payload_bytes])


def _decode(packed: bytes) -> tuple[Header, tuple[ArraySpec, ...]]:
    try:
        fields = msgpack.unpackb(
            packed,
            raw=False,
            strict_map_key=True,
            use_list=False,
            max_str_len=MAX_NAME,
            max_bin_len=0,
            max_ext_len=0,
            max_array_len=MAX_ARRAYS,
            max_map_len=MAX_VALUES,
        )
        version, worker, generation, sequence, policy_version, values, arrays = fields
    except Exception:  # msgpack raises many kinds for bytes that are not msgpack
        raise Malformed("invalid") from None
    integers = (worker, generation, sequence, policy_version)
    if version != LAYOUT_VERSION or not all(type(i) is int and 0 <= i < 2**63 for i in integers):
        raise Malformed("invalid")
    if type(values) is not dict or not all(type(v) in (int, float) for v in values.values()):
        raise Malformed("invalid")
    if not all(type(name) is str for name in values):
        raise Malformed("invalid")
    header = Header(worker, generation, sequence, policy_version, values)
    try:
        return header, check_specs(arrays)
    except TypeError:  # not hashable, so not specs
        raise Malformed("invalid") from None


@lru_cache(maxsize=64)
def check_specs(arrays: Any) -> tuple[ArraySpec, ...]:
    """Array specs from untrusted tuples. Raises `Malformed`, or `TypeError` if not hashable."""
    if not isinstance(arrays, tuple) or len(arrays) > MAX_ARRAYS:
        raise Malformed("invalid")
    return tuple(map(_check_spec, arrays))


def _check_spec(item: Any) -> ArraySpec:
    if not isinstance(item, tuple) or len(item) != 3:
        raise Malformed("invalid")
    name, dtype, shape = item
    if type(name) is not str or type(dtype) is not str or dtype not in DTYPES:
        raise Malformed("invalid")
    if not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS or len(name) > MAX_NAME:
        raise Malformed("invalid")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise Malformed("invalid")
    if math.prod(max(1, size) for size in shape) > MAX_ELEMENTS:
        raise Malformed("invalid")
    return ArraySpec(name, dtype, shape)
