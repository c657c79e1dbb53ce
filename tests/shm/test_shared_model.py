"""The shared model: one at a time, and each step counted."""

import contextlib
import functools
import itertools
import time

import numpy as np
import pytest

from aa2c.shared_model import STATISTICS
from aa2c.shm import shared_model
from aa2c.shm.segment import Segment
from aa2c.shm.shared_model import PARAMS, SharedModel, shared_model_bytes
from aa2c.shm.slot import ALIGNMENT
from tests.shm.models import LAYOUT, NUM_PARAMS, is_marked, opening, vector

MOST_WORKERS = 256


@pytest.fixture
def segment(make_segment):
    return make_segment(shared_model_bytes(LAYOUT))


# Vectors


def test_vectors_are_zero_at_first_aligned_of_their_length_and_apart(segment, open_model):
    model, other = open_model(), open_model()
    assert {name: len(array) for name, array in model.vectors.items()} == dict(LAYOUT)
    start = np.frombuffer(other._segment.buf, np.uint8).ctypes.data
    for value, array in enumerate(model.vectors.values(), 1):
        assert array.dtype == np.float32
        assert not array.any()
        array[:] = value
    for value, array in enumerate(other.vectors.values(), 1):
        assert (array.ctypes.data - start) % ALIGNMENT == 0
        assert (array == value).all()
    assert (model.version, model.torn_steps, model.learning_rate) == (0, 0, 0.0)
    assert not any(segment.buf[:4096])


def test_a_segment_too_small_is_refused_and_one_that_just_suffices_is_not(make_segment):
    nbytes = shared_model_bytes(LAYOUT)
    with pytest.raises(ValueError, match="too small"):
        SharedModel(make_segment(nbytes - 1), LAYOUT, is_locked=True)
    model = SharedModel(make_segment(nbytes), LAYOUT, is_locked=True)
    model.vectors["step"][:] = 1
    model.close()


def test_the_learning_rate_is_a_double_that_moves_nothing_else(open_model):
    model, other = open_model(), open_model()
    for learning_rate in (1e-3 / 3, 0.0, 5e-324, 1.7e308, 0.1):
        model.learning_rate = learning_rate
        assert other.learning_rate == learning_rate
    assert (other.version, other.torn_steps) == (0, 0)


# Publish, pull, version


@pytest.mark.parametrize("is_locked", [True, False])
def test_there_is_nothing_to_pull_before_a_network_is_published(open_model, is_locked):
    model, out = open_model(is_locked=is_locked), vector(-1)
    assert model.version == model.pull(out) == 0
    assert (out == -1).all()


@pytest.mark.parametrize("after", [0, 1, 41, 2**40])
@pytest.mark.parametrize("is_locked", [True, False])
def test_a_pull_gets_what_was_published_and_its_version(open_model, is_locked, after):
    updater, worker = (open_model(is_locked=is_locked) for _ in range(2))
    published, out = np.random.default_rng(0).random(NUM_PARAMS, np.float32), vector(0)
    assert updater.publish(published, after=after) == after + 1
    for _ in range(2):
        assert worker.version == worker.pull(out) == after + 1
        np.testing.assert_array_equal(out, published)
    assert not worker.vectors["exp_avg"].any()


@pytest.mark.parametrize("after", [0, 41])
@pytest.mark.parametrize("is_locked", [True, False])
def test_there_is_nothing_to_pull_while_the_network_is_being_published(
    open_model, is_locked, after
):
    updater, worker = (open_model(is_locked=is_locked) for _ in range(2))
    out, looks = vector(-1), []

    class LooksBeforeItIsCopied:
        def __array__(self, dtype=None, copy=None):
            looks.append((worker.version, worker.pull(out)))
            return vector(1)

    updater.publish(LooksBeforeItIsCopied(), after=after)
    assert looks == [(0, 0)]
    assert (out == -1).all()
    assert worker.pull(out) == after + 1


def test_a_pull_copies_and_later_steps_do_not_reach_the_copy(open_model):
    model, out = open_model(), vector(0)
    model.publish(vector(1))
    model.pull(out)
    with model.step():
        model.vectors[PARAMS][:] = 2
    assert (out == 1).all()


def test_a_step_is_marked_while_it_lasts_and_counted_after_it(segment, open_model):
    model, other = open_model(), open_model()
    model.publish(vector(0), after=6)
    for version in (7, 8, 9):
        assert model.version == version
        assert not is_marked(segment)
        with model.step():
            assert is_marked(segment)
            assert other.version == version
        assert other.version == version + 1
    assert not is_marked(segment)
    assert other.torn_steps == 0


@pytest.mark.parametrize("torn", [1, 2, 5])
def test_a_torn_step_is_counted_by_the_next_one_and_versions_only_grow(segment, open_model, torn):
    model, other = open_model(), open_model()
    model.publish(vector(0))
    versions = [model.version]
    for before in range(torn):
        model.step().__enter__()
        assert is_marked(segment)
        assert other.torn_steps == before
        versions.append(model.version)
    with other.step():
        assert is_marked(segment)
        versions.append(model.version)
    versions.append(model.version)
    assert versions == sorted(versions)
    assert model.version == 1 + torn + 1
    assert model.torn_steps == torn
    with model.step():
        pass
    assert (model.version, model.torn_steps) == (1 + torn + 2, torn)


def test_a_step_that_raises_is_a_torn_one(segment, open_model):
    model = open_model()
    model.publish(vector(0))
    with pytest.raises(ZeroDivisionError), model.step():
        raise ZeroDivisionError
    assert is_marked(segment)
    with model.step():
        pass
    assert (model.version, model.torn_steps) == (3, 1)


