"""What is printed is bounded: who prints all the time fills no disk, and the ends can still be read."""

from __future__ import annotations

import os
import subprocess
import sys
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


@pytest.mark.parametrize("place", ["disk", "/dev/full"])
def test_what_is_printed_is_kept_and_a_full_disk_loses_it_without_an_error(tmp_path, place):
    path = tmp_path / "output.log"
    if place == "/dev/full":
        path.symlink_to(place)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from aa2c.host.output import redirect_output\n"
        "redirect_output(Path(sys.argv[1]))\n"
        "print('é' * 10**5, '\\ud800', flush=True)\n"
        "print('to stderr', file=sys.stderr)\n"
        "os.system('echo not from Python')\n"
        "Path(sys.argv[1], 'done').touch()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(
        command, check=False, capture_output=True, env=os.environ | {"LC_ALL": "C"}
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "done").exists()
    if place == "disk":
        lines = path.read_text().splitlines()
        assert lines == ["é" * 10**5 + " \\ud800", "to stderr", "not from Python"]
