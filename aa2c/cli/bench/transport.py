"""The transport compared with a memcpy: the ring between two processes, and the parameter board."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from aa2c.cli.signals import born_deaf
from aa2c.shm.board import ParameterBoard, board_bytes
from aa2c.shm.ring import RingConsumer, RingProducer, ring_bytes
from aa2c.shm.segment import Segment, name_prefix
from aa2c.shm.slot import ArraySpec, slot_bytes
from aa2c.shm.wakeup import Wakeup

START_S = 30.0

spawn = multiprocessing.get_context("spawn")


def transport_rates(
    record_bytes: int, params_bytes: int, slots: int, seconds: float
) -> dict[str, float]:
    """MB/s (10**6) of the board, of the ring without a copy in the consumer, and of memcpys of the same sizes.

    The ring only if its records have arrays: mode model's do not.
    """
    rates = {
        "memcpy_parameters": memcpy_rate(params_bytes, seconds),
        "board": board_rate(params_bytes, seconds),
    }
    if record_bytes:
        rates["memcpy_record"] = memcpy_rate(record_bytes, seconds)
        rates["ring"] = ring_rate(record_bytes, seconds, slots=slots, copy_out=False)
    return rates


def source_buffer(nbytes: int) -> np.ndarray[Any, Any]:
    """Written bytes: untouched pages would all map to the kernel's zero page."""
    return np.arange(nbytes, dtype=np.uint8)


def measure(move: Callable[[], bool], nbytes: int, seconds: float) -> float:
    """MB/s of a call that moves so many bytes or returns False, from the second move on.

    The start of a process is not counted. Raises `TimeoutError` if nothing moves for `START_S`.
    """
    deadline = time.perf_counter() + START_S
    while not move():
        if time.perf_counter() > deadline:
            raise TimeoutError("the producer sent nothing")
    started = now = time.perf_counter()
    moved = 0
    while now - started < seconds:
        moved += move()
        now = time.perf_counter()
    return moved * nbytes / (now - started) / 1e6


def memcpy_rate(nbytes: int, seconds: float) -> float:
    """MB/s of plain copies between two separate buffers."""
    source, target = source_buffer(nbytes), np.ones(nbytes, np.uint8)

    def copy() -> bool:
        np.copyto(target, source)
        return True

    return measure(copy, nbytes, seconds)


def board_rate(nbytes: int, seconds: float) -> float:
    """MB/s of pulls from a parameter board without concurrent publications."""
    target = np.ones(max(1, nbytes // 4), np.float32)
    segment = Segment.create(f"{name_prefix('bench')}board", board_bytes(len(target)))
    segment.unlink()
    with contextlib.closing(ParameterBoard(segment, len(target))) as board:
        board.publish(target)
        return measure(lambda: board.pull(target) > 0, nbytes, seconds)


def ring_rate(
    nbytes: int, seconds: float, *, slots: int, copy_out: bool, payload_checksum: bool = False
) -> float:
    """MB/s over a ring, from a producer process to this one.

    The producer copies its buffer into the slot. This process takes and releases; it reads only the
    header, since the optimizer reads in place, or with `copy_out` copies the array out.
    """
    slot, name = slot_bytes(_specs(nbytes)), f"{name_prefix('bench')}ring"
    segment = Segment.create(name, ring_bytes(slots, slot))
    target = np.ones(nbytes, np.uint8)

    def receive() -> bool:
        record = ring.take()
        if record is None:
            records.wait()
            return False
        if copy_out:
            np.copyto(target, record.arrays["data"])
        if record.release():
            space.post()
        return True

    with contextlib.ExitStack() as stack:
        stack.callback(segment.unlink)
        space, records = (stack.enter_context(contextlib.closing(Wakeup())) for _ in range(2))
        ring = RingConsumer(segment, slots, slot, worker=0, generation=0)
        stack.enter_context(contextlib.closing(ring))
        with running(_produce, name, slots, nbytes, payload_checksum, space, records):
            rate = measure(receive, nbytes, seconds)
        if any(ring.dropped.values()):
            raise RuntimeError(f"records were dropped: {ring.dropped}")
        return rate


@contextlib.contextmanager
def running(target: Callable[..., None], *args: Any) -> Iterator[None]:
    """A process that is killed at the end."""
    process = spawn.Process(target=target, args=args, daemon=True)
    with born_deaf():
        process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()
        process.close()


def _specs(nbytes: int) -> tuple[ArraySpec, ...]:
    return (ArraySpec("data", "|u1", (nbytes,)),)


def _produce(
    name: str, slots: int, nbytes: int, checksum: bool, space: Wakeup, records: Wakeup
) -> None:
    """Fill slots until killed."""
    slot, specs = slot_bytes(_specs(nbytes)), _specs(nbytes)
    ring = RingProducer(
        Segment.attach(name), slots, slot, specs, worker=0, generation=0, payload_checksum=checksum
    )
    source = source_buffer(nbytes)
    while True:
        arrays = ring.reserve()
        if arrays is None:
            space.wait()
            continue
        np.copyto(arrays["data"], source)
        if ring.commit(0, {}):
            records.post()
