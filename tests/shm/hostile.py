"""Bytes that somebody else may have left in a slot, and a reader that checks what it is promised."""

from __future__ import annotations

import math
import zlib

import msgpack
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from aa2c.shm.ring import DROP_REASONS
from aa2c.shm.slot import (
    DTYPES,
    HEADER_LIMIT,
    MAX_ARRAYS,
    PAYLOAD_OFFSET,
    PREFIX_BYTES,
    ArraySpec,
    Header,
    Malformed,
    align,
    read_slot,
    write_header,
)

SLOT = 2048
SPECS = (ArraySpec("reward", "<f4", (3, 2)), ArraySpec("frame", "|u1", (5,)))
fuzzed = settings(max_examples=300)


def valid_slot(*, payload_checksum=False, size=SLOT):
    slot = memoryview(bytearray(size))
    slot[PAYLOAD_OFFSET:] = bytes(i % 256 for i in range(size - PAYLOAD_OFFSET))
    write_header(slot, Header(1, 1, 0, 3, {"n": 2}), SPECS, payload_checksum=payload_checksum)
    return slot


def slot_with_header(packed, *, payload_bytes, size=SLOT, sequence=0):
    """A slot whose header passes the checksum, whatever it says."""
    slot = memoryview(bytearray(size))
    slot[PREFIX_BYTES : PREFIX_BYTES + len(packed)] = packed
    words = slot[:PREFIX_BYTES].cast("Q")
    words[0], words[1], words[2] = sequence, len(packed), payload_bytes
    words[7] = zlib.crc32(packed, zlib.crc32(slot[:56]))
    return slot


def claimed_bytes(arrays):
    """Payload bytes that make the claimed arrays consistent, so that they are mapped if need be."""
    try:
        total = 0
        for _, dtype, shape in arrays:
            # Only integers: a product with a text would repeat the text, gigabytes of it.
            if not all(type(size) is int for size in shape):
                return 0
            total += align(math.prod(shape) * np.dtype(dtype).itemsize)
        return max(0, min(total, 2**64 - 1))
    except Exception:
        return 0


def read_safely(slot, sequence=0):
    """`read_slot` with all it promises checked; None where it refuses."""
    refusal = None
    try:
        header, arrays = read_slot(slot, sequence)
    except Malformed as error:
        refusal = error
    if refusal:
        assert refusal.reason in DROP_REASONS
        return None
    base = np.frombuffer(slot, np.uint8).ctypes.data
    for array in arrays.values():
        assert not array.flags.writeable
        assert array.dtype.str in DTYPES
        if array.nbytes:
            offset = array.ctypes.data - base
            assert PAYLOAD_OFFSET <= offset <= offset + array.nbytes <= len(slot)
        array.tobytes()  # every byte of it can be read
    assert header.sequence == sequence
    return header, arrays


words = st.one_of(st.integers(0, SLOT), st.integers(0, 2**64 - 1))
prefixes = st.lists(words, min_size=8, max_size=8).map(lambda w: np.array(w, "<u8").tobytes())
slots = st.one_of(
    st.binary(max_size=SLOT),
    st.builds(lambda prefix, rest: prefix + rest, prefixes, st.binary(max_size=SLOT - 64)),
).map(lambda data: data.ljust(SLOT, b"\0"))

integers = st.integers(-(2**63), 2**64 - 1)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    integers,
    st.floats(),
    st.text(max_size=70),
    st.binary(max_size=70),
    st.just(msgpack.ExtType(5, b"")),
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=20), st.dictionaries(st.one_of(st.text(), integers), inner)
    ),
    max_leaves=12,
)
sizes = st.one_of(st.sampled_from([0, 1, 2, 7, 64, 2**31, 2**39, 2**40 - 1, 2**40]), anything)
arrays = st.lists(
    st.one_of(
        st.tuples(
            st.text(max_size=3),
            st.one_of(st.sampled_from(sorted(DTYPES)), st.sampled_from(["O", "<f2", "|V8", "M8"])),
            st.one_of(st.lists(st.integers(0, 9), max_size=3), st.lists(sizes, max_size=9)),
        ),
        anything,
    ),
    max_size=MAX_ARRAYS + 1,
)
headers = st.one_of(
    anything,
    st.tuples(
        st.one_of(st.just(1), anything),
        st.one_of(st.integers(0, 5), anything),
        st.one_of(st.integers(0, 5), anything),
        st.one_of(st.just(0), anything),
        st.one_of(st.integers(0, 5), anything),
        st.one_of(st.dictionaries(st.text(max_size=5), scalars, max_size=4), anything),
        arrays,
    ),
)


def header_with_shape(shape, dtype="<f8"):
    return (1, 1, 1, 0, 0, {}, [("x", dtype, shape)])


def pack_with_claim(header):
    packed = msgpack.packb(header)
    claims = header[-1] if isinstance(header, tuple) else []
    return packed[:HEADER_LIMIT], claimed_bytes(claims)
