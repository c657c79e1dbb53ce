"""What the bridge works on at the updater's end: mirror rings, the run's counters, its board and log."""

from __future__ import annotations

from aa2c.host.commands import Attach, ChildSpec, decode
from aa2c.log import LogFile
from aa2c.ports import Message
from aa2c.shm.board import ParameterBoard
from aa2c.shm.counters import (
    engine_row,
    env_steps_of_workers,
    run_row,
    updater_row,
    worker_row,
)
from aa2c.shm.relay import RingMirror
from aa2c.shm.segment import Segment

_Key = tuple[int, int]  # worker, generation


class Home:
    """What hosts' records, counters and logs go to, and what they are told comes from."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.config = spec.config
        self.table = Segment.attach(spec.counters_segment)
        self.run, self.updater = run_row(self.table), updater_row(self.table)
        self.row = engine_row(self.table)
        self.workers = [worker_row(self.table, i) for i in range(len(spec.spaces))]
        self._env_steps = env_steps_of_workers(self.table)
        self.mirrors: dict[_Key, RingMirror] = {}
        self.board: ParameterBoard | None = None
        self.num_params = 0
        self.records = spec.records
        self._log = LogFile(spec.run_dir / "log.jsonl")

    def attach(self, worker: int, generation: int, told: Message) -> None:
        """An incarnation's records go to this ring."""
        attach = decode(told)
        assert isinstance(attach, Attach)
        self.mirrors[worker, generation] = RingMirror(
            Segment.attach(attach.ring), self.config.ring_slots, attach.slot_bytes
        )
        if self.board is None:
            self.board = ParameterBoard(Segment.attach(attach.board), attach.num_params)
            self.num_params = attach.num_params

    def log(self, line: str) -> None:
        """Keep a line of a host's log in the run's."""
        self._log.write(line.encode() + b"\n")

    def close(self) -> None:
        self._log.close()

    def env_steps_of(self, workers: range) -> int:
        return int(self._env_steps[workers.start : workers.stop].sum())

    def env_steps_but_of(self, workers: range) -> int:
        """The env steps of all workers, but these."""
        return int(self._env_steps.sum()) - self.env_steps_of(workers)
