"""Every example runs, for a short while."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

EXAMPLES = Path(__file__).parent.parent / "examples"
# Of one a return that is soon reached, of one a number of trials; the others: few env steps.
LEAST = {"read_status.py": ["20"], "sweep.py": ["4000", "1"]}


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_the_example_runs(example, tmp_path):
    done = subprocess.run(
        [sys.executable, example, *LEAST.get(example.name, ["4000"])],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout
