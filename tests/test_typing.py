"""What mypy tells a user who has installed the package, about scripts outside the project."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import aa2c

SCRIPT = """\
import asyncio

from aa2c import Config, Orchestrator


async def main() -> None:
    config = Config(workers=2)
    async with Orchestrator(config) as run:
        await run.wait()


asyncio.run(main())
"""


@pytest.mark.long
@pytest.mark.timeout(300)  # without a cache, mypy reads the stubs of all that the package imports
def test_a_correct_script_passes_strict_and_a_misspelt_option_is_reported(tmp_path):
    # mypy trusts an installed package only if it has py.typed, and never looks at PYTHONPATH.
    user = tmp_path / "venv"
    venv.create(user, symlinks=True)
    (site,) = user.glob("lib/python*/site-packages")
    installed = [str(Path(aa2c.__file__).parents[1]), sysconfig.get_path("purelib")]
    (site / "installed.pth").write_text("\n".join(installed))
    (tmp_path / "correct.py").write_text(SCRIPT)
    (tmp_path / "misspelt.py").write_text(SCRIPT.replace("workers=2", "workerz=2"))
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable"]
    checked = subprocess.run(
        [*command, user / "bin" / "python", "correct.py", "misspelt.py"],
        cwd=tmp_path,
        text=True,
        capture_output=True,
    )
    error, summary = checked.stdout.splitlines()
    assert 'misspelt.py:7: error: Unexpected keyword argument "workerz" for "Config"' in error
    assert summary == "Found 1 error in 1 file (checked 2 source files)"
