"""Every test leaves the machine as it found it: no process, no shared memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest
import torch
from hypothesis import HealthCheck, settings

from aa2c import Config
from aa2c.host import launch
from tests import parallel, warm

SMALL = {
    "env": "CartPole-v1",
    "workers": 2,
    "num_envs": 4,
    "hidden_sizes": (16,),
    "eval_interval_s": 0.0,  # tests of the evaluator turn it on
}
GRACE_S = 5.0

# Nothing depends on how fast the machine is.
settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-machine")

for number, usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    # Ignored in jobs in the background, or under nohup: the programs that tests start would inherit it.
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, usual)


def segments() -> set[str]:
    """The segments that there are, but for those of runs that are nothing to us."""
    owners = {path.name: path.name.split("-")[3] for path in Path("/dev/shm").glob("aa2c-*")}
    others = {pid for pid in set(owners.values()) if Path("/proc", pid).exists()}
    others -= {str(pid) for pid in (os.getpid(), *descendants())} if others else set()
    return {name for name, owner in owners.items() if owner not in others}


def children() -> set[int]:
    kept = resource_tracker._resource_tracker._pid, warm.template_pid()
    return {pid for pid in descendants() if pid not in kept and not is_zombie(pid)}


def descendants() -> Iterator[int]:
    """As psutil finds them, without a look at each process of the machine: each test asks often."""
    waiting = [os.getpid()]
    if not Path(f"/proc/{waiting[0]}/task/{waiting[0]}/children").exists():
        yield from (process.pid for process in psutil.Process().children(recursive=True))
        return
    while waiting:
        for listed in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # it has ended
                found = [int(pid) for pid in listed.read_text().split()]
                waiting += found
                yield from found


def is_zombie(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def not_checked(what: str, why: str) -> NoReturn:
    """Skip, with the line that every missing requirement of a test gets in the summary."""
    pytest.skip(f"NOT CHECKED: {what} ({why})", allow_module_level=True)


def program(what: str, *names: str) -> str:
    """The path of the first of these programs that is installed, with which this is checked."""
    for name in names:
        if path := shutil.which(name):
            return path
    not_checked(what, f"{names[0]} is not installed")


@pytest.fixture
def promtool() -> str:
    """Ask for it before a run, which would come up in vain."""
    return program("metrics and alert rules by promtool", "promtool")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fresh",
        action="store_true",
        help="start children as outside of tests (see tests/warm.py)",
    )


def pytest_configure(config: pytest.Config) -> None:
    if parallel.is_side_by_side(config):
        parallel.own_shared_memory()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if parallel.is_side_by_side(config):
        parallel.longest_first(items)


@pytest.fixture(autouse=True, scope="session")
def warm_children(pytestconfig: pytest.Config) -> Iterator[None]:
    """Children of runs in this process start in milliseconds."""
    if pytestconfig.getoption("fresh"):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "subprocess", warm.launching())
        yield
    warm.close()


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> None:
    """As in every process of a run."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    """Fail a test that leaks a process or a segment."""
    before_segments, before_children = segments(), children()
    yield
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline:
        leaked = segments() - before_segments, children() - before_children
        if not any(leaked):
            return
        time.sleep(0.05)
    pytest.fail(f"leaked segments {leaked[0]}, processes {leaked[1]}")


@pytest.fixture
def small(tmp_path: Path) -> Any:
    """A configuration that comes up fast; takes options on top, of all modes (see `used`)."""

    def make(**options: Any) -> Config:
        return Config(**used({**SMALL, "runs_dir": str(tmp_path / "runs"), **options}))

    return make


def used(options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that their mode uses, so that one test can be of all modes."""
    base = Config(mode=options.get("mode", "grad"))
    return {name: value for name, value in options.items() if base.uses(name)}


async def until(condition: Any, timeout_s: float = 100.0) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 (what is waited for sets no event)
            await asyncio.sleep(0.02)


def now(run: Any) -> Any:
    """How far a run has come."""
    return run.status()["progress"]
