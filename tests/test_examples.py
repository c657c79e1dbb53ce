"""Every example runs, for a short while."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
ARGUMENTS = {"embed.py": ["4000"], "own_environment.py": ["4000"]}


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_the_example_runs(example, tmp_path):
    done = subprocess.run(
        [sys.executable, example, *ARGUMENTS[example.name]],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout
