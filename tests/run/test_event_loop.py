"""The event loop of the command line."""

from __future__ import annotations

import asyncio
import sys

import pytest

from aa2c.run.event_loop import new_event_loop


@pytest.mark.parametrize("there", [True, False])
def test_it_is_uvloops_where_there_is_one_and_otherwise_asyncios(there, monkeypatch, capfd):
    if not there:
        monkeypatch.setitem(sys.modules, "uvloop", None)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        loop = runner.get_loop()
        assert type(loop).__module__.startswith("uvloop" if there else "asyncio")
        assert runner.run(asyncio.sleep(0, result=3)) == 3
    assert capfd.readouterr() == ("", "")
