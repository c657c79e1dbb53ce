"""Rows of counters: each its own memory, and values that outlive their writer."""

import itertools

import pytest

from aa2c.shm.counters import (
    RING,
    UPDATER,
    WORKER,
    Counters,
    ring_row,
    table_bytes,
    updater_row,
    worker_row,
)
from aa2c.shm.segment import Segment

WORKERS = 3


@pytest.fixture
def segment(make_segment):
    return make_segment(table_bytes(WORKERS))


def open_rows(segment):
    """All rows with their layouts."""
    rows = [(updater_row(segment), UPDATER)]
    for worker in range(WORKERS):
        rows += [(worker_row(segment, worker), WORKER), (ring_row(segment, worker), RING)]
    return rows


def names_and_numbers(rows):
    names = [(row, name) for row, layout in rows for name in layout.ints + layout.floats]
    return zip(names, itertools.count(1), strict=False)


def test_no_value_of_any_row_overlaps_another(segment):
    rows = open_rows(segment)
    for (row, name), number in names_and_numbers(rows):
        row.set(name, number)
    for (row, name), number in names_and_numbers(rows):
        read = row.count if name in row._int_index else row.value
        assert read(name) == number
    for row, _ in rows:
        row.close()


def test_everything_starts_at_zero(segment):
    for row, layout in open_rows(segment):
        assert not any(row.count(name) for name in layout.ints)
        assert not any(row.value(name) for name in layout.floats)
        row.close()


def test_a_successor_goes_on_from_the_values_it_finds(segment):
    first = worker_row(segment, 1)
    first.add("episodes", 5)
    first.add("wait_s", 0.25)
    first.close()
    attached = Segment.attach(segment.name)
    second = worker_row(attached, 1)
    second.add("episodes", 2)
    second.add("wait_s", 0.5)
    assert (second.count("episodes"), second.value("wait_s")) == (7, 0.75)
    second.close()
    attached.close()


def test_a_reader_sees_each_store_at_once(segment):
    writer, reader = updater_row(segment), updater_row(segment)
    writer.set("policy_version", 2**40)
    writer.set("grad_norm", 1e-3)
    assert reader.count("policy_version") == 2**40
    assert reader.value("grad_norm") == 1e-3
    writer.close()
    reader.close()


def test_counts_are_whole_numbers_and_the_rest_are_not(segment):
    row = updater_row(segment)
    row.set("lag_max", 3.0)
    row.add("env_steps", 2.0)
    row.set("policy", -1.5)
    row.add("policy", 0.25)
    assert (row.count("lag_max"), row.count("env_steps")) == (3, 2)
    assert isinstance(row.count("env_steps"), int)
    assert row.value("policy") == -1.25
    row.close()


def test_an_unknown_name_is_refused(segment):
    row = worker_row(segment, 0)
    for call in (lambda: row.add("nothing", 1), lambda: row.set("nothing", 1)):
        with pytest.raises(KeyError):
            call()
    with pytest.raises(KeyError):
        row.count("wait_s")
    with pytest.raises(KeyError):
        row.value("episodes")
    row.close()


def test_the_last_row_ends_within_the_segment(segment):
    last = ring_row(segment, WORKERS - 1)
    last.add("invalid", 1)
    assert last.count("invalid") == 1
    last.close()


@pytest.mark.parametrize("layout", [UPDATER, WORKER, RING])
def test_names_of_a_row_are_distinct_and_fit_into_it(segment, layout):
    names = layout.ints + layout.floats
    assert len(set(names)) == len(names)
    row = Counters(segment, 2 * WORKERS, layout)
    row.set(names[-1], 1)
    row.close()
