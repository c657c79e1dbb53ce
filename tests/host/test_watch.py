"""Who is watched is judged by the time that the watcher has lived, and rests when it is alone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from aa2c import Config, Orchestrator
from aa2c.clock import LivedClock
from aa2c.host import upkeep
from aa2c.host.commands import Stop, Stopped
from aa2c.host.incarnation import ChildSlot, Incarnation
from aa2c.host.resting import MISSED_AFTER_S, Resting
from aa2c.host.usage import waited_for_core_s
from aa2c.host.watch import TOO_LATE, watch
from aa2c.roles.evaluator import run_evaluator
from aa2c.roles.worker import run_worker
from aa2c.shm.counters import run_row, table_bytes, updater_row, worker_row, workers_in
from aa2c.shm.segment import Segment
from tests.conftest import now, until


def all_pids(run):
    status = run.status()
    return [child["pid"] for child in (status["updater"], *status["workers"])]


def test_a_clock_counts_what_was_lived_between_two_looks_and_no_more(monkeypatch):
    times = iter([100.0, 100.5, 4000.0, 4000.25])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    clock = LivedClock(most_s=1.0)
    assert [clock.look() for _ in range(3)] == [0.5, 1.5, 1.75]


@pytest.mark.long
async def test_a_machine_that_slept_has_stalled_nobody(small):
    """Everybody is stopped for longer than any limit, and the orchestrator is the first awake."""
    config = small(total_env_steps=10**9, stall_timeout_s=4.0, no_progress_s=4.0)
    async with Orchestrator(config) as run:
        await run.ready()
        await until(lambda: now(run)["updates"] > 0)
        pids = all_pids(run)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(5.0)  # noqa: ASYNC251 (the orchestrator sleeps, too)
        rows = run._history.uptime_s
        await until(lambda: run._history.uptime_s > rows + 1.2)  # it has looked at them all
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        updates = now(run)["updates"]
        await until(lambda: now(run)["updates"] > updates)
        assert all_pids(run) == pids
        assert not [line for line in run.status()["log"] if "stalled" in line["text"]]


def test_workers_rest_once_the_budget_is_used_up(make_segment):
    table = make_segment(table_bytes(2))
    assert workers_in(table) == 2
    rows = [worker_row(table, i) for i in range(2)]
    assert not Resting(table, budget=10).is_budget_used_up
    rows[0].set("env_steps", 4)
    rows[1].set("env_steps", 6)
    assert not Resting(table, budget=10).is_budget_used_up, "nothing was learned yet"
    updater_row(table).set("updates", 1)
    assert Resting(table, budget=10).is_budget_used_up
    assert not Resting(table, budget=11).is_budget_used_up
    assert not Resting(table).is_budget_used_up, "an evaluator makes none of these steps"


def test_who_misses_the_orchestrators_heartbeat_rests_until_it_is_back(make_segment, monkeypatch):
    table = make_segment(table_bytes(1))
    clock = [50.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    resting, run = Resting(table), run_row(table)
    seen = []
    for beats, at in [(0, 50), (0, 90), (1, 91), (1, 95), (1, 97), (2, 98), (2, 102), (2, 104)]:
        run.set("beats", beats)
        clock[0] = at
        seen.append(resting.is_due)
    assert seen == [False, False, False, False, True, False, False, True]
    assert MISSED_AFTER_S == 5.0


PROGRAM = """
import asyncio
from aa2c import Config, Orchestrator

