"""What a run requires of the machine, checked before anything is started, and fixed where possible."""

from __future__ import annotations

import os
import platform
import sys

from aa2c.errors import StartError

WANTED_FILES = 4096


def require_linux() -> None:
    """Raises `StartError` on any other system."""
    if {sys.platform, platform.system().lower()} != {"linux"}:
        raise StartError(
            f"aa2c runs on Linux only, and this is {platform.system()}: "
            "use a Linux machine, a container, or WSL 2."
        )


def open_standard_descriptors() -> None:
    """Open missing ones, as of some services: the next files opened would take their place."""
    for fd, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(null, True)
            setattr(sys, name, open(null, "r" if fd == 0 else "w", closefd=False))  # noqa: SIM115


def raise_file_limit() -> None:
    """Raise the soft limit to what a run needs, as far as the hard limit allows."""
    import resource  # here, because other systems have none

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def require_files(count: int) -> None:
    """Raises `StartError` if so many more files cannot be open at once."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = len(os.listdir("/proc/self/fd")) + count
    if soft != resource.RLIM_INFINITY and soft < needed:
        raise StartError(
            f"this run needs {needed} open files and may have {soft}: "
            f"raise the limit (ulimit -n {max(1024, needed)}), or lower --workers."
        )
