"""Shared-memory segments that leave nothing behind.

The only place that names `SharedMemory`. The orchestrator creates and unlinks; children attach.
A segment's name tells who made it (pid namespace, pid, start time of that process), so that
the janitor of a later run can remove what a `kill -9` left without opening it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import sys
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

from aa2c.errors import SharedMemoryTooSmall

SHM_DIR = Path("/dev/shm")
MIB = 1024 * 1024

# x86 keeps stores in program order and loads in program order; elsewhere records need a checksum.
STORES_ARE_ORDERED = platform.machine().lower() in {"x86_64", "amd64", "i686", "i386"}

_register_lock = threading.Lock()


class Segment:
    """One mapped segment. `buf` is its memory; it starts out zeroed."""

    def __init__(self, memory: SharedMemory) -> None:
        self.name = memory.name
        self._memory: SharedMemory | None = memory

    @classmethod
    def create(cls, name: str, nbytes: int) -> Segment:
        """Create a segment whose pages exist: a later store can never raise SIGBUS.

        Raises `SharedMemoryTooSmall` where the file system cannot hold it.
        """
        require_space(nbytes)
        with _register_lock:
            memory = SharedMemory(name, create=True, size=nbytes)
        try:
            os.posix_fallocate(memory._fd, 0, nbytes)  # type: ignore[attr-defined]
        except OSError as error:
            memory.close()
            memory.unlink()
            if error.errno == errno.ENOSPC:
                raise too_small(nbytes) from None
            raise
        return cls(memory)

    @classmethod
    def attach(cls, name: str) -> Segment:
        """Map a segment another process created. Raises `FileNotFoundError`."""
        if sys.version_info >= (3, 13):
            return cls(SharedMemory(name, track=False))
        with _no_registration():
            return cls(SharedMemory(name))

    @property
    def buf(self) -> memoryview:
        if self._memory is None or self._memory.buf is None:
            raise ValueError(f"segment {self.name} is closed")
        return self._memory.buf

    def fileno(self) -> int:
        """The segment's file, opened by this process for itself: what `flock` needs."""
        if self._memory is None:
            raise ValueError(f"segment {self.name} is closed")
        descriptor: int = self._memory._fd  # type: ignore[attr-defined]
        return descriptor

    def close(self) -> None:
        """Give the mapping back; where a view of it is still alive, it goes with that view."""
        memory, self._memory = self._memory, None
        if memory is None:
            return
        try:
            memory.close()
        except BufferError:
            memory._buf = None  # type: ignore[attr-defined]
            memory._mmap = None  # type: ignore[attr-defined]
            memory.close()

    def __del__(self) -> None:
        self.close()  # before SharedMemory's own does, which complains where a view is still alive

    def unlink(self) -> None:
        """Remove the name (creator only); processes that have the segment mapped keep it."""
        with contextlib.suppress(FileNotFoundError):
            (SHM_DIR / self.name).unlink()
        resource_tracker.unregister(f"/{self.name}", "shared_memory")


@contextlib.contextmanager
def _no_registration() -> Iterator[None]:
    """Attach without telling the resource tracker, which would unlink a segment that is not ours.

    Before Python 3.13 attaching registers as creating does (python/cpython#82300).
    """
    with _register_lock:
        register = resource_tracker.register
        resource_tracker.register = lambda *_: None
        try:
            yield
        finally:
            resource_tracker.register = register


def too_small(nbytes: int) -> SharedMemoryTooSmall:
    """The refusal, with what is needed and how to get it."""
    return SharedMemoryTooSmall(
        f"/dev/shm has {_free_bytes() / MIB:.0f} MiB free and this run needs {nbytes / MIB:.0f} MiB: "
        f"enlarge it (mount -o remount,size={nbytes // MIB * 2 + 64}m /dev/shm; in Docker "
        f"--shm-size={nbytes // MIB * 2 + 64}m), or lower --workers or --ring-slots."
    )


def require_space(nbytes: int) -> None:
    """Refuse what /dev/shm cannot hold. Raises `SharedMemoryTooSmall`."""
    if _free_bytes() < nbytes:
        raise too_small(nbytes)


def _free_bytes() -> int:
    """What /dev/shm can still take: its own limit, and memory that is really there."""
    limit = os.statvfs(SHM_DIR)
    memory = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    available = int(memory[1]) * 1024 if memory else sys.maxsize
    return min(limit.f_bavail * limit.f_frsize, available)


def name_prefix(run_id: str) -> str:
    """The names of this run's segments begin with this: prefix, user, creator, run."""
    pid = os.getpid()
    return f"{_user_prefix()}{pid}-{_start_time(pid)}-{run_id}-"


def _user_prefix() -> str:
    namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    return f"aa2c-{os.getuid()}-{namespace}-"


def _start_time(pid: int) -> int | None:
    """Clock ticks after boot at which a process began; None where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    after_name = stat.rpartition(")")[2].split()
    return None if after_name[0] in "ZX" else int(after_name[19])


def leftovers() -> list[Path]:
    """The segments of this user's dead runs in this pid namespace."""
    found = []
    for path in SHM_DIR.glob(f"{_user_prefix()}*"):
        pid, _, rest = path.name.removeprefix(_user_prefix()).partition("-")
        start_time = rest.partition("-")[0]
        if pid.isdigit() and start_time.isdigit() and _start_time(int(pid)) != int(start_time):
            found.append(path)
    return found


def remove_leftovers() -> list[str]:
    """Unlink the segments of dead runs; returns their names."""
    removed = []
    for path in leftovers():
        with contextlib.suppress(OSError):  # another run was faster, or it is not a segment
            path.unlink()
            removed.append(path.name)
    return removed
