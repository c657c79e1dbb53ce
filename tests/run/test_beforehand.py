"""What is refused before anything starts, alike in a program and on the command line."""

from __future__ import annotations

import asyncio
import re

import psutil
import pytest

from aa2c import Config, ConfigError, Orchestrator, train
from aa2c.run import beforehand
from tests.conftest import until


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"env": "CartPoel-v1"}, "--env CartPoel-v1 cannot be made: .*did you mean CartPole-v[01]"),
        ({"env": "ALE/Pongg-v5"}, "--env ALE/Pongg-v5 cannot be made: .*did you mean ALE/Pong-v5"),
        ({"env": "CartPole-v9"}, "--env CartPole-v9 cannot be made: .*did you mean CartPole-v[01]"),
        ({"env": "nowhere_at_all:Env-v0"}, "there is no module nowhere_at_all"),
        ({"env": "tests.run.test_beforehand:NoSuch-v0"}, "NoSuch"),  # this module is imported
        ({"network": "nowhere_at_all:make"}, "--network nowhere_at_all:make cannot be imported"),
        ({"wrapper": ("nowhere_at_all:Wrap",)}, "--wrapper nowhere_at_all:Wrap"),
        ({"vector": "nowhere_at_all:make"}, "--vector nowhere_at_all:make"),
    ],
)
def test_a_program_hears_of_an_id_or_module_that_is_not_there_when_it_makes_the_run(
    tmp_path, options, says
):
    config = Config(runs_dir=str(tmp_path / "runs"), **options)
    for make in (Orchestrator, train):
        with pytest.raises(ConfigError, match=says) as caught:
            make(config)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise LookupError('as planned')", "LookupError: as planned"),
        ("import sys; print('noise'); sys.exit(3)", "SystemExit: 3"),
        ("import os; os.write(1, b'noise')", "Gymnasium has no such id"),
    ],
)
async def test_a_module_is_imported_elsewhere_and_what_it_does_there_is_told(
    tmp_path, monkeypatch, small, code, says
):
    (tmp_path / "a_module_for_this_test.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    run = Orchestrator(small(env="a_module_for_this_test:NoSuch-v0"))
    with pytest.raises(ConfigError, match=re.escape(says)):
        await run.start()
    assert not (tmp_path / "runs").exists()


async def test_a_module_that_takes_too_long_is_left_to_the_run(tmp_path, monkeypatch):
    (tmp_path / "a_slow_module.py").write_text("import time; time.sleep(3600)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(beforehand, "PATIENCE_S", 0.1)
    await beforehand.require_importable(Config(env="a_slow_module:Env-v0"))


async def test_what_a_module_starts_when_it_is_imported_ends_with_the_look_at_it(
    tmp_path, monkeypatch
):
    """Also what keeps the module's standard output open."""
    code = f"""
import os, subprocess, time
child = subprocess.Popen(["sleep", "3600"])
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
if not os.fork():
    time.sleep(3600)
time.sleep(3600)
"""
    (tmp_path / "a_module_with_children.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(beforehand, "PATIENCE_S", 3.0)
    await asyncio.wait_for(
        beforehand.require_importable(Config(env="a_module_with_children:Env-v0")), 60
    )
    pid = int((tmp_path / "pid").read_text())
    await until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")


def test_the_default_environment_waits_for_no_import(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "aa2c.envs.known", None)
    beforehand.require_possible(Config())
    with pytest.raises(ImportError):
        beforehand.require_possible(Config(env="Acrobot-v1"))
