"""What a run shares is bounded, however often its workers die."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from aa2c.host.commands import Spaces
from aa2c.host.incarnation import ChildSlot
from aa2c.host.memory import MOST_OLD_RINGS, RunMemory, Sharing
from aa2c.shm.relay import RingMirror
from aa2c.shm.ring import RingConsumer, RingProducer
from aa2c.shm.segment import SHM_DIR, Segment

SLOT, SLOTS = 4096, 4
SPEC = {"num_params": 10, "slot_bytes": SLOT, "arrays": [], "shared": []}


@pytest.fixture
def memory(small):
    memory = RunMemory(small(mode="traj", ring_slots=SLOTS), "testmemory")
    memory.create_board(SPEC)
    yield memory
    memory.release()


def test_rings_of_dead_workers_do_not_pile_up_while_the_updater_is_away(memory):

    def next_ring(generation):
        memory.drop_oldest(0)
        return memory.create_ring(0, generation).ring

    memory.create_ring(1, 0)
    names = [next_ring(generation) for generation in range(4)]
    files = len(os.listdir("/proc/self/fd"))
    names += [next_ring(generation) for generation in range(4, 30)]
    assert len(os.listdir("/proc/self/fd")) == files
    told = [(ring.worker, ring.generation) for ring in memory.ring_attachments()]
    assert told == [(0, 26), (0, 27), (0, 28), (0, 29), (1, 0)]
    assert [name for name in names if (SHM_DIR / name).exists()] == names[-MOST_OLD_RINGS - 1 :]
    memory.retire_ring(0, 3)  # an updater that had it reports so late: nobody minds


def test_what_is_dropped_is_counted_as_lost(memory):
    """Each incarnation sends two records, of which the first one's had been taken and given back."""
    for generation in range(6):
        memory.drop_oldest(0)
        name = memory.create_ring(0, generation).ring
        whose = {"worker": 0, "generation": generation}
        producer = RingProducer(Segment.attach(name), SLOTS, SLOT, (), **whose)
        for _ in range(2):
            producer.reserve()
            producer.commit(1, {})
        producer.close()
        if not generation:
            consumer = RingConsumer(Segment.attach(name), SLOTS, SLOT, **whose)
            while record := consumer.take():
                record.release()
            consumer.close()
    assert memory.ring_status(0)["dropped"]["lost"] == 2, "of the second one, the others wait"
    assert memory.ring_status(0)["committed"] == 12
    assert memory.ring_status(0)["used"] == 8
    assert memory.ring_status(1)["dropped"]["lost"] == 0


def test_the_spaces_are_told_once_to_each_updater_and_must_be_the_same_of_all(memory):
    heard = []
    updater = ChildSlot("updater")
    sharing = Sharing(memory, updater)
    sharing.attach(updater)
    updater.child = SimpleNamespace(send=heard.append, is_alive=True)
    sharing.attach(updater)
    assert heard == [], "nobody knows them"
    assert sharing.hear_spaces({"obs_shape": [4]})
    assert sharing.hear_spaces({"obs_shape": [4]})
    assert not sharing.hear_spaces({"obs_shape": [5]})
    assert heard == [Spaces(spec={"obs_shape": [4]})]
    sharing.attach(updater)  # the next one
    assert heard == 2 * [Spaces(spec={"obs_shape": [4]})]


@pytest.mark.parametrize(("host_is_lost", "untold"), [(False, 0), (True, 1)])
def test_of_an_incarnation_on_a_host_what_never_came_is_counted(memory, host_is_lost, untold):
    """It had made three of which one came; with four slots it can have made one more, untold of."""
    row = memory.counters.workers[0]
    row.set("records", 10)
    mirror = RingMirror(Segment.attach(memory.create_ring(0, 2).ring), SLOTS, SLOT)
    mirror.put(0, memoryview(bytes(SLOT)))
    row.set("records", 13)
    memory.count_unsent(0, 2, 10, host_is_lost=host_is_lost)
    memory.count_unsent(0, 1, 10, host_is_lost=True)  # which had no ring: it had not come up
    status = memory.ring_status(0)
    assert (status["dropped"]["lost"], status["untold"]) == (2, untold)
    mirror.close()
