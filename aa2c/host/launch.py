"""A fresh interpreter for a child, which never imports the program that starts it.

So a run may be started by a script without `if __name__ == "__main__":`, from standard input, by
`python -c`, in a notebook, or in a daemonic process, all of which `multiprocessing` refuses. A
child inherits nothing but descriptors; what it must know comes pickled through a pipe whose other
end only its parent has.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import pickle
import signal
import subprocess
import sys
from multiprocessing import spawn
from multiprocessing.context import set_spawning_popen
from multiprocessing.reduction import ForkingPickler

from aa2c.host.commands import ChildSpec

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

# Modules are found as in the parent, before anything but the standard library is imported.
_BOOT = """\
import pickle, sys
with open({fd}, "rb") as sent:
    sys.path[:], sys.argv[:] = pickle.load(sent)
    from aa2c.host.child import main
    main(pickle.load(sent))
"""


class Feed:
    """What a child is sent at its start, written as fast as the child reads: nobody waits for it."""

    def __init__(self, fd: int, data: bytes) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd = fd
        self._data = memoryview(data)
        os.set_blocking(fd, False)
        self._loop.add_writer(fd, self._write)
        self._write()

    def _write(self) -> None:
        try:
            self._data = self._data[os.write(self._fd, self._data) :]
        except BlockingIOError:
            return
        except OSError:  # it is dead already, and its end will be seen
            self.close()
        if not self._data:
            self.close()

    def close(self) -> None:
        """Send no more."""
        if self._fd >= 0:
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1


class _Passed:
    """A descriptor that has the same number in the child."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def detach(self) -> int:
        return self._fd


class _Passing:
    """Stands in for `multiprocessing`'s launcher, which pipes and wake-ups ask to be inherited."""

    DupFd = _Passed

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def duplicate_for_child(self, fd: int) -> int:
        self.descriptors.append(fd)
        return fd


def launch(
    spec: ChildSpec, blocked: set[signal.Signals], hidden: str = ""
) -> tuple[subprocess.Popen[bytes], Feed]:
    """Start a child that runs `aa2c.host.child.main` with the spec. Raises `OSError`.

    It gets one thread for its maths, the blocked signals and no standard input, and leads a process
    group. Environment variables whose names begin with `hidden` are not for it.
    """
    sent, descriptors = _pickled(spec)
    out, into = os.pipe()
    command = [
        spawn.get_executable(),
        *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]
        "-P",
        "-c",
        _BOOT.format(fd=out),
    ]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env=_environment(hidden),
            pass_fds=[out, *descriptors],
            restore_signals=False,
            process_group=0,  # a terminal's Ctrl-C or Ctrl-Z reaches the orchestrator only
        )
    except BaseException:
        os.close(into)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(out)
    return process, Feed(into, sent)


def _environment(hidden: str) -> dict[str, str]:
    shown = {k: v for k, v in os.environ.items() if not (hidden and k.startswith(hidden))}
    return shown | dict.fromkeys(_THREAD_VARIABLES, "1")


def _pickled(spec: ChildSpec) -> tuple[bytes, list[int]]:
    """All that is sent to a child, and the descriptors that must be passed to it."""
    file, passing = io.BytesIO(), _Passing()
    file.write(pickle.dumps((_absolute(sys.path), sys.argv)))
    set_spawning_popen(passing)  # type: ignore[arg-type]  # it has what is asked of a launcher
    try:
        ForkingPickler(file).dump(spec)
    finally:
        set_spawning_popen(None)
    return file.getvalue(), passing.descriptors


def _absolute(path: list[str]) -> list[str]:
    """Where modules are found, with the current directory by its name: the child may change its own."""
    with contextlib.suppress(FileNotFoundError):  # somebody has removed it
        return [entry or os.getcwd() for entry in path]
    return path
