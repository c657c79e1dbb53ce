"""A host's share of the workers: their processes, rings and supervision, as on one machine.

Runs on the host, in its event loop. It is told what to do by frames, and asked for what its workers made.
A frame that is not the next one, or nobody asking for a while, ends it with all it has: it is the
bridge that starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aa2c.clock import LivedClock
from aa2c.host.cluster import cleaner
from aa2c.host.cluster.frames import EXITED, FROM_WORKER, STARTED, Block, Down, ShareSpec, Up
from aa2c.host.cluster.packing import Packing
from aa2c.host.commands import Attach, Stop
from aa2c.host.incarnation import ChildSlot, Incarnation
from aa2c.host.journal import VARIABLE as JOURNAL
from aa2c.host.memory import RunMemory
from aa2c.host.output import Output
from aa2c.host.starter import Starter
from aa2c.host.watch import watch
from aa2c.log import LogFile, make_logger
from aa2c.machine import raise_file_limit
from aa2c.ports import Message
from aa2c.shared_model import Vector
from aa2c.shm.board import ParameterBoard
from aa2c.shm.counters import row_bytes, updater_row, worker_row
from aa2c.shm.relay import RingSource
from aa2c.shm.segment import Segment, name_prefix, remove_leftovers
from aa2c.shm.wakeup import RECHECK_S

LEASE_S = 30.0
LOOK_S = 1.0
POLL_S = 0.5
ROWS_EVERY_S = 1.0
MOST_BYTES = (
    16 * 2**20
)  # of records in one frame, unless the last is larger: object stores are small
MOST_LOG_BYTES = 2**16

_Key = tuple[int, int]  # worker, generation


class Share:
    """One epoch of a host. `on_end` is called when it has ended itself."""

    def __init__(self, spec: ShareSpec, on_end: Callable[[], None]) -> None:
        self._spec = spec
        self._on_end = on_end
        self._config = spec.config
        raise_file_limit()
        remove_leftovers()
        self._dir = Path(tempfile.mkdtemp(prefix=f"aa2c-host-{spec.run_id}-"))
        # Where a journal is kept, for who audits it, the directory stays.
        cleaner.start(name_prefix(spec.run_id), "" if os.environ.get(JOURNAL) else str(self._dir))
        self._log_file = LogFile(self._dir / "log.jsonl")
        self._output = Output(self._dir, make_logger(self._log_file, "aa2c-host"))
        self._log_read = 0
        rings = max(1, min(spec.count, spec.config.workers - spec.first))
        self._memory = RunMemory(spec.config, spec.run_id, here=spec.workers, rings=rings)
        self._table = self._memory.counters_segment
        self._updater = updater_row(self._table)
        self._starter = Starter(
            spec.config,
            self._dir,
            self._memory,
            registered=spec.registered,
            env_steps_before=spec.env_steps_before,
            hidden="RAY_",
        )
        self._board: ParameterBoard | None = None
        self._counting: set[int] = set()  # workers whose counters have come, which start from them
        self._children: dict[_Key, Incarnation] = {}
        self._sources: dict[_Key, RingSource] = {}
        self._packings: dict[_Key, Packing] = {}
        self._exits: dict[_Key, Message] = {}
        self._events: list[Message] = []
        self._turn = 0
        self._heard = self._said = 0
        self._rows_at = -ROWS_EVERY_S
        self._something = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._memory.records.fileno(), self._wake)
        self._clock = LivedClock(2 * LOOK_S)
        self._asked_at = self._clock.look()
        self._has_ended = False
        self._tasks = {self._loop.create_task(self._end_unless_asked())}

    async def tell(self, frame: bytes, params: Vector | None) -> None:
        """Act on a frame. Raises `OutOfOrder`, after which it has ended."""
        self._asked_at = self._clock.look()
        with self._ending_if_it_fails():
            self._heard += 1
            down = Down.unpacked(frame, epoch=self._spec.epoch, number=self._heard)
            run = self._memory.counters.run
            row_bytes(self._table, run)[:] = down.run
            run.set("env_steps_elsewhere", down.env_steps_elsewhere)
            row_bytes(self._table, self._updater)[:] = down.updater
            for command in down.commands:
                self._obey(command["worker"], command["generation"], command)
            if params is not None and self._board is not None:
                self._board.publish(params, after=down.version - 1)
            for worker, generation, tail in down.released:
                source = self._sources.get((worker, generation))
                if source is not None and source.release_to(tail):
                    self._memory.spaces[worker].post()

    async def collect(self) -> tuple[bytes, list[Block]]:
        """The next frame, as soon as there is something to tell, with the records' bytes."""
        self._asked_at = self._clock.look()
        with self._ending_if_it_fails():
            deadline = self._loop.time() + POLL_S
            while not self._has_something() and (left := deadline - self._loop.time()) > 0:
                self._something.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._something.wait(), min(left, RECHECK_S))
            self._asked_at = self._clock.look()
            return self._frame()

    @contextlib.contextmanager
    def _ending_if_it_fails(self) -> Any:
        try:
            yield
        except Exception:
            self.end()
            raise

    def _has_something(self) -> bool:
        has_records = any(source.waiting for source in self._sources.values())
        return bool(self._events) or has_records or bool(self._exits)

    def _wake(self) -> None:
        self._memory.records.wait(0)
        self._something.set()

    def _frame(self) -> tuple[bytes, list[Block]]:
        self._said += 1
        frame = Up(epoch=self._spec.epoch, number=self._said)
        blocks = self._take_records(frame)
        frame.events, self._events = self._events, []
        for key in [key for key in self._exits if not self._is_waiting(key)]:
            frame.events.append(self._exits.pop(key))
            if self._sources.pop(key, None):
                del self._packings[key]
                self._memory.retire_ring(*key)
        now = self._loop.time()
        if frame.events or now - self._rows_at >= ROWS_EVERY_S:
            self._rows_at = now
            self._output.bound()
            frame.log = self._new_lines()
            rows = ((w, worker_row(self._table, w)) for w in sorted(self._counting))
            frame.rows = [(w, bytes(row_bytes(self._table, row))) for w, row in rows]
        return frame.packed(), blocks

    def _is_waiting(self, key: _Key) -> bool:
        return key in self._sources and self._sources[key].waiting > 0

    def _take_records(self, frame: Up) -> list[Block]:
        """One record of each ring in turn, up to so many bytes."""
        blocks: list[Block] = []
        keys = sorted(self._sources)
        keys = keys[self._turn % max(1, len(keys)) :] + keys[: self._turn % max(1, len(keys))]
        self._turn += 1
        nbytes, waiting = 0, keys
        while waiting and nbytes < MOST_BYTES:
            key, *waiting = waiting
            found = self._sources[key].next_slot()
            if found is not None:
                is_packed, block = self._packings[key].pack(*found)
                frame.records.append((*key, found[0], is_packed))
                blocks.append(block)
                nbytes += block.nbytes
                waiting.append(key)
        return blocks

    def _new_lines(self) -> list[str]:
        """Whole lines that workers have logged since."""
        with (self._dir / "log.jsonl").open("rb") as file:
            file.seek(self._log_read)
            found = file.read(MOST_LOG_BYTES)
        whole, newline, rest = found.rpartition(b"\n")
        if not newline and len(found) == MOST_LOG_BYTES:  # its end comes as a line of its own
            whole, rest = found, b""
        self._log_read += len(found) - len(rest)
        return whole.decode(errors="replace").splitlines()

    def _obey(self, worker: int, generation: int, command: Message) -> None:
        child = self._children.get((worker, generation))
        match command["kind"]:
            case "Start":
                row = worker_row(self._table, worker)
                row_bytes(self._table, row)[:] = command["row"]
                self._counting.add(worker)
                self._start(ChildSlot("worker", worker, generation=generation))
            case "Attach" if child:
                self._attach(worker, generation, child, command)
            case "Kill" if child:
                child.kill()
            case "Stop" if child:
                child.send(Stop())

    def _start(self, slot: ChildSlot) -> None:
        key = slot.index, slot.generation
        about = {"worker": slot.index, "generation": slot.generation}

        def hear(message: Message) -> None:
            self._tell({"kind": FROM_WORKER, **about, "message": message})

        try:
            child = self._starter.start(slot, hear)
        except OSError as error:
            end = {"exit_code": 1, "error": f"it cannot be started: {error}", "replaced_as": None}
            self._exits[key] = {"kind": EXITED, **about, **end}
            return
        self._children[key] = child
        self._tell({"kind": STARTED, **about, "pid": child.pid})
        task = self._loop.create_task(self._watch(key, child, {"kind": EXITED, **about}))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, key: _Key, child: Incarnation, end: Message) -> None:
        row, run = worker_row(self._table, key[0]), self._memory.counters.run
        code = await watch(child, row, lambda: bool(run.count("is_paused")), self._config)
        del self._children[key]
        why = {"error": child.error, "replaced_as": child.replaced_as}
        self._exits[key] = {**end, "exit_code": code, **why}
        self._something.set()

    def _tell(self, event: Message) -> None:
        self._events.append(event)
        self._something.set()

    def _attach(self, worker: int, generation: int, child: Incarnation, sizes: Message) -> None:
        """The network's size is known: a ring for this incarnation, and the board if it is the first."""
        if self._board is None:
            self._memory.create_board(sizes)
            told = self._memory.board_attachment
            self._board = ParameterBoard(Segment.attach(told.board), told.num_params)
        attach: Attach = self._memory.create_ring(worker, generation)
        self._packings[worker, generation] = Packing()
        self._sources[worker, generation] = RingSource(
            Segment.attach(attach.ring), self._config.ring_slots, attach.slot_bytes
        )
        child.send(attach)

    async def _end_unless_asked(self) -> None:
        while self._clock.look() - self._asked_at < LEASE_S:  # noqa: ASYNC110 (no event tells)
            await asyncio.sleep(LOOK_S)
        self.end()

    def end(self) -> None:
        """Kill the workers and end, as far as it can; the cleaner removes what is left."""
        if self._has_ended:
            return
        self._has_ended = True
        for child in list(self._children.values()):
            child.kill_and_wait()
        self._loop.remove_reader(self._memory.records.fileno())
        for task in self._tasks:
            task.cancel()
        self._sources.clear()
        self._board = None
        self._memory.release()
        self._log_file.close()
        self._on_end()
