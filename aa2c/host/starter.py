"""Starts the children of one machine: what each is told at its start."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from aa2c.config.config import Config
from aa2c.host.cluster.frames import Cluster
from aa2c.host.commands import ChildSpec
from aa2c.host.incarnation import ChildSlot, Incarnation
from aa2c.host.memory import RunMemory
from aa2c.host.process import Child
from aa2c.ports import Message


class Starter:
    """For all incarnations of all children that share one memory.

    Environment variables whose names begin with `hidden` are not for them.
    """

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        memory: RunMemory,
        *,
        registered: Mapping[str, bytes],
        env_steps_before: int | None = None,
        resume: Path | None = None,
        last_sequence: int = 0,
        make_cluster: Callable[[Config, Path], Cluster] | None = None,
        hidden: str = "",
    ) -> None:
        self._config = config
        self._run_dir = run_dir
        self._memory = memory
        self._registered = registered
        known = memory.counters.env_steps_before
        self._env_steps_before = known if env_steps_before is None else env_steps_before
        self._resume = resume
        self._last_sequence = last_sequence
        self._make_cluster = make_cluster
        self._hidden = hidden

    def start(self, slot: ChildSlot, on_message: Callable[[Message], None]) -> Incarnation:
        """Start the slot's next incarnation. Raises `OSError`."""

        def spec(commands: Connection, reports: Connection) -> ChildSpec:
            return ChildSpec(
                role=slot.role,
                index=slot.index,
                generation=slot.generation,
                config=self._config,
                run_dir=self._run_dir,
                counters_segment=self._memory.counters_segment.name,
                commands=commands,
                reports=reports,
                records=self._memory.records,
                spaces=self._memory.spaces,
                registered=self._registered,
                resume=self._resume,
                env_steps_before=self._env_steps_before,
                last_sequence=self._last_sequence,
                make_cluster=self._make_cluster if slot.role == "engine" else None,
                parent_pid=os.getpid(),
                dies_with_parent_thread=_is_main_thread(),
            )

        return Child(spec, on_message, hidden=self._hidden)


def _is_main_thread() -> bool:
    """Whether a child may die with the thread that starts it: PR_SET_PDEATHSIG is about threads."""
    return threading.current_thread() is threading.main_thread()
