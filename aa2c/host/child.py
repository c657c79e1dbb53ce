"""What every child process does first and last, whatever its role.

Runs in the child. It takes a process title, dies with its parent, opens the log,
runs its role, and turns whatever goes wrong into a message for the orchestrator and a traceback in
the log. Its exit code is a message too: 0 told to stop, 3 never came up, 1 crashed.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import os
import select
import signal
import sys
import threading
from typing import Any

import setproctitle

from aa2c import failpoint
from aa2c.envs.registered import register
from aa2c.errors import Aa2cError, StartError
from aa2c.host.commands import ChildSpec, Commands, Stopped
from aa2c.host.env_processes import let_start_processes
from aa2c.host.output import redirect_output
from aa2c.host.wiring import ROLES
from aa2c.log import LogFile, make_logger
from aa2c.machine import open_standard_descriptors
from aa2c.ports import Report
from aa2c.shm.queue import Sender

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def main(spec: ChildSpec) -> None:
    """Entry point of a child process."""
    _join_parent(spec)
    keep_freed_memory()
    open_standard_descriptors()  # which the parent may have closed
    redirect_output(spec.run_dir)
    faulthandler.enable()
    setproctitle.setproctitle(spec.title)
    log = make_logger(LogFile(spec.run_dir / "log.jsonl"), spec.title)
    log = log.bind(generation=spec.generation)
    exit_code = _run(spec, log)
    sys.stdout.flush()
    os._exit(exit_code)  # without the interpreter's shutdown, which takes torch half a second


def _run(spec: ChildSpec, log: Any) -> int:
    """Run the role to its end; returns the exit code."""
    report = Sender(spec.reports)
    try:
        failpoint.arm(spec.title, spec.generation)
        if spec.role != "engine":
            _import_torch()
        if spec.role in ("worker", "evaluator"):  # who make environments
            register(spec.registered)
            let_start_processes(spec.config)
        ROLES[spec.role](spec, Commands(spec.commands), report)
    except (Stopped, KeyboardInterrupt):
        return 0
    except (Exception, SystemExit) as error:  # a user's network may say with either why it ends
        _report_failure(error, log, report)
        return error.exit_code if isinstance(error, Aa2cError) else 1
    return 0


def _import_torch() -> None:
    """Single-threaded. What it makes stays for good, so the garbage collector never looks at it."""
    gc.disable()
    import torch

    torch.set_num_threads(1)
    gc.freeze()
    gc.enable()


def _report_failure(error: Exception | SystemExit, log: Any, report: Sender) -> None:
    is_plain = isinstance(error, StartError) and error.__cause__ is None
    log.error("failed", error=str(error), exc_info=not is_plain)
    sentence = str(error) if isinstance(error, Aa2cError) else f"{type(error).__name__}: {error}"
    with contextlib.suppress(OSError):  # nobody is there to hear it
        report.send(Report.ERROR, message=sentence[:4000])


def _join_parent(spec: ChildSpec) -> None:
    """Die with the orchestrator, in two ways: with the thread that started us, and with the pipe."""
    if spec.dies_with_parent_thread:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != spec.parent_pid:
        os._exit(1)
    watch = threading.Thread(
        target=_exit_with_parent, args=(spec.commands.fileno(),), name="parent-watch", daemon=True
    )
    watch.start()


def keep_freed_memory() -> None:
    """Let glibc keep what is freed: the kernel would hand out each batch's buffers page by page.

    Another C library has no such setting, or needs none.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _exit_with_parent(commands: int) -> None:
    poll = select.poll()
    poll.register(commands, 0)  # nothing but that the pipe's other end is closed
    poll.poll()
    os._exit(1)