# The lock


def test_one_attachment_has_the_lock_at_a_time(open_model):
    first, second = open_model(), open_model()
    for mine, others in ((first, second), (second, first)):
        assert mine.try_lock()
        assert not others.try_lock()
        assert mine.try_lock()
        assert not others.try_lock()
        mine.unlock()


def test_unlocking_what_is_not_locked_or_anothers_changes_nothing(open_model):
    first, second = open_model(), open_model()
    second.unlock()
    assert first.try_lock()
    second.unlock()
    assert not second.try_lock()


def test_closing_gives_the_lock_back(segment, open_model):
    model = SharedModel(Segment.attach(segment.name), LAYOUT, is_locked=True)
    assert model.try_lock()
    model.close()
    assert open_model().try_lock()


def test_attempts_go_on_with_longer_waits_until_the_lock_is_there(open_model):
    first, second = open_model(), open_model()
    first.try_lock()
    started = time.monotonic()
    attempts = second.lock_attempts()
    assert list(itertools.islice(attempts, 9)) == [False] * 9
    assert time.monotonic() - started > 0.015
    first.unlock()
    assert list(attempts) == [True]
    assert not first.try_lock()
    second.unlock()
    assert list(first.lock_attempts()) == [True]


def test_who_gives_up_attempting_has_no_lock(open_model):
    first, second, third = open_model(), open_model(), open_model()
    first.try_lock()
    attempts = second.lock_attempts()
    assert not next(attempts)
    attempts.close()
    first.unlock()
    assert third.try_lock()


# Reading


def test_reading_holds_the_lock_and_gives_it_back_also_after_an_exception(open_model):
    model, other = open_model(), open_model()
    for error in (None, ZeroDivisionError, KeyboardInterrupt):
        with contextlib.suppress(ZeroDivisionError, KeyboardInterrupt), model.reading() as is_still:
            assert is_still
            assert not other.try_lock()
            if error:
                raise error
        assert other.try_lock()
        other.unlock()


def test_who_cannot_read_is_told_so_after_a_while_and_the_holder_keeps_its_lock(
    open_model, monkeypatch
):
    monkeypatch.setattr(shared_model, "LOCK_WAIT_S", 0.05)
    holder, reader, third, out = open_model(), open_model(), open_model(), vector(-1)
    holder.publish(vector(1))
    holder.try_lock()
    started = time.monotonic()
    with reader.reading() as is_still:
        assert is_still is False
        assert time.monotonic() - started >= 0.05
    assert reader.pull(out) == 0
    assert (out == -1).all()
    assert not third.try_lock()
    holder.unlock()
    assert reader.pull(out) == 1
    assert (out == 1).all()
    assert third.try_lock()


# Without the lock


def test_without_a_lock_nobody_waits_for_a_reader_or_is_waited_for(open_model):
    locked, model, out = open_model(), open_model(is_locked=False), vector(0)
    model.publish(vector(1))
    locked.try_lock()
    with model.reading() as is_still:
        assert is_still is True
    assert model.pull(out) == 1
    assert (out == 1).all()
    locked.unlock()
    with model.reading():
        assert locked.try_lock()


def test_without_a_lock_each_worker_counts_its_own_steps_and_the_version_is_their_sum(
    segment, open_model
):
    model, other = open_model(is_locked=False), open_model(is_locked=False)
    model.publish(vector(0), after=10)
    model.learning_rate = 0.25
    for worker in range(MOST_WORKERS):
        for _ in range(1 + worker % 3):
            model.count_step(worker)
    steps = sum(1 + worker % 3 for worker in range(MOST_WORKERS))
    assert other.version == other.pull(vector(0)) == 11 + steps
    assert (other.torn_steps, other.learning_rate) == (0, 0.25)
    assert not is_marked(segment)
    assert not any(array.any() for array in other.vectors.values())


# Running means and stds

WITH_STATISTICS = [(PARAMS, NUM_PARAMS), (STATISTICS, 64)]


@pytest.fixture
def open_with_statistics(make_segment):
    with opening(make_segment(shared_model_bytes(WITH_STATISTICS))) as open_model:
        yield functools.partial(open_model, layout=WITH_STATISTICS)


@pytest.mark.parametrize("is_locked", [True, False])
def test_statistics_are_the_end_of_what_is_published_and_no_part_of_what_is_stepped(
    open_with_statistics, is_locked
):
    model, other = (open_with_statistics(is_locked=is_locked) for _ in range(2))
    assert not other.pull_statistics(np.zeros(64, np.float32)), "there are none yet"
    model.publish(np.arange(NUM_PARAMS, dtype=np.float32))
    assert STATISTICS not in model.vectors
    model.vectors[PARAMS] += 1
    out, statistics = vector(0), np.zeros(64, np.float32)
    assert other.pull(out) == 1
    assert other.pull_statistics(statistics)
    np.testing.assert_array_equal(statistics, np.arange(NUM_PARAMS)[-64:])
    np.testing.assert_array_equal(out[:-64], np.arange(NUM_PARAMS)[:-64] + 1)
    np.testing.assert_array_equal(out[-64:], statistics)


def test_statistics_are_published_and_pulled_while_another_holds_the_lock(open_with_statistics):
    model, holder = open_with_statistics(), open_with_statistics()
    model.publish(vector(0))
    assert holder.try_lock()
    with holder.step():
        model.publish_statistics(np.full(64, 7, np.float32))
        out = np.zeros(64, np.float32)
        assert holder.pull_statistics(out)
        assert (out == 7).all()
    assert holder.version == 2, "they are no step"
