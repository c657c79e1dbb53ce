"""The shared model: one network and one optimizer state in shared memory, stepped by all workers.

The place of the parameter board in mode model. Workers act on it without a lock; whoever steps it
holds a lock that the kernel takes back when its holder dies (`flock` on the segment's own file),
and marks the step: the version word is odd while one is being made. A holder killed in the middle
leaves it odd, which the next one finds and counts. Such a step is tolerated, not repaired:
optimizers of this package work element by element and a float32 is stored whole, so a torn step
is a step of fewer elements, and undoing it would take a copy of everything before each.

Running means and stds are no part of what is stepped: an optimizer writes back also what it does not
change, and so would undo half of what the updater, their only writer, puts there meanwhile. They have a
parameter board of their own, so that readers find mean and variance of the same moment, lock or not.

Without the lock (Hogwild, arXiv:1106.5730) every worker counts its own steps, for a shared count
would lose some.

    words 0: version word; 8: torn steps; 16: learning rate (double); 64 + worker: steps without lock
    4096: the vectors, each aligned; in the place of `STATISTICS` their board
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from aa2c.failpoint import failpoint
from aa2c.shared_model import PARAMS, STATISTICS
from aa2c.shm.board import ParameterBoard, board_bytes
from aa2c.shm.segment import Segment
from aa2c.shm.slot import align

LOCK_WAIT_S = 0.2  # of a reader, who then comes back later
_CONTROL_BYTES = 4096
_VERSION, _TORN, _LEARNING_RATE, _OWN_STEPS = 0, 8, 16, 64
_SHORTEST_WAIT_S, _LONGEST_WAIT_S = 0.0001, 0.005

Vector = NDArray[np.float32]
# Name and length of each vector; `PARAMS` is one of them, and ends in what `STATISTICS` holds, if it is.
Layout = Sequence[tuple[str, int]]


def shared_model_bytes(layout: Layout) -> int:
    """Bytes of a segment for these float32 vectors."""
    return _CONTROL_BYTES + sum(_bytes_of(name, length) for name, length in layout)


def _bytes_of(name: str, length: int) -> int:
    return board_bytes(length) if name == STATISTICS else align(4 * length)


class SharedModel:
    """The vectors, by name, and the rules for changing them."""

    def __init__(self, segment: Segment, layout: Layout, *, is_locked: bool) -> None:
        if len(segment.buf) < shared_model_bytes(layout):
            raise ValueError(f"segment {segment.name} is too small for {layout}")
        self.is_locked = is_locked
        self.vectors: dict[str, Vector] = {}
        self._segment = segment
        self._words = segment.buf[:_CONTROL_BYTES].cast("Q")
        self._floats = segment.buf[:_CONTROL_BYTES].cast("d")
        self._statistics: ParameterBoard | None = None
        self._num_statistics = 0
        start = _CONTROL_BYTES
        for name, length in layout:
            if name == STATISTICS:
                self._statistics = ParameterBoard(segment, length, start=start)
                self._num_statistics = length
            else:
                self.vectors[name] = np.frombuffer(segment.buf, np.float32, length, start)
            start += _bytes_of(name, length)

    @property
    def version(self) -> int:
        """Publications and steps so far; 0 means that there is no network yet."""
        version = self._words[_VERSION] // 2
        return version if self.is_locked else version + sum(self._words[_OWN_STEPS:])

    @property
    def torn_steps(self) -> int:
        """Steps whose worker was killed in the middle."""
        return self._words[_TORN]

    @property
    def learning_rate(self) -> float:
        """The learning rate to use now, which the updater sets."""
        return self._floats[_LEARNING_RATE]

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._floats[_LEARNING_RATE] = value

    def try_lock(self) -> bool:
        """Take the lock if it is free."""
        try:
            fcntl.flock(self._segment.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        """Give the lock back."""
        fcntl.flock(self._segment.fileno(), fcntl.LOCK_UN)

    def lock_attempts(self) -> Iterator[bool]:
        """Try to lock with ever longer waits between, yielding whether it worked, until it has.

        Not a blocking call, so that a process that waits behind a stopped one still shows signs
        of life.
        """
        wait_s = _SHORTEST_WAIT_S
        while not self.try_lock():
            yield False
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        yield True

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """A step, by the holder of the lock: marked while it lasts, and counted."""
        word = self._words[_VERSION]
        if word % 2:
            self._words[_TORN] += 1
            word += 1
        self._words[_VERSION] = word + 1
        failpoint("model.mid_step")
        yield
        self._words[_VERSION] = word + 2

    def count_step(self, worker: int) -> None:
        """Count a step that a worker made without the lock."""
        self._words[_OWN_STEPS + worker] += 1

    def publish(self, vector: Vector, *, after: int = 0) -> int:
        """Put a network in as version `after` + 1, which is returned. Only before any step."""
        self._words[_VERSION] = 1  # not 2 * after + 1, at which readers would find a network
        self.vectors[PARAMS][:] = vector
        if self._num_statistics:
            self.publish_statistics(vector[-self._num_statistics :])
        self._words[_VERSION] = 2 * after + 2
        return after + 1

    def publish_statistics(self, statistics: Vector) -> None:
        """Make these running means and stds the newest, by the updater; no lock is needed."""
        if self._statistics is not None:
            self._statistics.publish(statistics)

    def pull_statistics(self, out: Vector) -> bool:
        """The newest ones into `out`, whole; False if the updater overtook every attempt."""
        return self._statistics is None or self._statistics.pull(out) > 0

    def pull(self, out: Vector) -> int:
        """Copy the parameters into `out`, whole unless there is no lock; returns their version.

        0 means that there is no network yet, or that the lock was not to be had.
        """
        with self.reading() as is_mine:
            if not is_mine or self.version == 0:
                return 0
            out[:] = self.vectors[PARAMS]
            if self._num_statistics and not self.pull_statistics(out[-self._num_statistics :]):
                return 0
            return self.version

    @contextlib.contextmanager
    def reading(self) -> Iterator[bool]:
        """Hold off steps while reading, if there is a lock; False if it was not to be had."""
        deadline = time.monotonic() + LOCK_WAIT_S
        is_held = False
        for is_held in self.lock_attempts() if self.is_locked else ():
            if is_held or time.monotonic() > deadline:
                break
        try:
            yield is_held or not self.is_locked
        finally:
            if is_held:
                self.unlock()

    def close(self) -> None:
        self.vectors.clear()
        self._words.release()
        self._floats.release()
        if self._statistics is not None:
            self._statistics.close()
        self._segment.close()
