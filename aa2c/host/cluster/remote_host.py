"""A host as the bridge sees it: what it is to be told, what it told, and how it does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from typing import Any, TypeVar

import numpy as np

from aa2c.failpoint import failpoint
from aa2c.host.cluster.frames import EXITED, STARTED, Down, Link, Up
from aa2c.host.cluster.home import Home
from aa2c.host.cluster.packing import unpack
from aa2c.host.cluster.remote import HOST_LOST
from aa2c.host.rate import Rate
from aa2c.ports import Message, Report
from aa2c.shared_model import Vector
from aa2c.shm.counters import row_bytes
from aa2c.shm.queue import Sender

STALLED_AFTER_S = 5.0  # without an answer: as the status calls it
LOST_AFTER_S = 20.0
END_S = 3.0
TELL_EVERY_S = 0.5  # at least: the run's heartbeat is among what it is told

_Key = tuple[int, int]  # worker, generation
_T = TypeVar("_T")


class RemoteHost:
    """A host's share of the workers, over all its epochs."""

    def __init__(self, index: int, workers: range, home: Home, report: Sender) -> None:
        self.index = index
        self.workers = workers
        self.records = 0  # of this epoch
        self._home = home
        self._report = report
        self._link: Link | None = None
        self._name, self._address = f"host-{index}", ""
        self._epoch = 0
        self._state = "waiting"
        self._started: set[_Key] = set()  # and not reported to have ended
        self._commands: list[Message] = []
        self._released: dict[_Key, int] = {}
        self._version = 0
        self._is_due = False
        self._something = asyncio.Event()
        self._frames, self._bytes, self._byte_count, self._frame_count = Rate(), Rate(), 0, 0
        self._round_trip_s = 0.0
        self._heard_at = 0.0
        self._restarts = 0

    def tell(self, worker: int, generation: int, command: Message) -> None:
        """Pass a command on; one to start waits for a host, if there is none."""
        key = worker, generation
        if command["kind"] == "Start":
            self._started.add(key)
        elif key not in self._started:
            return
        elif command["kind"] == "Attach":
            self._home.attach(worker, generation, command)
        elif command["kind"] == "Kill" and self._link is None:
            self._commands = [c for c in self._commands if (c["worker"], c["generation"]) != key]
            self._exited(key, {"exit_code": -9, "error": "no host", "replaced_as": None})
            return
        self._commands.append({"worker": worker, "generation": generation, **command})
        self._something.set()

    def look_for_released(self) -> None:
        """Whether the updater has released records: their workers may wait for it."""
        for key, tail in self._released.items():
            if self._home.mirrors[key].released > tail:
                self._something.set()
                return

    async def exchange(self, epoch: int, link: Link) -> None:
        """Tell and ask, until something fails, which it raises."""
        self._link, self._epoch, self._state = link, epoch, "running"
        self._name, self._address = link.name, link.address
        self.records = self._version = 0
        self._heard_at = time.monotonic()
        self._changed("a host is there", is_bad=False)
        loops = [
            asyncio.create_task(self._keep_telling(link)),
            asyncio.create_task(self._ask(link)),
        ]
        try:
            await asyncio.wait(loops, return_when=asyncio.FIRST_EXCEPTION)
            for loop in loops:
                if loop.done():
                    loop.result()
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            with contextlib.suppress(Exception):  # its end is what it answers with, or it is gone
                async with asyncio.timeout(END_S):
                    await link.end()
            link.kill()
            self._link = None

    async def _keep_telling(self, link: Link) -> None:
        number = 0
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._something.wait(), TELL_EVERY_S)
            self._something.clear()
            number += 1
            frame, params = self._next_down(number)
            started = time.monotonic()
            await _in_time(link.tell(frame.packed(), frame.version, params))
            self._round_trip_s = time.monotonic() - started

    def _next_down(self, number: int) -> tuple[Down, Vector | None]:
        home = self._home
        commands, self._commands = self._commands, []
        for command in commands:
            if command["kind"] == "Start":  # it continues from the counters that are known here
                row = home.workers[command["worker"]]
                command["row"] = bytes(row_bytes(home.table, row))
            elif command["kind"] == "Attach":
                self._released[command["worker"], command["generation"]] = 0
                self._is_due = True
        released = [
            (*key, home.mirrors[key].released)
            for key, tail in self._released.items()
            if home.mirrors[key].released > tail
        ]
        self._released |= {(worker, generation): tail for worker, generation, tail in released}
        frame = Down(
            epoch=self._epoch,
            number=number,
            run=bytes(row_bytes(home.table, home.run)),
            updater=bytes(row_bytes(home.table, home.updater)),
            env_steps_elsewhere=home.env_steps_but_of(self.workers),
            released=released,
            commands=commands,
        )
        return frame, self._newest_params(frame)

    def _newest_params(self, frame: Down) -> Vector | None:
        """With what is released, or after a record came: somebody is about to pull them there."""
        board = self._home.board
        is_due = self._is_due or frame.released
        if board is None or not is_due or board.version <= self._version:
            return None
        params = np.empty(self._home.num_params, np.float32)
        frame.version = self._version = board.pull(params)
        self._is_due = not frame.version
        return params if frame.version else None

    async def _ask(self, link: Link) -> None:
        number = 0
        while True:
            data, blocks = await _in_time(link.collect())
            number += 1
            self._heard_at = time.monotonic()
            self._take(Up.unpacked(data, epoch=self._epoch, number=number), blocks)
            del blocks  # the cluster's memory, which others may wait for

    def _take(self, up: Up, blocks: list[Any]) -> None:
        home = self._home
        failpoint("bridge.before_copy")
        for (worker, generation, sequence, is_packed), block in zip(
            up.records, blocks, strict=True
        ):
            mirror = home.mirrors[worker, generation]
            slot = unpack(block, len(mirror.slots[0])) if is_packed else memoryview(block)
            if mirror.put(sequence, slot):
                home.records.post()
            self._byte_count += len(block)
        for worker, row in up.rows:
            if worker < len(home.workers):
                row_bytes(home.table, home.workers[worker])[:] = row
        for line in up.log:
            home.log(line)
        for event in up.events:
            self._act_on(event)
        self._frame_count += 1
        if up.records:
            self.records += len(up.records)
            home.row.add("records", len(up.records))
            self._is_due = True
            self._something.set()

    def _act_on(self, event: Message) -> None:
        key = event["worker"], event["generation"]
        about = {"worker": key[0], "generation": key[1]}
        if event["kind"] == EXITED:
            self._exited(key, event)
        elif event["kind"] == STARTED:
            self._report.send(Report.FROM_WORKER, **about, pid=event["pid"])
        else:
            self._report.send(Report.FROM_WORKER, **about, message=event["message"])

    def _exited(self, key: _Key, end: Message) -> None:
        self._started.discard(key)
        self._released.pop(key, None)
        if mirror := self._home.mirrors.pop(key, None):
            mirror.close()
        self._report.send(
            Report.WORKER_EXITED,
            worker=key[0],
            generation=key[1],
            **{name: end[name] for name in ("exit_code", "error", "replaced_as")},
        )

    def wait(self) -> None:
        """It is being started."""
        self._state = "waiting"

    def tell_of_waiting(self) -> None:
        event = "a host waits for a place: is a CPU free on a node of the cluster?"
        self._changed(event, is_bad=True)

    def lost(self, error: Exception) -> None:
        """It does not answer, or broke the rules: all its workers have ended, as far as we know."""
        self._state = "lost"
        self._restarts += 1
        self._commands.clear()
        self.records = 0
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        self._changed("a host is lost and is started again", is_bad=True, reason=reason)
        end = {"exit_code": -9, "error": f"its host is lost: {reason}"}
        for key in sorted(self._started):
            self._exited(key, {**end, "replaced_as": HOST_LOST})

    def _changed(self, event: str, *, is_bad: bool, **about: Any) -> None:
        about |= {"host": self.told()["name"], "workers": len(self.workers)}
        self._report.send(Report.HOST_CHANGED, event=event, is_bad=is_bad, about=about)

    def sample(self) -> None:
        """Take a sample for the rates; to be called at a steady pace."""
        now = time.monotonic()
        self._frames.sample(now, self._frame_count)
        self._bytes.sample(now, self._byte_count)

    def told(self) -> dict[str, Any]:
        """What the status says of it."""
        is_stalled = time.monotonic() - self._heard_at > STALLED_AFTER_S
        return {
            "name": self._name,
            "address": self._address,
            "workers": len(self._started),
            "state": "stalled" if self._state == "running" and is_stalled else self._state,
            "restarts": self._restarts,
            "env_steps": self._home.env_steps_of(self.workers),
            "exchanges_per_s": round(self._frames.per_second, 1),
            "bytes_per_s": round(self._bytes.per_second),
            "round_trip_ms": round(1000 * self._round_trip_s, 2),
        }


async def _in_time(answer: Awaitable[_T]) -> _T:
    """A host's answer. Raises `ConnectionError` if it does not come."""
    try:
        async with asyncio.timeout(LOST_AFTER_S):
            return await answer
    except TimeoutError:
        raise ConnectionError(f"it has not answered for {LOST_AFTER_S:g} s") from None
