"""What processes use of CPU and memory, beside what psutil reads of the same processes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from aa2c.host.usage import ProcessUsage

SPIN = "import time\nprint(flush=True)\nwhile True: time.process_time()"
TICK_S = 0.01  # in which the kernel counts
REST = "print(flush=True)\ninput()"


@contextlib.contextmanager
def process(code: str) -> Iterator[psutil.Process]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as started:
        assert started.stdout is not None
        started.stdout.readline()
        try:
            yield psutil.Process(started.pid)
        finally:
            started.kill()


def used_s(it: psutil.Process) -> float:
    return sum(it.cpu_times()[:2])


def test_it_is_what_psutil_reads():
    usage = ProcessUsage()
    with process(SPIN) as spinning:
        before = used_s(spinning)
        while used_s(spinning) < before + 0.2:
            usage.sample(spinning.pid)
        low = used_s(spinning), spinning.memory_info().rss
        usage.sample(spinning.pid)
        assert low[0] - TICK_S <= usage.cpu_s <= used_s(spinning) + TICK_S
        assert usage.rss_bytes == pytest.approx(low[1], rel=0.2)
        assert 0 < usage.cpu_share <= 2


def test_cpu_time_is_of_all_incarnations_and_memory_of_the_one_that_lives():
    usage = ProcessUsage()
    with process(SPIN) as first:
        while usage.cpu_s < 0.05:
            usage.sample(first.pid)
    spent = usage.cpu_s
    usage.sample(None)
    assert (usage.cpu_s, usage.rss_bytes, usage.cpu_share) == (spent, None, None)
    with process(REST) as second:
        usage.sample(second.pid)
        assert spent <= usage.cpu_s <= spent + used_s(second) + TICK_S
        assert usage.rss_bytes > 0
    usage.sample(second.pid)
    assert usage.rss_bytes is None, "it has ended, and nobody has said so yet"


def test_a_name_with_spaces_and_brackets_does_not_shift_the_fields():
    name = "import setproctitle; setproctitle.setthreadtitle('a) b (c 1 2')\n"
    usage = ProcessUsage()
    with process(name + REST) as odd:
        usage.sample(odd.pid)
        assert usage.rss_bytes == pytest.approx(odd.memory_info().rss, rel=0.2)
        assert usage.cpu_s <= used_s(odd) + TICK_S
