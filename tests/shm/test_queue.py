"""Messages over a pipe: whole ones only, and never a reader that blocks."""

import contextlib
import multiprocessing
import os
import select
import threading
import time

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aa2c.shm.queue import MESSAGE_LIMIT, Receiver, Sender
from aa2c.shm.slot import Malformed

WAIT_S = 20.0
spawn = multiprocessing.get_context("spawn")


@pytest.fixture
def ends():
    """The two connections of a one-way pipe: reading, writing."""
    reading, writing = multiprocessing.Pipe(duplex=False)
    yield reading, writing
    reading.close()
    writing.close()


@pytest.fixture
def channel(ends):
    reading, writing = ends
    return Sender(writing), Receiver(reading)


def drain_until(receiver, enough):
    """Drain until enough messages have come, waiting for the pipe and not for ever."""
    messages, deadline = [], time.monotonic() + WAIT_S
    while not enough(messages):
        assert time.monotonic() < deadline
        select.select([receiver], [], [], 0.1)
        messages += receiver.drain()
    return messages


def test_messages_arrive_whole_and_in_order(channel):
    sender, receiver = channel
    sender.send("ready")
    sender.send("episode", score=1.5, length=200, name="é", flags=[True, None], nested={"a": 1})
    assert receiver.drain() == [
        {"kind": "ready"},
        {
            "kind": "episode",
            "score": 1.5,
            "length": 200,
            "name": "é",
            "flags": [True, None],
            "nested": {"a": 1},
        },
    ]
    assert receiver.drain() == []


def test_draining_an_empty_pipe_returns_at_once(channel):
    _, receiver = channel
    started = time.monotonic()
    assert [receiver.drain() for _ in range(100)] == [[]] * 100
    assert time.monotonic() - started < 5


def test_half_a_message_never_appears(ends):
    reading, writing = ends
    receiver = Receiver(reading)
    data = msgpack.packb({"kind": "episode", "score": 1.5, "text": "abc"})
    for cut in range(1, len(data)):
        os.write(writing.fileno(), data[:cut])
        assert receiver.drain() == []
        os.write(writing.fileno(), data[cut:] + data[:cut])
        assert len(receiver.drain()) == 1
        os.write(writing.fileno(), data[cut:])
        assert len(receiver.drain()) == 1


def test_a_message_cut_off_by_the_end_is_dropped(ends):
    reading, writing = ends
    receiver = Receiver(reading)
    data = msgpack.packb({"kind": "error", "text": "x" * 50})
    os.write(writing.fileno(), data + data[:-1])
    writing.close()
    assert len(receiver.drain()) == 1
    with pytest.raises(EOFError):
        receiver.drain()


def test_the_end_is_told_only_after_all_was_read(channel):
    sender, receiver = channel
    sender.send("last")
    sender.close()
    assert receiver.drain() == [{"kind": "last"}]
    for _ in range(2):
        with pytest.raises(EOFError):
            receiver.drain()


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        b"\x07",
        msgpack.packb(["kind"]),
        msgpack.packb("kind"),
        msgpack.packb(None),
        msgpack.packb({}),
        msgpack.packb({"kind": 1}),
        msgpack.packb({"other": "x"}),
        msgpack.packb({"kind": "x", 5: 1}),
        msgpack.packb({"kind": "x", "data": msgpack.ExtType(1, b"x")}),
        msgpack.packb({"kind": "x"}) + b"\xc1",
        b"\x91" * 2000,
        b"\xdd\xff\xff\xff\xff",
        b"\xa1\xff",
    ],
)
def test_what_is_not_a_message_is_malformed(ends, data):
    reading, writing = ends
    os.write(writing.fileno(), data)
    with pytest.raises(Malformed):
        Receiver(reading).drain()


def test_a_string_that_claims_four_gibibytes_is_abandoned_at_the_limit(ends):
    reading, writing = ends
    receiver, written = Receiver(reading), 0
    os.write(writing.fileno(), b"\xdb\xff\xff\xff\xff")

    def feed():
        nonlocal written
        while written <= 2 * MESSAGE_LIMIT:
            written += os.write(writing.fileno(), b"x" * 4096)
            assert receiver.drain() == []

    with pytest.raises(Malformed):
        feed()
    assert written <= MESSAGE_LIMIT + 4096


@settings(max_examples=300)
@given(chunks=st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=5))
def test_arbitrary_bytes_are_messages_or_malformed(chunks):
    reading, writing = multiprocessing.Pipe(duplex=False)
    with reading, writing:
        receiver = Receiver(reading)
        for chunk in chunks:
            os.write(writing.fileno(), chunk)
            try:
                messages = receiver.drain()
            except Malformed:
                break
            assert all(isinstance(message["kind"], str) for message in messages)


@settings(max_examples=100)
@given(
    texts=st.lists(st.text(max_size=50), min_size=1, max_size=10),
    cuts=st.lists(st.integers(1, 40), min_size=1),
)
def test_messages_survive_any_cutting_into_pieces(texts, cuts):
    sent = [{"kind": "log", "text": text} for text in texts]
    data, received = b"".join(map(msgpack.packb, sent)), []
    reading, writing = multiprocessing.Pipe(duplex=False)
    with reading, writing:
        receiver = Receiver(reading)
        for turn in range(len(data)):
            cut = cuts[turn % len(cuts)]
            os.write(writing.fileno(), data[:cut])
            received += receiver.drain()
            data = data[cut:]
            if not data:
                break
    assert received == sent


def test_a_message_larger_than_the_pipe_arrives(channel):
    sender, receiver = channel
    text = "x" * 500_000
    thread = threading.Thread(target=sender.send, args=("log",), kwargs={"text": text})
    thread.start()
    messages = drain_until(receiver, bool)
    thread.join(WAIT_S)
    assert messages == [{"kind": "log", "text": text}]


def test_a_message_above_the_limit_is_malformed_and_its_sender_is_let_go(channel):
    sender, receiver = channel
    refused = []

    def send():
        try:
            sender.send("log", text="x" * (2 * MESSAGE_LIMIT))
        except OSError as error:
            refused.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    with pytest.raises(Malformed):
        drain_until(receiver, bool)
    receiver.close()
    thread.join(WAIT_S)
    assert len(refused) == 1


def test_sending_to_nobody_raises_an_os_error(channel):
    sender, receiver = channel
    receiver.close()
    with pytest.raises(OSError):  # noqa: PT011
        sender.send("ready")


def send_until_killed(connection):
    sender, number = Sender(connection), 0
    while True:
        sender.send("count", number=number, text="x" * (number % 5000))
        number += 1


def test_a_killed_sender_leaves_whole_messages_and_an_end(ends):
    reading, writing = ends
    child = spawn.Process(target=send_until_killed, args=(writing,), daemon=True)
    child.start()
    writing.close()
    try:
        receiver = Receiver(reading)
        messages = drain_until(receiver, lambda found: len(found) > 500)
        child.kill()
        child.join(WAIT_S)
        with contextlib.suppress(EOFError):
            while True:
                messages += receiver.drain()
    finally:
        child.kill()
        child.join(WAIT_S)
        child.close()
    assert [message["number"] for message in messages] == list(range(len(messages)))
    assert all(len(message["text"]) == message["number"] % 5000 for message in messages)
