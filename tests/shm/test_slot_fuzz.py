"""A reader of hostile bytes: a record within the slot, or a counted drop; never anything else."""

import contextlib
import tracemalloc
import zlib

import msgpack
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

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
from tests.shm.hostile import (
    SLOT,
    SPECS,
    fuzzed,
    header_with_shape,
    headers,
    pack_with_claim,
    read_safely,
    slot_with_header,
    slots,
    valid_slot,
)


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
@pytest.mark.long
def test_headers_with_a_true_checksum_are_a_record_or_malformed(header):
    packed, payload_bytes = pack_with_claim(header)
    read_safely(slot_with_header(packed, payload_bytes=min(payload_bytes, SLOT - PAYLOAD_OFFSET)))
    read_safely(slot_with_header(packed, payload_bytes=payload_bytes))


@fuzzed
@given(header=headers, payload_bytes=st.integers(0, SLOT - PAYLOAD_OFFSET))
@example(header=header_with_shape([8]), payload_bytes=0)
@example(header=header_with_shape([8]), payload_bytes=63)
@example(header=header_with_shape([8]), payload_bytes=128)
@example(header=header_with_shape([200]), payload_bytes=64)
@example(header=header_with_shape([2**31]), payload_bytes=64)
@example(header=header_with_shape([0, 2**31]), payload_bytes=64)
@example(header=(1, 1, 1, 0, 0, {}, []), payload_bytes=64)
@pytest.mark.long
def test_a_length_that_is_not_that_of_the_shapes_is_malformed(header, payload_bytes):
    """Though it fits into the slot: what is checked and what is mapped must be the same bytes."""
    packed, claimed = pack_with_claim(header)
    assume(payload_bytes != claimed)
    assert read_safely(slot_with_header(packed, payload_bytes=payload_bytes)) is None


@pytest.mark.parametrize(("prefix", "inside"), [(0, 1), (1, 0), (7, 2**62)])
def test_a_sequence_that_prefix_and_header_do_not_agree_on_is_malformed(prefix, inside):
    packed = msgpack.packb((1, 1, 1, inside, 0, {}, []))
    slot = slot_with_header(packed, payload_bytes=0, sequence=prefix)
    assert read_safely(slot, prefix) is None
    assert read_safely(slot, inside) is None


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


@settings(max_examples=200)
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
