"""What is printed is bounded: who prints all the time fills no disk, and the ends can still be read."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from aa2c import Orchestrator
from aa2c.host.output import KEPT_BYTES, MIB, MOST_BYTES, Output


def test_the_first_and_the_last_of_it_are_kept(tmp_path):
    warnings = []
    output = Output(tmp_path, SimpleNamespace(warning=warnings.append))
    path = tmp_path / "output.log"
    output.bound()  # nobody has printed yet
    with path.open("ab", 0) as child:
        child.write(b"the first line\n")
        for i in range(3):
            child.write(b"x" * MOST_BYTES)
            child.write(b"line %d\n" % i)
            output.bound()
            assert path.stat().st_size < MOST_BYTES
        child.write(b"the last line\n")
    kept = path.read_bytes()
    assert kept.startswith(b"the first line\n")
    assert kept.endswith(b"line 2\nthe last line\n")
    assert kept.count(b"are left out here]") == 1
    assert b"[aa2c: 10 MiB are left out here]" in kept
    assert len(kept) < 2 * KEPT_BYTES + 1000
    assert len(warnings) == 1


@pytest.mark.long
async def test_an_environment_that_prints_all_the_time_fills_no_disk(small):
    config = small(env="tests.host.odd_envs:HostChatty-v0", total_env_steps=20_000)
    async with Orchestrator(config) as run:
        status = await run.wait()
    assert status["run"]["state"] == "finished"
    printed = status["progress"]["env_steps"] * 4000 / MIB
    assert printed > 70
    assert (run.dir / "output.log").stat().st_size <= MOST_BYTES
    assert any("much is printed" in line["text"] for line in status["log"])
