"""When a child is restarted no more: what is the same each time is not tried forever."""

from __future__ import annotations

import signal
import time
from types import SimpleNamespace

import pytest

from aa2c import Config, Orchestrator, RunFailed
from aa2c.host.restarts import SAME_ERROR_TRIES, RestartPolicy

ERROR = "ValueError: no port {} (env.py:12, in step)"


class Ends:
    """The ends of one child, each of which has produced something."""

    def __init__(self, monkeypatch):
        self._clock = 1000.0
        self._policy = RestartPolicy(Config(restart_window_s=100))
        monkeypatch.setattr(time, "monotonic", lambda: self._clock)

    def end(self, error, *, after_s=1.0, exit_code=1):
        self._clock += after_s
        child = SimpleNamespace(error=error, replaced_as=None)
        return self._policy.refuse_reason(child, exit_code, produced=True, has_come_up=True)


@pytest.fixture
def ends(monkeypatch):
    return Ends(monkeypatch)


def test_the_same_error_again_and_again_is_not_tried_for_ever(ends):
    told = [ends.end(ERROR.format(number)) for number in range(SAME_ERROR_TRIES)]
    assert told == [None, None, None, "it ended 4 consecutive times with the same error"]


def test_another_error_begins_the_count_anew(ends):
    for error in ("a", "a", "a", "b", "a", "a", "a"):
        assert ends.end(error) is None


def test_one_that_had_lived_for_long_is_tried_anew(ends):
    for _ in range(10):
        assert ends.end("a", after_s=101) is None


def test_what_was_killed_has_made_no_error(ends):
    for _ in range(10):
        assert ends.end(None, exit_code=-signal.SIGKILL) is None
        assert ends.end("no sign of life for 9 s", exit_code=-signal.SIGKILL) is None


@pytest.mark.long
async def test_an_environment_that_fails_the_same_way_each_time_ends_the_run_with_its_error(small):
    """Though it gets something done each time."""
    config = small(env="tests.host.odd_envs:HostFailing-v0", workers=1, total_env_steps=10**9)
    async with Orchestrator(config) as run:
        with pytest.raises(RunFailed, match=r"no more than 100 steps.* 4 consecutive times"):
            await run.wait()
    assert run.status()["progress"]["updates"] > 0
