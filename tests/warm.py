"""Children of a run start in milliseconds: as forks of one process that has imported all they need.

A fresh interpreter takes a child more than a second of CPU time, most of it for torch, and the suite
starts hundreds. All else is as in a run outside of tests: a child is a process of its own whose parent
is the test's, with the descriptors, environment, directory and signal mask that `launch` gives it, and
it runs the same code. Runs of programs (`tests/cli`, `test_scripts`, ...) start fresh interpreters as
ever, and with `pytest --fresh` all do.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import threading
import traceback
from types import SimpleNamespace
from typing import Any, NoReturn

from setproctitle import setproctitle

from aa2c.host import launch

MOST_BYTES, MOST_DESCRIPTORS = 2**17, 250
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
_CLONE_PARENT = 0x8000
_REAL = subprocess.Popen


class Warm(subprocess.Popen):
    """A child of this process, forked by the template; `launch` takes it for one that it started."""

    _template: Template | None = None

    def __init__(self, command: list[str], *, env: Any, pass_fds: list[int], **_: Any) -> None:
        wanted = {
            "code": command[-1],
            "env": dict(env),
            "directory": os.getcwd(),
            "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
            "files": resource.getrlimit(resource.RLIMIT_NOFILE),
            "descriptors": [1, 2, *pass_fds],
        }
        if Warm._template is None:
            Warm._template = Template()
        self.args, self.returncode = command, None
        self.stdin = self.stdout = self.stderr = None
        self._waitpid_lock = threading.Lock()
        self.pid = Warm._template.fork(wanted)
        self._child_created = True


class Template:
    """The process that is forked."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        code = f"from tests.warm import serve; serve({theirs.fileno()})"
        flags = subprocess._args_from_interpreter_flags()
        self.process = _REAL(
            [sys.executable, *flags, "-P", "-c", code],
            stdin=subprocess.DEVNULL,
            env=os.environ
            | dict.fromkeys(launch._THREAD_VARIABLES, "1")
            | {"PYTHONPATH": os.pathsep.join(launch._absolute(sys.path))},
            pass_fds=[theirs.fileno()],
        )
        theirs.close()

    def fork(self, wanted: dict[str, Any]) -> int:
        """The number of a new child of this process, which the template has forked."""
        socket.send_fds(self._socket, [pickle.dumps(wanted)], wanted["descriptors"])
        return int(self._socket.recv(100))

    def close(self) -> None:
        self._socket.close()
        self.process.wait()


def launching() -> SimpleNamespace:
    """What `launch` has for its `subprocess`."""

    def popen(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        # A child dies with the thread that started it: here that is the one of the template.
        is_main = threading.current_thread() is threading.main_thread()
        return (Warm if is_main else _REAL)(*arguments, **options)

    return SimpleNamespace(**vars(subprocess) | {"Popen": popen})


def template_pid() -> int | None:
    return Warm._template.process.pid if Warm._template else None


def close() -> None:
    if Warm._template is not None:
        Warm._template.close()
        Warm._template = None


def serve(number: int) -> None:
    """Import what children import; then fork one for each request."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a terminal's Ctrl-C is for pytest
    setproctitle("pytest-template")  # it must find its environment untouched the first time
    _import_all()
    assert len(os.listdir("/proc/self/task")) == 1, "a fork has no other thread"
    with socket.socket(fileno=number) as requests:
        while True:
            data, descriptors, _, _ = socket.recv_fds(requests, MOST_BYTES, MOST_DESCRIPTORS)
            if not data:
                return
            pid = _fork_sibling()
            if pid == 0:
                _become(pickle.loads(data), descriptors)
            requests.send(str(pid).encode())
            for descriptor in descriptors:
                os.close(descriptor)


def _import_all() -> None:
    import gc

    gc.disable()  # as children do it: nothing that is made here is garbage
    import gymnasium.envs.classic_control  # noqa: F401
    import torch
    import torch._dynamo  # as the first optimizer of a process does

    import aa2c.host.child
    import aa2c.learn.optimizer
    import aa2c.modes.grad.updater
    import aa2c.modes.grad.worker
    import aa2c.modes.model.updater
    import aa2c.modes.model.worker
    import aa2c.modes.traj.updater
    import aa2c.modes.traj.worker
    import aa2c.roles.evaluator
    import aa2c.roles.updater
    import aa2c.roles.worker  # noqa: F401

    torch.set_num_threads(1)
    gc.freeze()
    gc.enable()


def _fork_sibling() -> int:
    """As `os.fork`, but the new process is a child of this one's parent."""
    python, c = ctypes.pythonapi, ctypes.PyDLL(None)
    python.PyOS_BeforeFork()
    pid = c.syscall(_SYS_CLONE, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        python.PyOS_AfterFork_Child()
    else:
        python.PyOS_AfterFork_Parent()
    if pid < 0:
        os._exit(1)
    return pid


def _become(wanted: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Have what `launch` passes, and nothing else of the template's; run the child's code."""
    try:
        above = max([*descriptors, *wanted["descriptors"]]) + 1
        moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, above) for fd in descriptors]
        os.closerange(3, above)
        for fd, number in zip(moved, wanted["descriptors"], strict=True):
            os.dup2(fd, number)
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, wanted["files"])
        os.environ.clear()
        os.environ.update(wanted["env"])
        os.chdir(wanted["directory"])
        signal.pthread_sigmask(signal.SIG_SETMASK, wanted["mask"])
        exec(wanted["code"], vars(sys.modules["__main__"]))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
