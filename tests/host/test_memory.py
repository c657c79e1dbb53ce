"""What a run shares is bounded, however often its workers die."""

from __future__ import annotations

import os

import pytest

from aa2c.host.memory import MOST_OLD_RINGS, RunMemory
from aa2c.shm.segment import SHM_DIR

SPEC = {"num_params": 10, "slot_bytes": 4096, "arrays": [], "shared": []}


@pytest.fixture
def memory(small):
    memory = RunMemory(small(mode="traj"), "testmemory")
    memory.create_board(SPEC)
    yield memory
    memory.release()


def test_rings_of_dead_workers_do_not_pile_up_while_the_updater_is_away(memory):
    memory.create_ring(1, 0)
    names = [memory.create_ring(0, generation).ring for generation in range(4)]
    files = len(os.listdir("/proc/self/fd"))
    names += [memory.create_ring(0, generation).ring for generation in range(4, 30)]
    assert len(os.listdir("/proc/self/fd")) == files
    told = [(ring.worker, ring.generation) for ring in memory.ring_attachments()]
    assert told == [(0, 26), (0, 27), (0, 28), (0, 29), (1, 0)]
    assert [name for name in names if (SHM_DIR / name).exists()] == names[-MOST_OLD_RINGS - 1 :]
    memory.retire_ring(0, 3)  # an updater that had it reports so late: nobody minds
