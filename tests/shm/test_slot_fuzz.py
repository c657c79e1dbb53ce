"""A reader of hostile bytes: a record within the slot, or a counted drop; never anything else."""

import contextlib
import math
import tracemalloc
import zlib

import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aa2c.shm.ring import DROP_REASONS, RingConsumer, ring_bytes
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
    slot_bytes,
    write_header,
)

SLOT = 2048
SPECS = (ArraySpec("reward", "<f4", (3, 2)), ArraySpec("frame", "|u1", (5,)))
fuzzed = settings(max_examples=300, deadline=None)


def valid_slot(*, payload_checksum=False, size=SLOT):
    slot = memoryview(bytearray(size))
    slot[PAYLOAD_OFFSET:] = bytes(i % 256 for i in range(size - PAYLOAD_OFFSET))
    write_header(slot, Header(1, 1, 0, 3, {"n": 2}), SPECS, payload_checksum=payload_checksum)
    return slot


def slot_with_header(packed, *, payload_bytes, size=SLOT):
    """A slot whose header passes the checksum, whatever it says."""
    slot = memoryview(bytearray(size))
    slot[PREFIX_BYTES : PREFIX_BYTES + len(packed)] = packed
    words = slot[:PREFIX_BYTES].cast("Q")
    words[1], words[2] = len(packed), payload_bytes
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


@fuzzed
@given(data=slots, sequence=st.integers(0, 2**64 - 1))
def test_arbitrary_bytes_are_a_record_or_malformed(data, sequence):
    read_safely(memoryview(bytearray(data)), sequence)


