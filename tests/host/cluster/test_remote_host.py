"""What the bridge does with a host's frames, and what it counts when a host is lost."""

from __future__ import annotations

import asyncio
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from aa2c import Config
from aa2c.host.cluster import remote_host
from aa2c.host.cluster.frames import EXITED, STARTED, Up
from aa2c.host.cluster.home import Home
from aa2c.host.cluster.remote_host import RemoteHost
from aa2c.host.commands import Attach, encode
from aa2c.ports import Report
from aa2c.shm.board import ParameterBoard, board_bytes
from aa2c.shm.counters import table_bytes, worker_row
from aa2c.shm.relay import OutOfOrder
from aa2c.shm.ring import ring_bytes
from aa2c.shm.segment import Segment
from aa2c.shm.wakeup import Wakeup
from tests.conftest import until
from tests.shm.rings import CAPACITY, SLOT, SPECS, open_consumer, open_ring, push, token_of

WORKER, GENERATION = 1, 1  # as those of `open_ring`


class Reports(list):
    def send(self, kind, **fields):
        self.append({"kind": kind, **fields})

    def of(self, kind):
        return [report for report in self if report["kind"] == kind]


@pytest.fixture
def far(make_segment, tmp_path):
    """A host with one worker, whose ring is `source`; what reaches the updater is `consumer`'s."""
    table, board = make_segment(table_bytes(2)), make_segment(board_bytes(4))
    here, there = (make_segment(ring_bytes(CAPACITY, SLOT)) for _ in range(2))
    records = Wakeup()
    spec = SimpleNamespace(
        config=Config(engine="ray", workers=2, ring_slots=CAPACITY),
        counters_segment=table.name,
        spaces=(records, records),
        records=records,
        run_dir=tmp_path,
    )
    reports, home = Reports(), Home(spec)
    host = RemoteHost(0, range(2), home, reports)
    host.tell(WORKER, GENERATION, {"kind": "Start"})
    attach = Attach(
        board=board.name, num_params=4, slot_bytes=SLOT, arrays=SPECS, shared=(), ring=there.name
    )
    host.tell(WORKER, GENERATION, encode(attach))
    producer, source = open_ring(here)
    consumer = open_consumer(there)
    parameters = ParameterBoard(Segment.attach(board.name), 4)
    yield SimpleNamespace(**{**locals(), "row": worker_row(table, WORKER)})
    for ring in (producer, source, consumer, *home.mirrors.values()):
        ring.close()
    parameters.close()
    home.close()
    records.close()


def carry(far, *sequences, **fields):
    """A frame with these records of the worker's ring."""
    records = [(WORKER, GENERATION, sequence, False) for sequence in sequences]
    blocks = [np.frombuffer(far.source.slots[s % CAPACITY], np.uint8) for s in sequences]
    far.host._take(Up(epoch=0, number=1, records=records, **fields), blocks)


def test_records_reach_the_updater_and_their_release_goes_back_with_the_newest_parameters(far):
    frame, params = far.host._next_down(1)
    assert [command["kind"] for command in frame.commands] == ["Start", "Attach"]
    assert params is None, "nothing was published"
    push(far.producer, 0)
    carry(far, 0)
    record = far.consumer.take()
    assert token_of(record) == 0
    far.parameters.publish(np.arange(4, dtype=np.float32), after=6)
    frame, params = far.host._next_down(2)
    assert (frame.version, params.tolist()) == (7, [0, 1, 2, 3])
    assert frame.released == []
    record.release()
    frame, params = far.host._next_down(3)
    assert frame.released == [(WORKER, GENERATION, 1)]
    assert params is None, "it has them already"


def test_a_gap_is_refused_and_nothing_is_taken(far):
    push(far.producer, 0)
    push(far.producer, 1)
    with pytest.raises(OutOfOrder, match="record 1 came after 0"):
        carry(far, 1)
    assert far.consumer.take() is None


def test_of_a_lost_host_every_worker_ends(far):
    push(far.producer, 0)
    carry(far, 0)
    far.host.lost(ConnectionError("gone\nand more"))
    (end,) = far.reports.of(Report.WORKER_EXITED)
    assert (end["worker"], end["generation"]) == (WORKER, GENERATION)
    assert (end["exit_code"], end["replaced_as"]) == (-9, "host lost")
    assert end["error"] == "its host is lost: gone"
    assert (far.host.told()["state"], far.host.told()["restarts"]) == ("lost", 1)
    assert far.home.mirrors == {}
    far.host.tell(WORKER, GENERATION, {"kind": "Stop"})
    frame, _ = far.host._next_down(1)
    assert frame.commands == [], "nobody is told what was meant for the dead"


def test_a_worker_that_is_to_be_killed_while_there_is_no_host_has_ended(far):
    far.host.tell(WORKER, GENERATION, {"kind": "Kill"})
    assert len(far.reports.of(Report.WORKER_EXITED)) == 1
    frame, _ = far.host._next_down(1)
    assert frame.commands == []


def test_events_are_passed_on(far):
    about = {"worker": WORKER, "generation": GENERATION}
    end = {"exit_code": 3, "error": "no licence", "replaced_as": None}
    events = [
        {"kind": STARTED, **about, "pid": 77},
        {"kind": "from", **about, "message": {"kind": "ready"}},
        {"kind": EXITED, **about, **end},
    ]
    carry(far, events=events, log=['{"event": "failed"}'])
    told = far.reports.of(Report.FROM_WORKER)
    assert [report.get("pid", report.get("message")) for report in told] == [77, {"kind": "ready"}]
    (exited,) = far.reports.of(Report.WORKER_EXITED)
    assert {name: exited[name] for name in end} == end
    assert (far.home.spec.run_dir / "log.jsonl").read_text() == '{"event": "failed"}\n'


class SlowLink:
    """A host that answers the first question, and no other."""

    name, address = "node-1", "10.0.0.2"

    def __init__(self):
        self.answers = [(Up(epoch=7, number=1).packed(), [np.zeros(3, np.uint8)])]
        self.blocks = weakref.ref(self.answers[0][1][0])
        self.is_killed = False

    async def tell(self, frame, version, params):
        pass

    async def collect(self):
        while not self.answers:
            await asyncio.Event().wait()
        return self.answers.pop()

    async def end(self):
        await asyncio.Event().wait()

    def kill(self):
        self.is_killed = True


async def test_a_host_that_does_not_answer_is_stalled_and_then_lost(far, monkeypatch):
    monkeypatch.setattr(remote_host, "STALLED_AFTER_S", 0.1)
    monkeypatch.setattr(remote_host, "LOST_AFTER_S", 0.3)
    monkeypatch.setattr(remote_host, "END_S", 0.1)
    link = SlowLink()
    monkeypatch.setattr(far.host, "_take", lambda up, blocks: None)
    exchanging = asyncio.create_task(far.host.exchange(7, link))
    await until(lambda: far.host.told()["state"] == "stalled")
    assert link.blocks() is None, "what has been copied is not kept while nothing comes"
    with pytest.raises(ConnectionError, match=r"it has not answered for 0\.3 s"):
        await exchanging
    assert link.is_killed
