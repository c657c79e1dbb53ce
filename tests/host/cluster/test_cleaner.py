"""What a process leaves when it is killed is removed by its cleaner."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aa2c.host.cluster import cleaner
from tests.conftest import until

OWNER = """\
import sys
from aa2c.host.cluster import cleaner
cleaner.start(sys.argv[1], sys.argv[2])
print("started", flush=True)
sys.stdin.read()
"""


async def test_segments_and_directory_of_a_killed_process_are_removed_and_no_others(tmp_path):
    directory, kept = tmp_path / "its", tmp_path / "kept"
    for made in (directory, kept):
        (made / "deeper").mkdir(parents=True)
    segments = [Path(f"/dev/shm/aa2c-testcleaner-{name}") for name in ("its-ring", "other-ring")]
    with subprocess.Popen(  # noqa: ASYNC220 (whose parent does not reap it meanwhile)
        [sys.executable, "-c", OWNER, "aa2c-testcleaner-its-", str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout.readline() == b"started\n"
        try:
            for segment in segments:
                segment.touch()
            assert directory.exists()
            owner.kill()
            await until(lambda: not segments[0].exists() and not directory.exists())
            assert segments[1].exists()
            assert (kept / "deeper").exists()
        finally:
            for segment in segments:
                segment.unlink(missing_ok=True)


@pytest.fixture
def ended():
    """The pid of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_it_ends_once_the_directory_is_gone_however_many_tries_are_left(
    ended, tmp_path, monkeypatch
):
    monkeypatch.setattr(cleaner, "TRIES", 10**12)
    monkeypatch.setattr(cleaner, "LOOK_EVERY_S", 0.0)
    directory = tmp_path / "its"
    directory.mkdir()
    cleaner.main(ended, "", str(directory))
    assert not directory.exists()


def test_a_directory_that_is_made_anew_meanwhile_is_removed_again(ended, tmp_path, monkeypatch):
    directory, left = tmp_path / "its", [1, 1, 0]

    def write_late(_):
        if left.pop(0):
            (directory / "log").mkdir(parents=True)

    monkeypatch.setattr(cleaner.time, "sleep", write_late)
    cleaner.main(ended, "", str(directory))
    assert not directory.exists()
    assert not left
