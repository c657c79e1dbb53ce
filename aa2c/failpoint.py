"""Failpoints: named places at which a test may kill, suspend, delay or fail a child process.

Off unless the environment variable AA2C_FAILPOINTS is set when a run starts, for instance to

    aa2c-worker-1:ring.before_commit=kill@3;aa2c-updater.2:checkpoint.before_manifest=raise

which is process:place=action, optionally only the third time it gets there. Actions are kill (SIGKILL),
stop (SIGSTOP), raise, and a number of seconds to wait. They affect one incarnation of a process, the
first unless a number says otherwise: a restarted process must be able to make progress.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

VARIABLE = "AA2C_FAILPOINTS"
PLACES = (
    "worker.before_step",  # it has its parameters, and has not acted yet
    "ring.before_payload",  # a slot is reserved and not yet filled
    "ring.before_commit",  # arrays and header are written, the record is not yet visible
    "ring.after_commit",  # visible, the updater not yet woken
    "model.locked",  # holds the lock of the shared model
    "model.mid_step",  # a step has begun, the version word is odd
    "updater.after_take",  # records are taken, but not learned from yet
    "updater.mid_update",  # learned from, neither counted nor published
    "params.mid_publish",  # a buffer of the board is being written
    "updater.before_release",  # published, the slots not yet released
    "checkpoint.before_manifest",  # files are written, the manifest is not
    "checkpoint.before_rename",  # complete, under its temporary name
    "checkpoint.after_rename",  # complete; old ones are not yet removed
    "bridge.before_copy",  # a host's frame has arrived
    "bridge.before_commit",  # a record is copied into the updater's memory, and not yet visible
    "bridge.after_commit",  # visible, the updater not yet woken
    "evaluator.before_report",  # games are played, the result is not reported yet
)


class Planned(RuntimeError):
    """What a place raises whose action is raise."""


@dataclass
class _Trap:
    action: str
    wait_for: int

    def spring(self, place: str) -> None:
        self.wait_for -= 1
        if self.wait_for:
            return
        match self.action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "raise":
                raise Planned(f"failpoint {place}")
            case seconds:
                time.sleep(float(seconds))


_armed: dict[str, _Trap] = {}


def arm(process: str, generation: int) -> None:
    """Set the traps that are meant for this incarnation of a process. Raises `ValueError`."""
    for item in filter(None, os.environ.get(VARIABLE, "").split(";")):
        wanted, _, rest = item.partition(":")
        place, _, action = rest.partition("=")
        action, _, count = action.partition("@")
        if place not in PLACES:
            raise ValueError(f"{VARIABLE} names {place!r}, which is none of {', '.join(PLACES)}")
        if action not in ("kill", "stop", "raise"):
            float(action)
        name, _, number = wanted.partition(".")
        if name == process and int(number or 0) == generation:
            _armed[place] = _Trap(action, int(count or 1))


def failpoint(place: str) -> None:
    """A place where a test may strike."""
    if _armed and place in _armed:
        _armed[place].spring(place)
