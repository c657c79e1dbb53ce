"""The signals that `serve` answers, and the end of other commands by Ctrl-C: nothing else handles any."""

from __future__ import annotations

import contextlib
import signal
import sys
from asyncio import AbstractEventLoop, Event
from collections.abc import Iterator

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU)
_WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)  # from a batch system, before its time limit


def hold() -> None:
    """Let them wait until they are answered: imports take a while, and would be ended by some."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (*_STOPPING, *_WARNINGS))


def answer(loop: AbstractEventLoop, stop: Event, save: Event) -> None:
    """Set an event on each from now on, those that wait included.

    But for what is ignored, as under nohup or in the background.
    """
    for number in (*_STOPPING, *_WARNINGS):
        if signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, (save if number in _WARNINGS else stop).set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_STOPPING, *_WARNINGS))


@contextlib.contextmanager
def born_deaf() -> Iterator[None]:
    """Processes that are started meanwhile do not hear Ctrl-C: who starts them ends them quietly.

    Ctrl-C waits until all of them have got what they are to do. Blocking it does not suffice for
    that: a thread of a library may take the signal, and Python interrupts the main thread anyway.
    """
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def interrupted() -> int:
    """Say that a command was ended by Ctrl-C; returns its exit code, as shells report it."""
    print("aa2c: interrupted", file=sys.stderr)
    return 128 + signal.SIGINT
