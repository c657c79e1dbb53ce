"""Shared-memory segments that leave nothing behind.

The only place that names `SharedMemory`. The orchestrator creates and unlinks; children attach.
A creator holds a lock on each segment for as long as it lives, so the janitor of a later run knows
what a `kill -9` left, across pid namespaces and boots.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import platform
import re
import signal
import struct
import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

from aa2c.errors import SharedMemoryTooSmall, StartError

SHM_DIR = Path("/dev/shm")
MIB = 1024 * 1024
_MEANS_NO_FILES = (errno.EMFILE, errno.ENFILE)

# x86 keeps stores in program order and loads in program order; elsewhere records need a checksum.
STORES_ARE_ORDERED = platform.machine().lower() in {"x86_64", "amd64", "i686", "i386"}


class Segment:
    """One mapped segment. `buf` is its memory; it starts out zeroed."""

    def __init__(self, name: str, memory: SharedMemory | _Attached) -> None:
        self.name = name
        self._memory: SharedMemory | _Attached | None = memory

    @classmethod
    def create(cls, name: str, nbytes: int) -> Segment:
        """Create a segment whose pages exist: a later store can never raise SIGBUS.

        Raises `SharedMemoryTooSmall` where the file system cannot hold it.
        """
        require_space(nbytes)
        _start_tracker()
        try:
            memory = SharedMemory(name, create=True, size=nbytes)
        except OSError as error:
            if error.errno in _MEANS_NO_FILES:
                raise
            raise StartError(
                f"{SHM_DIR} cannot be written ({error.strerror}): let this user write it, as "
                f"mount -t tmpfs -o mode=1777 tmpfs {SHM_DIR} does."
            ) from None
        try:
            with contextlib.suppress(OSError):  # no kernel's support: nobody takes it for dead
                _lock(memory._fd, fcntl.F_OFD_SETLKW, fcntl.F_RDLCK)  # type: ignore[attr-defined]
            os.posix_fallocate(memory._fd, 0, nbytes)  # type: ignore[attr-defined]
        except OSError as error:
            memory.close()
            memory.unlink()
            if error.errno == errno.ENOSPC:
                raise too_small(nbytes) from None
            raise
        return cls(name, memory)

    @classmethod
    def attach(cls, name: str) -> Segment:
        """Map a segment another process created. Raises `FileNotFoundError`."""
        return cls(name, _Attached(name))

    @property
    def buf(self) -> memoryview:
        if self._memory is None or self._memory.buf is None:
            raise ValueError(f"segment {self.name} is closed")
        return self._memory.buf

    def fileno(self) -> int:
        """The segment's file, opened by this process for itself: what `flock` needs."""
        if self._memory is None:
            raise ValueError(f"segment {self.name} is closed")
        descriptor: int = self._memory._fd  # type: ignore[union-attr]
        return descriptor

    def close(self) -> None:
        """Give the mapping back; where a view of it is still alive, it goes with that view."""
        memory, self._memory = self._memory, None
        if memory is None:
            return
        try:
            memory.close()
        except BufferError:
            # NumPy still has a view. `SharedMemory` could then neither unmap nor close its file, now
            # or later: without its own references the mapping ends with the view, and it can.
            memory._buf = None  # type: ignore[union-attr]
            memory._mmap = None  # type: ignore[union-attr]
            memory.close()

    def __del__(self) -> None:
        # Before SharedMemory's own, which prints an ignored BufferError where a view is still alive.
        self.close()

    def unlink(self) -> None:
        """Remove the name (creator only); processes that have the segment mapped keep it."""
        with contextlib.suppress(FileNotFoundError):
            (SHM_DIR / self.name).unlink()
        resource_tracker.unregister(f"/{self.name}", "shared_memory")


def _start_tracker() -> None:
    """Start multiprocessing's resource tracker, if need be, so that no signal to a whole job ends it."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2))
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class _Attached:
    """A segment as all but its creator map it: `SharedMemory` without a resource tracker."""

    def __init__(self, name: str) -> None:
        self._fd = _open(name)
        try:
            self.buf: memoryview | None = memoryview(mmap.mmap(self._fd, 0))
        except BaseException:
            os.close(self._fd)
            raise

    def close(self) -> None:
        """The mapping goes with the last view of it."""
        self.buf = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open(name: str) -> int:
    """Open a segment, even if its name was removed meanwhile. Raises `FileNotFoundError`.

    As a logout does (RemoveIPC in logind.conf): it is then found among its creator's open files.
    """
    with contextlib.suppress(FileNotFoundError):
        return os.open(SHM_DIR / name, os.O_RDWR | os.O_CLOEXEC)
    creator = _NAME.fullmatch(name)
    for link in Path(f"/proc/{creator['pid']}/fd").glob("*") if creator else ():
        with contextlib.suppress(OSError):
            if os.readlink(link) == f"{SHM_DIR / name} (deleted)":
                return os.open(link, os.O_RDWR | os.O_CLOEXEC)
    raise FileNotFoundError(
        f"the shared memory {name} was removed under its run: do not remove /dev/shm/aa2c-*, and set "
        "RemoveIPC=no in /etc/systemd/logind.conf if a logout does"
    )


def _lock(fd: int, command: int, kind: int) -> None:
    """Set a lock of an open file, which is gone with its last holder. Raises `OSError`.

    Not flock's, of which those who share a model make use.
    """
    fcntl.fcntl(fd, command, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0))


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
    try:
        limit = os.statvfs(SHM_DIR)
    except OSError as error:
        raise StartError(
            f"{SHM_DIR} cannot be used ({error.strerror}): "
            f"mount -t tmpfs -o mode=1777 tmpfs {SHM_DIR} makes one."
        ) from None
    memory = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    available = int(memory[1]) * 1024 if memory else sys.maxsize
    return min(limit.f_bavail * limit.f_frsize, available)


def name_prefix(run_id: str) -> str:
    """The names of this run's segments begin with this: prefix, user, creator, run."""
    return f"aa2c-{os.getuid()}-{_namespace()}-{os.getpid()}-{run_id}-"


def _namespace() -> str:
    return os.readlink("/proc/self/ns/pid").strip("pid:[]")


_NAME = re.compile(r"aa2c-(?P<uid>\d+)-(?P<namespace>\d+)-(?P<pid>\d+)-.+-.+")


def _is_dead(path: Path) -> bool:
    """Whether nobody holds a creator's lock on this segment, in whatever namespace.

    Nor does a process of the creator's number live here: older versions held no lock.
    """
    named = _NAME.fullmatch(path.name)
    if named and named["namespace"] == _namespace() and Path(f"/proc/{named['pid']}").exists():
        return False
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # another run was faster, or it is not ours
        return False
    try:
        _lock(fd, fcntl.F_OFD_SETLK, fcntl.F_WRLCK)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(fd)


def leftovers() -> list[Path]:
    """The segments of this user's dead runs."""
    ours = SHM_DIR.glob(f"aa2c-{os.getuid()}-*")
    return [path for path in ours if _NAME.fullmatch(path.name) and _is_dead(path)]


def remove_leftovers() -> list[str]:
    """Unlink the segments of dead runs; returns their names."""
    removed = []
    for path in leftovers():
        with contextlib.suppress(OSError):  # another run was faster, or it is not a segment
            path.unlink()
            removed.append(path.name)
    return removed
