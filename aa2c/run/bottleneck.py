"""The bottleneck of a run: which stage the others wait for, and a sentence of advice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aa2c.config.modes import ModeFacts

WAITS_MUCH = 0.2  # share of its time above which a stage counts as waiting

NOT_TRAINING = {
    "starting": "The processes are starting up.",
    "paused": "The run is paused.",
    "stopping": "The run is stopping: the updater drains the rings and writes a final checkpoint, which "
    "is evaluated if the budget is used up.",
    "finished": "The run has finished.",
    "stopped": "The run was stopped before its budget was used up; it can be resumed.",
    "failed": "The run has failed.",
}


@dataclass(frozen=True)
class Down:
    """A child that is not running: its state, and how it last ended, if it ever did."""

    child: str
    state: str
    last_exit: str | None = None

    def __str__(self) -> str:
        last = f" (last: {self.last_exit})" if self.last_exit else ""
        return f"{self.child} is {self.state}{last}"


def find_bottleneck(mode: ModeFacts, updater_waits: float, workers_wait: float) -> str:
    """The stage that the others wait for, judged by their shares of time spent waiting.

    "balanced" if neither waits much. Where workers step the network, the updater only counts, and
    its waiting means nothing.
    """
    if mode.workers_step:
        updater_waits = 0.0
    if max(updater_waits, workers_wait) < WAITS_MUCH:
        return "balanced"
    return "workers" if updater_waits > workers_wait else "updater"


def advise(
    mode: ModeFacts, state: str, updater_waits: float, workers_wait: float, down: Sequence[Down]
) -> tuple[str, str]:
    """The bottleneck, and a sentence that says what would help.

    `down` are the children that should be running and are not: while there are any, nothing else
    matters.
    """
    if state in NOT_TRAINING:
        return "balanced", NOT_TRAINING[state]
    bottleneck = find_bottleneck(mode, updater_waits, workers_wait)
    if down:
        told = ", ".join(map(str, down))
        has_failed = any(child.last_exit for child in down)
        why = ": see the warnings and the run's log.jsonl for the reason" if has_failed else ""
        return bottleneck, f"{told[0].upper()}{told[1:]}{why}."
    share = updater_waits if bottleneck == "workers" else workers_wait
    return bottleneck, mode.advice[bottleneck].format(share=share)
