"""A program's callback, called with a run that is played."""

from __future__ import annotations

import numpy as np
import pytest

from aa2c.errors import RunFailed
from aa2c.ports import Report
from aa2c.run.callback import Caller


class Played:
    """A run of which only the status is asked."""

    checkpoint_at = None

    def status(self):
        return {"updater": {"checkpoint_at": self.checkpoint_at}}


@pytest.fixture
def run():
    return Played()


def recorded(run, answer=None):
    """The events that a callback sees, and how it has ended the run."""
    events, ends = [], []

    def call(event, status, its_run):
        assert its_run is run
        assert status == run.status()
        events.append(event)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Caller(call, run, ends.append), events, ends


def test_a_checkpoint_is_told_once_before_the_second_in_which_it_is_noticed(run):
    caller, events, ends = recorded(run)
    caller.second()
    run.checkpoint_at = 7.0
    caller.second()
    caller.second()
    caller.hear({"kind": Report.SAVED, "path": "x"})
    assert events == ["second", "checkpoint", "second", "second", "checkpoint"]
    assert not ends


def test_an_evaluation_is_told_once_both_ways_were_played(run):
    caller, events, _ = recorded(run)
    caller.hear({"kind": Report.EVALUATED, "policy": "greedy"})
    assert events == []
    caller.hear({"kind": Report.EVALUATED, "policy": "sampled"})
    caller.hear({"kind": Report.EPISODES})
    assert events == ["evaluation"]


@pytest.mark.parametrize("answer", [False, np.bool_(False)])
def test_false_ends_the_run(run, answer):
    caller, events, ends = recorded(run, answer)
    caller.second()
    assert ends == [None]
    caller.tell("end")
    assert events == ["second", "end"]


@pytest.mark.parametrize("answer", [None, True, 0, [], np.bool_(True)])
def test_nothing_else_ends_it(run, answer):
    caller, _, ends = recorded(run, answer)
    caller.second()
    assert not ends


def test_what_it_raises_ends_the_run_as_failed_and_it_is_not_called_again(run):
    error = KeyError("score")
    caller, events, ends = recorded(run, error)
    caller.second()
    caller.tell("end")
    assert events == ["second"]
    assert [(type(end), str(end)) for end in ends] == [
        (RunFailed, "the callback raised KeyError('score')")
    ]
    assert caller.error is error


def test_without_a_callback_nothing_is_asked_of_the_run():
    caller = Caller(None, None, pytest.fail)
    caller.second()
    caller.hear({"kind": Report.SAVED})
    caller.tell("end")
    assert caller.error is None
