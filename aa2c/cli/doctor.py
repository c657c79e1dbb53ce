"""`doctor`: what on this machine or in its packages would trip up a run, and how to fix it.

Checks are independent: one that raises is a finding like any other.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

from aa2c.config.config import Config
from aa2c.shm.segment import leftovers
from aa2c.version import __version__

GIB = 2**30
LEAST_MEMORY = 2 * GIB
LEAST_SHM = GIB // 4
LEAST_FILES = 1024  # 64 workers with their wake-ups, pipes, pidfds and segments take about 700
LEAST_PYTHON = (3, 11)
FASTER_CPU_FLAGS = ("amx_bf16", "avx512_bf16")


class Finding(NamedTuple):
    """What a check found: ok, warn or fail; `remedy` is empty if there is nothing to fix."""

    name: str
    verdict: str
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Run all checks, in the order in which a run would meet the problems."""
    findings = []
    for name, check in CHECKS.items():
        try:
            verdict, found, remedy = check()
        except Exception as error:  # whatever is broken is a finding
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            verdict, found, remedy = "fail", reason, "reinstall aa2c in a new virtual environment"
        findings.append(Finding(name, verdict, found, remedy))
    return findings


def in_words(findings: list[Finding]) -> str:
    """A line per finding, and one per remedy."""
    lines = [f"aa2c {__version__}"]
    for finding in findings:
        lines.append(f"{finding.verdict:5}{finding.name:12} {finding.found}")
        if finding.remedy:
            lines.append(f"{'':17} -> {finding.remedy}")
    bad = sum(finding.verdict != "ok" for finding in findings)
    lines.append(f"{bad} of {len(findings)} need attention" if bad else "everything is fine")
    return "\n".join(lines)


Answer = tuple[str, str, str]


def _cores() -> Answer:
    usable = len(os.sched_getaffinity(0))
    quota = _cgroup_number("cpu.max")
    found = f"{usable} of {os.cpu_count()} cores are usable"
    if quota is not None and quota < usable:
        return "warn", f"{found}, but a cgroup allows only {quota:g}", "raise the CPU quota"
    if usable < 2:
        return "warn", found, "workers and updater share one core: expect half the throughput"
    return "ok", found, ""


def _memory() -> Answer:
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(meminfo["MemAvailable"].split()[0]) * 1024
    limit = _cgroup_number("memory.max")
    if limit is not None:
        used = _cgroup_number("memory.current") or 0
        stat = _cgroup_words("memory.stat")
        cached = float(stat[stat.index("inactive_file") + 1]) if "inactive_file" in stat else 0.0
        free = min(free, int(limit - used + cached))  # page cache is reclaimed when needed
    found = f"{free / GIB:.1f} GiB free"
    if free < LEAST_MEMORY:
        return "warn", found, "each process takes about 0.3 GiB: use fewer --workers"
    return "ok", found, ""


def _shared_memory() -> Answer:
    free = shutil.disk_usage("/dev/shm").free
    found = f"{free / GIB:.2f} GiB free in /dev/shm"
    if free < LEAST_SHM:
        return "fail", found, "mount a larger /dev/shm (docker run --shm-size=1g), or empty it"
    dead = len(leftovers())
    if dead:
        return (
            "warn",
            f"{found}; {dead} segments left behind by dead runs",
            "the next run removes them",
        )
    return "ok", found, ""


def _open_files() -> Answer:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"at most {soft}"
    if soft < LEAST_FILES:
        return "warn", found, f"raise the limit for many workers: ulimit -n {min(hard, 4096)}"
    return "ok", found, ""


def _bfloat16() -> Answer:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    has = [flag for flag in FASTER_CPU_FLAGS if flag in flags]
    if not has:
        return "ok", f"the CPU has neither of {', '.join(FASTER_CPU_FLAGS)}: float32 is used", ""
    from aa2c.policy.fast_cpu import choose_precision

    choice = choose_precision("auto")
    return "ok", f"{choice.name}: {choice.reason}", ""


def _versions() -> Answer:
    unmet = []
    for line in metadata.requires("aa2c") or []:
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            unmet.append(f"{wanted.name} is missing")
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            unmet.append(f"{wanted.name} {version} does not satisfy {wanted.specifier}")
    if unmet:
        return "fail", "; ".join(unmet), "pip install --upgrade aa2c"
    shown = ("torch", "gymnasium", "ale-py", "numpy", "aiohttp")
    return "ok", ", ".join(f"{name} {metadata.version(name)}" for name in shown), ""


def _python() -> Answer:
    found = f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}"
    if sys.version_info < LEAST_PYTHON:
        return "fail", found, "use Python 3.11 or newer"
    return "ok", f"{found}, {platform.system()} {platform.release()}", ""


def _torch() -> Answer:
    import torch

    with torch.inference_mode():
        result = torch.nn.Conv2d(4, 32, 8, stride=4)(torch.ones(2, 4, 84, 84))
    if not bool(torch.isfinite(result).all()):
        return "fail", "a convolution gave non-finite numbers", "reinstall torch"
    return "ok", f"convolutions work, {torch.backends.cpu.get_cpu_capability()}", ""


def _atari() -> Answer:
    from aa2c.envs.vector import make_envs

    config = Config(env="ALE/Pong-v5", num_envs=1, workers=1)
    envs = make_envs(config, 1, 0)
    frames = envs.reset().shape
    envs.close()
    return "ok", f"Pong gives observations of shape {frames}", ""


def _port() -> Answer:
    port = Config().port
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((Config().host, port))
        except OSError:
            remedy = "by a run? (python -m aa2c top) Otherwise choose another --port, or 0 for any"
            return "warn", f"{port} is taken", remedy
    return "ok", f"{port} is free", ""


def _cgroup_number(name: str) -> float | None:
    """A limit or count of this process's cgroup (v2): cores or bytes; None if unlimited."""
    words = _cgroup_words(name)
    if not words or words[0] == "max":
        return None
    return float(words[0]) / (float(words[1]) if len(words) > 1 else 1.0)


def _cgroup_words(name: str) -> list[str]:
    """The words of a file in this process's cgroup; empty if there is no such file."""
    try:
        own = Path("/proc/self/cgroup").read_text().strip().rpartition(":")[2]
        return Path(f"/sys/fs/cgroup{own}/{name}").read_text().split()
    except OSError:
        return []


CHECKS: dict[str, Callable[[], Answer]] = {
    "python": _python,
    "packages": _versions,
    "cores": _cores,
    "memory": _memory,
    "/dev/shm": _shared_memory,
    "open files": _open_files,
    "bfloat16": _bfloat16,
    "torch": _torch,
    "Atari": _atari,
    "port": _port,
}
