"""The short form of tools/fuzz.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "tools/fuzz.py"
TARGETS = re.findall(r"^def (\w+)\(data: bytes\) -> None:$", FUZZ.read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "target", [TARGETS[0], *(pytest.param(name, marks=pytest.mark.long) for name in TARGETS[1:])]
)
def test_bytes_are_read_or_refused(target, tmp_path):
    command = [sys.executable, FUZZ, target, "--seconds", "2", "--corpus", tmp_path / "corpus"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert found.returncode == 0, found.stderr[-3000:] + found.stdout[-3000:]
    assert re.search(r"Done \d{2,} runs", found.stderr)


def test_there_are_targets():
    assert len(TARGETS) >= 5
