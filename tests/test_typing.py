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
OWN_CODE = """\
from typing import Any

import gymnasium as gym
from torch import nn

from aa2c import Config


class MyEnv(gym.Env[Any, Any]):
    pass


def make_trunk(obs_shape: tuple[int, ...]) -> nn.Module:
    return nn.Flatten()


config = Config(env=MyEnv, network=make_trunk)
name: str = config.env
Config(env=lambda: gym.make("CartPole-v1"))
Config(env_kwargs={"sutton_barto_reward": True}, wrapper=[gym.wrappers.FlattenObservation])
Config(env="CartPole-v1", network="mlp")
"""


@pytest.mark.long
@pytest.mark.timeout(600)  # without a cache, mypy reads the stubs of all that the package imports
def test_correct_scripts_pass_strict_and_a_misspelt_option_and_a_wrong_type_are_reported(tmp_path):
    # mypy trusts an installed package only if it has py.typed, and never looks at PYTHONPATH.
    user = tmp_path / "venv"
    venv.create(user, symlinks=True)
    (site,) = user.glob("lib/python*/site-packages")
    installed = [str(Path(aa2c.__file__).parents[1]), sysconfig.get_path("purelib")]
    (site / "installed.pth").write_text("\n".join(installed))
    (tmp_path / "correct.py").write_text(SCRIPT)
    (tmp_path / "own_code.py").write_text(OWN_CODE)
    (tmp_path / "number.py").write_text("from aa2c import Config\n\nConfig(env=3)\n")
    (tmp_path / "misspelt.py").write_text(SCRIPT.replace("workers=2", "workerz=2"))
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable"]
    checked = subprocess.run(
        [*command, user / "bin" / "python", *sorted(path.name for path in tmp_path.glob("*.py"))],
        cwd=tmp_path,
        text=True,
        capture_output=True,
    )
    *errors, summary = checked.stdout.splitlines()
    misspelt, number = sorted(errors)
    assert 'misspelt.py:7: error: Unexpected keyword argument "workerz" for "Config"' in misspelt
    assert 'number.py:3: error: Argument "env" to "Config" has incompatible type "int"' in number
    assert summary == "Found 2 errors in 2 files (checked 4 source files)"