@fuzzed
@given(bits=st.lists(st.integers(0, 8 * SLOT - 1), min_size=1, max_size=8))
def test_flipped_bits_are_a_record_or_malformed(bits):
    slot = valid_slot()
    for bit in bits:
        slot[bit // 8] ^= 1 << bit % 8
    read_safely(slot)


def test_no_single_flipped_bit_changes_a_record_whose_payload_is_checked():
    header, arrays = read_safely(valid_slot(payload_checksum=True))
    accepted = 0
    for bit in range(8 * (PAYLOAD_OFFSET + sum(align(spec.nbytes) for spec in SPECS))):
        slot = valid_slot(payload_checksum=True)
        slot[bit // 8] ^= 1 << bit % 8
        result = read_safely(slot)
        if result is not None:
            accepted += 1
            assert result[0] == header
            for name, array in arrays.items():
                np.testing.assert_array_equal(result[1][name], array)
    assert accepted > 0  # unused bytes of prefix and header area


@fuzzed
@given(header=headers)
@example(header=header_with_shape([0, 2**39, 2**39]))
@example(header=header_with_shape([2**39, 2**39, 2**39, 0]))
@example(header=header_with_shape([2**39, 0, 2**39]))
@example(header=header_with_shape([2**39] * 8))
@example(header=header_with_shape([2, 64]))
@example(header=header_with_shape([]))
@example(header=header_with_shape([-1]))
@example(header=header_with_shape([True, 3]))
@example(header=header_with_shape([1.0]))
@example(header=header_with_shape([1], dtype="O"))
@example(header=(1, 1, 1, 0, 0, {"x": "y"}, []))
@example(header=(1, 1, 1, 0, 0, {}, [("x", "<f8", [1])] * 2))
@example(header="1234567")
def test_headers_with_a_true_checksum_are_a_record_or_malformed(header):
    packed, payload_bytes = pack_with_claim(header)
    read_safely(slot_with_header(packed, payload_bytes=min(payload_bytes, SLOT - PAYLOAD_OFFSET)))
    read_safely(slot_with_header(packed, payload_bytes=payload_bytes))


@pytest.mark.parametrize(
    "packed", [b"\x91" * HEADER_LIMIT, b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc1"]
)
def test_deep_or_overlong_msgpack_is_malformed(packed):
    assert read_safely(slot_with_header(packed, payload_bytes=0)) is None


@pytest.mark.parametrize("size", [0, 63])
def test_a_slot_just_too_small_for_the_claimed_arrays_is_malformed(size):
    packed, payload_bytes = pack_with_claim(header_with_shape([8]))
    assert payload_bytes == 64
    slot = slot_with_header(packed, payload_bytes=64, size=PAYLOAD_OFFSET + size)
    assert read_safely(slot) is None


def test_an_empty_array_at_the_very_end_of_a_slot_is_read():
    packed, payload_bytes = pack_with_claim(header_with_shape([3, 0]))
    slot = slot_with_header(packed, payload_bytes=payload_bytes, size=PAYLOAD_OFFSET)
    assert read_safely(slot)[1]["x"].shape == (3, 0)


names = st.text(st.characters(codec="ascii"), max_size=8)
specs = st.lists(
    st.builds(
        ArraySpec,
        names,
        st.sampled_from(sorted(DTYPES)),
        st.lists(st.integers(0, 4), max_size=3).map(tuple),
    ),
    max_size=8,
    unique_by=lambda spec: spec.name,
).map(tuple)


@fuzzed
@given(
    specs=specs,
    values=st.dictionaries(names, st.one_of(st.integers(-5, 5), st.floats(allow_nan=False))),
    sequence=st.integers(0, 2**63 - 1),
    payload_checksum=st.booleans(),
)
def test_what_is_written_is_read_back(specs, values, sequence, payload_checksum):
    slot = memoryview(bytearray(slot_bytes(specs)))
    header = Header(2**40, 3, sequence, 2**50, values)
    try:
        write_header(slot, header, specs, payload_checksum=payload_checksum)
    except ValueError:  # longer than the limit
        return
    if len(values) <= 32:
        found, arrays = read_safely(slot, sequence)
        assert found == header
        assert [(n, a.dtype.str, a.shape) for n, a in arrays.items()] == list(specs)


@pytest.mark.parametrize(
    ("specs", "values"),
    [
        ([ArraySpec(str(i), "|u1", (1,)) for i in range(MAX_ARRAYS + 1)], {}),
        ([ArraySpec("x", "<f2", (1,))], {}),
        ([ArraySpec("x", "<f4", (1,) * 9)], {}),
        ([ArraySpec("x" * 65, "<f4", (1,))], {}),
        ([], {str(i): 0 for i in range(33)}),
    ],
    ids=["too many arrays", "half floats", "nine dimensions", "long name", "too many values"],
)
def test_a_writer_refuses_what_no_reader_would_accept(specs, values):
    """Otherwise each record of such a mode is dropped, with nothing but a counter to say so."""
    slot = memoryview(bytearray(8192))
    with pytest.raises(ValueError):  # noqa: PT011
        write_header(slot, Header(1, 1, 0, 0, values), tuple(specs), payload_checksum=False)


@pytest.fixture
def feed(make_segment):
    """Put bytes into a new record of a ring and take it: the record and the drops it led to."""
    segment = make_segment(ring_bytes(2, SLOT))
    consumer = RingConsumer(segment, 2, SLOT, worker=1, generation=1)

    def feed(data):
        index = consumer.committed
        consumer.slots[index % 2][:] = data
        consumer.words[0] = index + 1
        before = sum(consumer.dropped.values())
        record = consumer.take()
        if record:
            record.release()
        assert consumer.drained
        return record, sum(consumer.dropped.values()) - before

    yield feed
    consumer.close()


def test_a_ring_counts_each_slot_of_arbitrary_bytes_as_one_drop(feed):
    @fuzzed
    @given(data=slots)
    def check(data):
        record, drops = feed(data)
        assert (record is None) == (drops == 1)

    check()


def test_a_ring_counts_each_refused_header_as_one_drop(feed):
    @fuzzed
    @given(header=headers)
    @example(header=header_with_shape([0, 2**39, 2**39]))
    def check(header):
        packed, payload_bytes = pack_with_claim(header)
        fits = min(payload_bytes, SLOT - PAYLOAD_OFFSET)
        record, drops = feed(slot_with_header(packed, payload_bytes=fits))
        assert (record is None) == (drops == 1)

    check()


def test_a_ring_of_arbitrary_words_and_slots_raises_nothing(make_segment):
    """Control words included: whatever they say, `take` returns and counts."""
    segment = make_segment(ring_bytes(2, SLOT))
    near = st.one_of(st.integers(0, 5), st.integers(2**64 - 5, 2**64 - 1), words)

    @fuzzed
    @given(head=near, tail=near, heads=st.lists(near, max_size=3), data=slots)
    def check(head, tail, heads, data):
        control = segment.buf[:256].cast("Q")
        control[0], control[16] = head, tail
        consumer = RingConsumer(segment, 2, SLOT, worker=1, generation=1)
        for slot in consumer.slots:
            slot[:] = data
        for control[0] in [head, *heads]:
            for _ in range(4):
                record = consumer.take()
                if record:
                    record.release()
            assert record is None

    check()


@settings(max_examples=200, deadline=None)
@given(header=headers, checked=st.booleans())
@example(header=header_with_shape([2**39]), checked=True)
@example(header=header_with_shape([2**19]), checked=True)
def test_reading_allocates_less_than_a_mebibyte_whatever_a_slot_claims(header, checked):
    packed, payload_bytes = pack_with_claim(header)
    slot = slot_with_header(packed, payload_bytes=payload_bytes, size=PAYLOAD_OFFSET + 2**22)
    slot[:PREFIX_BYTES].cast("Q")[3] = checked
    if payload_bytes <= 2**22 and checked:
        crc = zlib.crc32(slot[PAYLOAD_OFFSET : PAYLOAD_OFFSET + payload_bytes])
        slot[:PREFIX_BYTES].cast("Q")[4] = crc
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        with contextlib.suppress(Malformed):
            read_slot(slot, 0)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak < 2**20
