"""The shared model in many processes: a dead holder stands in nobody's way."""

import itertools
import os
import random
import signal
import time

import numpy as np
import pytest

from aa2c.shared_model import STATISTICS
from aa2c.shm.segment import Segment
from aa2c.shm.shared_model import PARAMS, SharedModel, shared_model_bytes
from tests.lock_holder import lock_holder, stop_holder
from tests.shm.killing import START_S, spawn
from tests.shm.models import LAYOUT, is_marked, vector, wait_until

BIG = [(PARAMS, 200_000)]


@pytest.fixture
def segment(make_segment):
    return make_segment(shared_model_bytes(LAYOUT))


def hold(name, in_step, pipe):
    model = SharedModel(Segment.attach(name), LAYOUT, is_locked=True)
    assert model.try_lock()
    if in_step:
        model.step().__enter__()
    pipe.send("holds it")
    pipe.recv()


@pytest.mark.parametrize("in_step", [False, True])
def test_the_lock_of_another_process_holds_until_that_is_killed_also_if_it_is_stopped_first(
    segment, open_model, start, in_step
):
    model, (ours, theirs) = open_model(), spawn.Pipe()
    model.publish(vector(0))
    process = start(hold, segment.name, in_step, theirs)
    assert ours.poll(START_S)
    assert lock_holder(segment.name) == process.pid
    assert not model.try_lock()
    os.kill(process.pid, signal.SIGSTOP)
    assert not model.try_lock()
    process.kill()
    wait_until(model.try_lock)
    assert lock_holder(segment.name) == os.getpid()
    assert is_marked(segment) == in_step
    with model.step():
        pass
    assert model.torn_steps == in_step
    assert model.version == 2 + in_step
    model.unlock()
    assert lock_holder(segment.name) is None
    ours.close()
    theirs.close()


def count_when_told(name, worker, count):
    model = SharedModel(Segment.attach(name), LAYOUT, is_locked=False)
    model.count_step(worker)
    while model.learning_rate == 0:
        pass
    for _ in range(count):
        model.count_step(worker)


def test_no_step_of_processes_that_count_at_the_same_time_is_lost(segment, open_model, start):
    model, workers, count = open_model(is_locked=False), 3, 200_000
    model.publish(vector(0))
    processes = [start(count_when_told, segment.name, i, count) for i in range(workers)]
    wait_until(lambda: model.version == 1 + workers)
    model.learning_rate = 1.0
    versions = [model.version]
    while any(process.is_alive() for process in processes):
        versions.append(model.version)
    assert versions == sorted(versions)
    assert model.version == 1 + workers + workers * count


# Many processes


def step_until_told(name, worker):
    """Add 1 to each parameter in every step; count those begun and those ended apart."""
    model = SharedModel(Segment.attach(name), BIG, is_locked=True)
    while model.learning_rate:
        assert list(model.lock_attempts())[-1]
        model.count_step(2 * worker)
        with model.step():
            model.vectors[PARAMS] += 1
        model.count_step(2 * worker + 1)
        model.unlock()


def steps_of(segment, worker):
    """Those that were begun, and those that were ended."""
    with segment.buf[:4096].cast("Q") as words:
        return words[64 + 2 * worker], words[64 + 2 * worker + 1]


@pytest.fixture
def many(make_segment, open_model, start):
    """A big model, and processes that step it."""

    def many(count):
        segment = make_segment(shared_model_bytes(BIG))
        model = open_model(of=segment, layout=BIG)
        model.publish(np.zeros(BIG[0][1], np.float32))
        model.learning_rate = 1.0
        processes = [start(step_until_told, segment.name, i) for i in range(count)]
        wait_until(lambda: all(steps_of(segment, i)[1] for i in range(count)))
        return segment, model, processes

    return many


def test_a_puller_beside_busy_workers_gets_whole_networks_of_the_version_it_is_told(many):
    segment, model, processes = many(3)
    out, pulled = np.zeros(BIG[0][1], np.float32), []
    until = time.monotonic() + 0.5
    while time.monotonic() < until or len(set(pulled)) < 10:
        version = model.pull(out)
        if version:
            assert (out == version - 1).all()
            pulled.append(version)
    assert pulled == sorted(pulled)
    model.learning_rate = 0.0
    for process in processes:
        process.join(START_S)
        assert process.exitcode == 0
    begun, ended = np.sum([steps_of(segment, i) for i in range(3)], axis=0)
    assert model.version - 1 == begun == ended
    assert (model.vectors[PARAMS] == ended).all()
    assert model.torn_steps == 0
    assert lock_holder(segment.name) is None


def test_workers_killed_at_random_or_in_the_middle_of_a_step_stop_nobody_else(many):
    chance = random.Random(0)
    segment, model, processes = many(5)
    victims, out, versions = list(processes), np.zeros(BIG[0][1], np.float32), [1]
    for kill in range(4):
        if kill % 2:
            victim = chance.choice(victims)
            time.sleep(chance.uniform(0, 0.02))
        else:
            pid = stop_holder(segment.name, [process.pid for process in victims], START_S)
            victim = next(process for process in victims if process.pid == pid)
        victims.remove(victim)
        victim.kill()
        before, deadline = model.version, time.monotonic() + START_S
        while model.version < before + 10:
            assert time.monotonic() < deadline
            versions.append(model.version)
            versions.append(model.pull(out) or versions[-1])
    assert versions == sorted(versions)
    model.learning_rate = 0.0
    for process in victims:
        process.join(START_S)
        assert process.exitcode == 0
    wait_until(model.try_lock)
    with model.step():  # counts the last one, if that was torn
        pass
    whole = model.version - 2 - model.torn_steps
    begun, ended = np.sum([steps_of(segment, i) for i in range(5)], axis=0)
    assert model.torn_steps <= 4
    assert ended <= whole <= begun <= ended + 4
    params = model.vectors[PARAMS]
    assert whole <= params.min()
    assert params.max() <= whole + model.torn_steps


WITH_STATISTICS = [*BIG, (STATISTICS, 50_000)]


def publish_statistics(name):
    """The mean is in the first half and the variance in the second: the same number."""
    model = SharedModel(Segment.attach(name), WITH_STATISTICS, is_locked=False)
    for number in itertools.count(1):
        model.publish_statistics(np.full(50_000, number, np.float32))


def step_without_lock(name):
    """As an optimizer does: all of the vector is read and written back."""
    model = SharedModel(Segment.attach(name), WITH_STATISTICS, is_locked=False)
    while True:
        model.vectors[PARAMS] += 1


@pytest.mark.long
def test_hogwild_steps_and_kills_tear_no_statistics(make_segment, open_model, start):
    segment = make_segment(shared_model_bytes(WITH_STATISTICS))
    model = open_model(is_locked=False, of=segment, layout=WITH_STATISTICS)
    model.publish(np.zeros(BIG[0][1], np.float32))
    for _ in range(2):
        start(step_without_lock, segment.name)
    out, seen = np.zeros(50_000, np.float32), [0.0]
    for _ in range(3):
        updater, before = start(publish_statistics, segment.name), len(set(seen))
        while len(set(seen)) < before + 30:
            if model.pull_statistics(out):
                assert (out == out[0]).all()
                seen.append(float(out[0]))
        updater.kill()
        updater.join(START_S)
        assert model.pull_statistics(out), "what a killed updater left is whole"
        assert (out == out[0]).all()
