"""A small shared model, opened as other processes would."""

import contextlib
import time

import numpy as np

from aa2c.shm.segment import Segment
from aa2c.shm.shared_model import PARAMS, SharedModel
from tests.shm.killing import START_S

NUM_PARAMS = 1000
LAYOUT = [("exp_avg", 70), (PARAMS, NUM_PARAMS), ("step", 1)]


def vector(value):
    return np.full(NUM_PARAMS, value, np.float32)


@contextlib.contextmanager
def opening(segment):
    """Open the model with a file and a mapping of its own, as another process would."""
    with contextlib.ExitStack() as opened:

        def open_model(*, is_locked=True, of=segment, layout=LAYOUT):
            model = SharedModel(Segment.attach(of.name), layout, is_locked=is_locked)
            opened.callback(model.close)
            return model

        yield open_model


def wait_until(condition, timeout_s=START_S):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def is_marked(segment):
    """Whether a step is being made, or was torn: the version word is odd."""
    return segment.buf[0] % 2 == 1