async def main():
    config = Config(
        workers=1, num_envs=4, num_steps=4, eval_interval_s=0, total_env_steps=10**9, runs_dir={runs!r}
    )
    async with Orchestrator(config) as run:
        await run.ready()
        print(run._engine._memory.counters_segment.name, flush=True)
        await run.wait()

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.long
async def test_workers_of_a_stopped_orchestrator_rest_and_train_on_with_it(tmp_path):
    """As after Ctrl-Z. One that rests shows signs of life, and makes no env step."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(runs=str(tmp_path / "runs")))
    with subprocess.Popen(  # noqa: ASYNC220 (nothing else runs in this loop)
        [sys.executable, program], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            table = Segment.attach(process.stdout.readline().strip())
            row = worker_row(table, 0)

            async def rests():
                beats, steps = row.count("beats"), row.count("env_steps")
                await until(lambda: row.count("beats") > beats + 10)
                return row.count("env_steps") == steps

            assert not await rests()
            process.send_signal(signal.SIGSTOP)
            async with asyncio.timeout(60):
                while not await rests():
                    pass
                process.send_signal(signal.SIGCONT)
                while await rests():
                    pass
            row.close()
            table.close()
        finally:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGINT)


class Starting:
    """A child that has not come up, and dies when it is killed."""

    role = "worker"
    pid = None
    is_watched_elsewhere = False
    is_ready = False
    error = replaced_as = None

    def __init__(self):
        self.exited = asyncio.get_running_loop().create_future()

    @property
    def is_alive(self):
        return not self.exited.done()

    def kill(self):
        self.exited.set_result(-signal.SIGKILL)


async def test_a_child_may_come_up_slowly_but_not_hang_meanwhile(make_segment):
    """Its limit counts from the last sign of life."""
    child, row = Starting(), worker_row(make_segment(table_bytes(1)), 0)
    looks = []

    def is_paused():  # is asked at each look
        looks.append(time.monotonic())
        if len(looks) <= 6:
            row.add("beats", 1)
        return False

    await watch(child, row, is_paused, Config(start_timeout_s=2.0))
    assert looks[-1] - looks[0] > 4.5, "it lived on for as long as it showed signs of life"
    assert child.replaced_as == TOO_LATE


async def test_a_child_that_gets_no_core_is_not_late(make_segment, monkeypatch):
    child, row = Starting(), worker_row(make_segment(table_bytes(1)), 0)
    begun, looks = time.monotonic(), []
    starved = [True]

    def waited(_pid):
        looks.append(time.monotonic())
        return looks[-1 if starved else 5] - begun

    def is_paused():
        if len(looks) == 6:
            starved.clear()
        return False

    monkeypatch.setattr("aa2c.host.usage.waited_for_core_s", waited)
    await watch(child, row, is_paused, Config(start_timeout_s=1.0))
    assert len(looks) > 7, "its limit counts only once it gets a core"
    assert child.replaced_as == TOO_LATE


class Finishing(Incarnation):
    """Finishes its work, and says how it ended."""

    def __init__(self):
        super().__init__("updater", 0, 0, lambda _message: None)
        self.became_ready.set()

    def send(self, command):
        assert command == Stop()

    def kill(self):
        if self.is_alive:
            self.exited.set_result(-signal.SIGKILL)


@pytest.mark.parametrize(("looks_without_core", "exit_code"), [(5, 0), (1, -signal.SIGKILL)])
async def test_a_child_that_gets_no_core_has_longer_to_stop(
    monkeypatch, looks_without_core, exit_code
):
    """It needs four looks to finish, more than fit into its time, unless it waits for a core."""
    child, begun, looks = Finishing(), time.monotonic(), []

    def waited(_pid):
        looks.append(time.monotonic())
        if len(looks) == 5:
            child.exited.set_result(0)
        return looks[:looks_without_core][-1] - begun

    monkeypatch.setattr("aa2c.host.usage.waited_for_core_s", waited)
    await child.stop(0.7)
    assert child.exited.result() == exit_code


@pytest.mark.long
def test_a_process_beside_others_on_one_core_waits_for_it():
    """Two that are always ready share a core: each waits about half of the time."""
    core = min(os.sched_getaffinity(0))
    busy = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    both = [subprocess.Popen([sys.executable, "-c", busy]) for _ in range(2)]
    try:
        for process in both:
            while waited_for_core_s(process.pid) < 0.5:
                time.sleep(0.05)
    finally:
        for process in both:
            process.kill()
            process.wait()
    assert waited_for_core_s(both[0].pid) == 0.0, "it has ended"
    assert waited_for_core_s(None) == 0.0


def test_each_environment_that_was_made_is_a_sign_of_life(small):
    signs = []

    def connect():
        raise Stopped

    env = {"env": "tests.host.odd_envs:HostPlain-v0", "num_envs": 3}
    for run_role in (
        lambda tick: run_worker(small(**env), 0, (0,), connect, lambda spec: None, tick=tick),
        lambda tick: run_evaluator(small(eval_episodes=3, **env), Path(), connect, tick),
    ):
        with pytest.raises(Stopped):
            run_role(lambda: signs.append("made"))
    assert len(signs) == 3 + 3 + 3, "a worker makes and resets each, an evaluator makes each"


async def test_who_is_late_is_said(make_segment, tmp_path, monkeypatch):
    monkeypatch.setattr(upkeep, "SLOW_START_S", 0.05)
    said, stopping, have_come_up = [], asyncio.Event(), asyncio.Event()
    log = SimpleNamespace(warning=lambda event, **told: said.append((event, told["who"])))
    slots = [ChildSlot("updater", has_come_up=True), ChildSlot("worker", 0), ChildSlot("worker", 1)]
    kept_up = upkeep.Upkeep(
        run_row(make_segment(table_bytes(1))), tmp_path, log,
        stopping=stopping, have_come_up=have_come_up,
    )  # fmt: skip
    async with asyncio.TaskGroup() as tasks:
        kept_up.start(tasks, lambda: slots)
        await until(lambda: len(said) == 2)
        have_come_up.set()
        stopping.set()
    assert (
        said
        == [("still coming up (are environments slow to make?)", "aa2c-worker-0, aa2c-worker-1")]
        * 2
    )
