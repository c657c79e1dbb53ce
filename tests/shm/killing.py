"""Ends of processes and of calls at moments that a test names."""

import itertools
import multiprocessing
import sys

START_S = 20.0

spawn = multiprocessing.get_context("spawn")


class Killed(BaseException):
    """Stands for SIGKILL: no handler in the code under test may catch it."""


def kill_at(instruction, call):
    """Run `call` up to its n-th bytecode instruction in aa2c.shm; False if it has fewer."""
    left = itertools.count(instruction, -1)

    def trace(frame, event, _argument):
        if "/aa2c/shm/" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and next(left) == 0:
            raise Killed
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Killed:
        return True
    finally:
        sys.settrace(before)
    return False


def kill(process):
    process.kill()
    process.join(START_S)
    assert process.exitcode is not None
