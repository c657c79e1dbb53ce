"""Fixtures of the tests of the command line."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from aa2c.cli.main import main

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process, which has imported all that a new one would first import."""

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as ended:  # from the parser of flags
            code = int(ended.code or 0)
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return command
