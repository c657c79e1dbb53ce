"""What a stall says: a sentence for all that a process may wait for."""

from __future__ import annotations

from aa2c.ports import WaitsFor
from aa2c.run.progress import WAITS_FOR


def test_there_is_a_sentence_for_all_that_a_process_may_wait_for():
    assert list(WAITS_FOR) == list(WaitsFor)[1:]
    assert WaitsFor(0) is WaitsFor.NOTHING
    assert all(WAITS_FOR.values())
