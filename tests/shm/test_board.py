"""The parameter board: whole vectors only, whatever happens to the writer."""

import itertools
import threading
import time

import numpy as np
import pytest

from aa2c.shm.board import ParameterBoard, board_bytes
from aa2c.shm.segment import Segment
from tests.shm.killing import kill_at

NUM_PARAMS = 1000
SEQUENCES = (16, 32)  # words that are odd while their buffer is written


def vector(value):
    return np.full(NUM_PARAMS, value, np.float32)


@pytest.fixture
def segment(make_segment):
    return make_segment(board_bytes(NUM_PARAMS))


@pytest.fixture
def open_board(segment):
    """Open the board with a mapping of its own, as another process would."""
    boards = []

    def open_board(**options):
        boards.append(ParameterBoard(Segment.attach(segment.name), NUM_PARAMS, **options))
        return boards[-1]

    yield open_board
    for board in boards:
        board.close()


@pytest.mark.parametrize("checksum", [False, True])
def test_a_pull_gets_what_was_published_last(open_board, checksum):
    writer, reader = open_board(checksum=checksum), open_board(checksum=checksum)
    out = vector(0)
    for version in range(1, 6):
        published = np.random.default_rng(version).normal(size=NUM_PARAMS).astype(np.float32)
        assert writer.publish(published) == reader.version == version
        for _ in range(2):
            assert reader.pull(out) == version
            np.testing.assert_array_equal(out, published)


def test_there_is_no_version_before_the_first_publication(open_board):
    reader, out = open_board(), vector(-1)
    assert reader.version == reader.pull(out) == 0
    assert (out == -1).all()


def test_a_reopened_board_goes_on_from_its_version(open_board):
    open_board().publish(vector(1))
    successor, out = open_board(), vector(0)
    assert successor.publish(vector(2)) == 2
    assert successor.pull(out) == 2
    assert (out == 2).all()


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("versions", [1, 2])
def test_a_half_written_buffer_leaves_the_version_before_it(
    segment, open_board, versions, checksum
):
    writer, reader, out = open_board(checksum=checksum), open_board(checksum=checksum), vector(0)
    for version in range(1, versions + 1):
        writer.publish(vector(version))
    torn = (versions + 1) % 2
    words = segment.buf[:4096].cast("Q")
    words[SEQUENCES[torn]] = 2 * versions + 1
    words.release()
    writer._buffers[torn][: NUM_PARAMS // 2] = versions + 1
    assert reader.pull(out) == versions
    assert (out == versions).all()
    assert open_board(checksum=checksum).publish(vector(9)) == versions + 1
    assert reader.pull(out) == versions + 1
    assert (out == 9).all()


@pytest.mark.parametrize("checksum", [False, True])
def test_a_writer_killed_at_any_instruction_leaves_a_whole_vector(segment, open_board, checksum):
    reader, out = open_board(checksum=checksum), vector(0)
    versions = []
    for instruction in itertools.count():
        segment.buf[:] = bytes(len(segment.buf))
        writer = ParameterBoard(segment, NUM_PARAMS, checksum=checksum)
        for version in (1, 2):
            writer.publish(vector(version))
        killed = kill_at(instruction, lambda it=writer: it.publish(vector(3)))
        versions.append(reader.pull(out))
        assert (out == versions[-1]).all()
        assert writer.publish(vector(7)) == versions[-1] + 1
        assert reader.pull(out) == versions[-1] + 1
        assert (out == 7).all()
        if not killed:
            break
    assert len(versions) > 30
    assert versions == sorted(versions)
    assert (versions[0], versions[-1]) == (2, 3)


def test_a_reader_beside_a_busy_writer_never_gets_a_mixture(open_board):
    writer, stop, mixtures, pulled = open_board(), threading.Event(), [], []

    def read(reader):
        out, latest = vector(0), 0
        while not stop.is_set():
            version = reader.pull(out)
            if version:
                if not (out == version).all() or version < latest:
                    mixtures.append(version)
                latest = version
                pulled.append(version)

    readers = [threading.Thread(target=read, args=(open_board(),)) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        until, version = time.monotonic() + 1, 0
        while time.monotonic() < until:
            version = writer.publish(vector(version + 1))
    finally:
        stop.set()
        for reader in readers:
            reader.join(20)
    assert not any(reader.is_alive() for reader in readers)
    assert mixtures == []
    assert len(set(pulled)) > 10


@pytest.mark.parametrize("place", [0, NUM_PARAMS - 1])
def test_a_damaged_buffer_is_not_pulled_where_parameters_are_checked(open_board, place):
    writer, reader, out = open_board(checksum=True), open_board(checksum=True), vector(0)
    writer.publish(vector(1))
    writer._buffers[1][place] = 2
    assert reader.pull(out) == 0
    writer.publish(vector(2))
    assert reader.pull(out) == 2


def test_a_segment_too_small_for_the_vector_is_refused(make_segment):
    segment = make_segment(board_bytes(10))
    with pytest.raises(ValueError, match="too small"):
        ParameterBoard(segment, 10_000)


def test_a_publication_of_the_wrong_length_leaves_the_older_version(open_board):
    board, out = open_board(), vector(0)
    board.publish(vector(1))
    with pytest.raises(ValueError, match="broadcast"):
        board.publish(np.zeros(NUM_PARAMS + 1, np.float32))
    assert board.pull(out) == 1
    assert (out == 1).all()
