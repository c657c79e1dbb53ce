"""A host's share by itself: frames that are not the next, and a bridge that does not ask any more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aa2c import Config
from aa2c.host.cluster import share as share_module
from aa2c.host.cluster.frames import Down, Frame, ShareSpec, Up
from aa2c.host.cluster.share import Share
from aa2c.shm.counters import table_bytes
from aa2c.shm.relay import OutOfOrder
from tests.conftest import until

ROW = bytes(table_bytes(0) // 4)
EPOCH = 7


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    made = []

    def make():
        spec = ShareSpec(
            config=Config(engine="ray", workers=4, workers_per_host=2),
            registered={},
            run_id="testshare",
            epoch=EPOCH,
            first=2,
            count=2,
            env_steps_before=0,
        )
        ended = []
        made.append(Share(spec, on_end=lambda: ended.append(True)))
        return made[-1], ended

    yield make
    for share in made:
        share.end()


def down(number, epoch=EPOCH, **fields):
    frame = Down(epoch=epoch, number=number, run=ROW, updater=ROW, env_steps_elsewhere=0, **fields)
    return frame.packed()


def segments_of_share():
    return [path.name for path in Path("/dev/shm").glob("aa2c-*testshare*")]


@pytest.mark.parametrize(("number", "epoch"), [(2, EPOCH), (0, EPOCH), (1, EPOCH - 1)])
async def test_a_frame_that_is_not_the_next_of_this_epoch_ends_the_share(made, number, epoch):
    share, ended = made()
    with pytest.raises(OutOfOrder):
        await share.tell(down(number, epoch), None)
    assert ended == [True]
    assert segments_of_share() == []


async def test_a_repeated_frame_ends_the_share(made):
    share, ended = made()
    await share.tell(down(1), None)
    assert ended == []
    with pytest.raises(OutOfOrder, match="frame 1 of epoch 7 came for 2 of 7"):
        await share.tell(down(1), None)
    assert ended == [True]


async def test_a_share_tells_the_counters_of_those_workers_only_whose_counters_it_was_given(
    made, monkeypatch
):
    """Of others it has zeros, which would take back what they had counted on another host."""
    share, _ = made()
    data, blocks = await share.collect()
    up = Up.unpacked(data, epoch=EPOCH, number=1)
    assert (up.rows, up.records, blocks) == ([], [], [])

    def cannot(*_):
        raise OSError("no room for a process")

    monkeypatch.setattr(share._starter, "start", cannot)
    counted = bytes([9]) * len(ROW)
    start = {"worker": 3, "generation": 0, "kind": "Start", "row": counted}
    await share.tell(down(1, commands=[start]), None)
    data, _ = await share.collect()
    assert Up.unpacked(data, epoch=EPOCH, number=2).rows == [[3, counted]]


async def test_a_share_counts_its_frames_and_tells_counters_once_a_second(made, monkeypatch):
    monkeypatch.setattr(share_module, "ROWS_EVERY_S", 1e9)
    share, _ = made()
    share._counting |= {2, 3}
    data, _ = await share.collect()
    assert [worker for worker, _ in Up.unpacked(data, epoch=EPOCH, number=1).rows] == [2, 3]
    data, _ = await share.collect()
    assert Up.unpacked(data, epoch=EPOCH, number=2).rows == []


async def test_a_long_line_of_the_log_is_told_and_so_is_what_follows(made, monkeypatch):
    monkeypatch.setattr(share_module, "MOST_LOG_BYTES", 100)
    share, _ = made()
    with (share._dir / "log.jsonl").open("w") as file:
        file.write("a" * 250 + "\n" + "b" * 10 + "\n")
    told = [line for _ in range(4) for line in share._new_lines()]
    assert "".join(told) == "a" * 250 + "b" * 10
    assert told[-1] == "b" * 10


async def test_a_share_that_nobody_asks_ends_itself_and_its_directory_goes_with_it(
    made, monkeypatch, tmp_path
):
    monkeypatch.setattr(share_module, "LEASE_S", 0.2)
    monkeypatch.setattr(share_module, "LOOK_S", 0.05)
    _, ended = made()
    assert len(segments_of_share()) == 1
    await until(lambda: ended)
    assert segments_of_share() == []


async def test_a_share_that_is_asked_lives_on(made, monkeypatch):
    monkeypatch.setattr(share_module, "LEASE_S", 1.0)
    monkeypatch.setattr(share_module, "LOOK_S", 0.05)
    _share, ended = made()
    for number in range(1, 40):
        await _share.tell(down(number), None)
        await asyncio.sleep(0.05)
    assert ended == []


@settings(max_examples=200)
@given(data=st.binary(max_size=200))
def test_bytes_that_are_no_frame_are_refused(data):
    for kind in (Down, Up, Frame):
        with pytest.raises(OutOfOrder):
            kind.unpacked(data, epoch=1, number=1)
