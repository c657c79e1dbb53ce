"""The accounts of a run's records: what must not be is found."""

from __future__ import annotations

import pytest

from aa2c.host.journal import VARIABLE, Journal, check


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write one process's entries, and return the directory to check."""
    monkeypatch.setenv(VARIABLE, "1")

    def write(name, *entries):
        journal = Journal(tmp_path, name)
        for entry in entries:
            journal.add(*entry)
        return tmp_path / "journal"

    write("produced-0-0", *[(0, 0, i) for i in range(6)])
    write("produced-0-1", *[(0, 1, i) for i in range(3)])
    return write


def test_gaps_are_allowed_where_somebody_was_started_again(write):
    write("taken-0", (0, 0, 0), (0, 0, 1))
    directory = write("taken-1", (0, 0, 3), (0, 0, 4), (0, 1, 0))
    assert check(directory) == {"produced": 9, "taken": 5, "lost": 4, "updaters": 2}


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ([(0, 0, 0), (0, 0, 0)], [], "taken twice"),
        ([(0, 0, 0), (0, 0, 1)], [(0, 0, 1)], "taken twice"),
        ([(0, 0, 0), (0, 0, 2)], [], "came next after"),
        ([(0, 0, 2)], [(0, 0, 1)], "came after"),
        ([(0, 1, 0)], [(0, 0, 5)], "came after"),
        ([(0, 0, 6)], [], "never produced"),
        ([(1, 0, 0)], [], "never produced"),
    ],
    ids=str,
)
def test_what_must_not_be_is_found(write, first, second, said):
    write("taken-0", *first)
    directory = write("taken-1", *second)
    with pytest.raises(ValueError, match=said):
        check(directory)


def test_an_entry_that_was_cut_off_does_not_count(write):
    directory = write("taken-0", (0, 0, 0))
    with (directory / "taken-0").open("ab") as file:
        file.write(b"\x01" * 11)
    assert check(directory)["taken"] == 1


def test_there_is_none_where_nobody_asked_for_it(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    Journal(tmp_path, "taken-0").add(0, 0, 0)
    assert list(tmp_path.iterdir()) == []
