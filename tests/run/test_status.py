"""Where a run is in its life: how it ended, and whether all its children are there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from aa2c.errors import RunFailed
from aa2c.run.status import ENDED_STATES, how_ended, state_in


def child(state: str, last_exit: str | None = None) -> Any:
    return SimpleNamespace(state=state, last_exit=last_exit)


def engine(*workers: Any, evaluator: Any = None) -> Any:
    return SimpleNamespace(
        updater=child("running"), evaluator=evaluator or child("starting"), workers=workers
    )


def test_only_a_run_that_was_trained_to_its_budget_has_finished():
    ends = how_ended(None, True), how_ended(None, False), how_ended(RunFailed("x"), True)
    assert ends == ENDED_STATES


@pytest.mark.parametrize(
    ("worker", "state"),
    [
        (child("running", "SIGKILL"), "running"),  # it is back
        (child("starting"), "running"),  # it was added
        (child("stopping", "SIGKILL"), "running"),  # it is taken away
        (child("stopped", "SIGKILL"), "degraded"),
        (child("starting", "exit code 1"), "degraded"),
        (child("abandoned", "exit code 1"), "degraded"),
    ],
)
def test_a_run_is_degraded_while_a_child_that_died_is_not_back(worker, state):
    assert state_in("running", lambda: False, engine(child("running"), worker)) == state
    assert state_in("running", lambda: False, engine(evaluator=worker)) == state
    assert state_in("running", lambda: True, engine(worker)) == "paused"


def test_of_an_ended_run_nobody_asks_whether_it_is_paused():
    def is_paused():
        raise ValueError("its memory has been given back")

    assert state_in("stopped", is_paused, engine(child("stopped"))) == "stopped"
