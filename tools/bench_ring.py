"""Throughput of the ring beside a plain memcpy and `multiprocessing.Queue`, in one run.

    python tools/bench_ring.py [--seconds 1] [--rounds 3] [--slots 4] [--payload-checksum] [--json]

What one record costs in each column:

    memcpy          one numpy copy between two separate buffers, in one process
    ring zero-copy  the producer process copies its buffer into the slot; the consumer process takes
                    and releases, and reads nothing but the header, as the optimizer reads in place
    ring copy-out   the same, and the consumer copies the array out into a buffer of its own
    queue bytes     `multiprocessing.Queue`: put(bytes) in the producer process, get() in the other
    queue array     the same with a numpy array, which is what a record is

Producer and consumer post and wait as worker and updater do. Rounds are interleaved, so that a
busy moment of the machine meets every column; the table has the medians. MB are 10**6 bytes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import queue
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from aa2c.ipc.ring import RingConsumer, RingProducer, ring_bytes
from aa2c.ipc.shm import Segment, name_prefix
from aa2c.ipc.slot import ArraySpec, slot_bytes
from aa2c.ipc.wakeup import Wakeup

SIZES = {"16 KiB": 2**14, "1 MiB": 2**20, "16 MiB": 2**24}
START_S = 30.0

spawn = multiprocessing.get_context("spawn")


def source_buffer(nbytes: int) -> np.ndarray[Any, Any]:
    """Written bytes: pages never written would all be the one page of zeros."""
    return np.arange(nbytes, dtype=np.uint8)


def measure(receive: Callable[[], bool], nbytes: int, seconds: float) -> float:
    """MB/s that `receive` gets, from the second record on: starting a process is not counted."""
    deadline = time.perf_counter() + START_S
    while not receive():
        if time.perf_counter() > deadline:
            raise TimeoutError("the producer sent nothing")
    started = now = time.perf_counter()
    received = 0
    while now - started < seconds:
        received += receive()
        now = time.perf_counter()
    return received * nbytes / (now - started) / 1e6


def bench_memcpy(nbytes: int, options: argparse.Namespace) -> float:
    """Plain copies."""
    source, target = source_buffer(nbytes), np.ones(nbytes, np.uint8)

    def receive() -> bool:
        np.copyto(target, source)
        return True

    return measure(receive, nbytes, options.seconds)


def produce_into_ring(
    name: str, slots: int, nbytes: int, checksum: bool, space: Wakeup, records: Wakeup
) -> None:
    """Fill slots until killed."""
    specs = (ArraySpec("data", "|u1", (nbytes,)),)
    ring = RingProducer(
        Segment.attach(name),
        slots,
        slot_bytes(specs),
        specs,
        worker=0,
        generation=0,
        payload_checksum=checksum,
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


def bench_ring(nbytes: int, options: argparse.Namespace, *, copy_out: bool) -> float:
    """A producer process and this one, over one ring."""
    slot = slot_bytes((ArraySpec("data", "|u1", (nbytes,)),))
    name = f"{name_prefix('bench')}ring"
    segment = Segment.create(name, ring_bytes(options.slots, slot))
    space, records = Wakeup(), Wakeup()
    ring = RingConsumer(segment, options.slots, slot, worker=0, generation=0)
    target = np.ones(nbytes, np.uint8)
    producer = spawn.Process(
        target=produce_into_ring,
        args=(name, options.slots, nbytes, options.payload_checksum, space, records),
        daemon=True,
    )

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

    try:
        producer.start()
        rate = measure(receive, nbytes, options.seconds)
        if any(ring.dropped.values()):
            raise RuntimeError(f"records were dropped: {ring.dropped}")
        return rate
    finally:
        stop(producer)
        ring.close()
        segment.unlink()
        space.close()
        records.close()


def produce_into_queue(target: Any, nbytes: int, as_array: bool) -> None:
    """Put records until killed."""
    source = source_buffer(nbytes)
    record = source if as_array else source.tobytes()
    while True:
        target.put(record)


def bench_queue(nbytes: int, options: argparse.Namespace, *, as_array: bool) -> float:
    """A producer process and this one, over one `multiprocessing.Queue`."""
    records = spawn.Queue(options.slots)
    producer = spawn.Process(
        target=produce_into_queue, args=(records, nbytes, as_array), daemon=True
    )

    def receive() -> bool:
        try:
            records.get(timeout=0.1)
        except queue.Empty:
            return False
        return True

    try:
        producer.start()
        return measure(receive, nbytes, options.seconds)
    finally:
        stop(producer)
        records.close()


def stop(process: Any) -> None:
    """Kill: neither ring nor benchmark minds, and a queue is thrown away afterwards."""
    if process.pid is not None:
        process.kill()
        process.join()
    process.close()


COLUMNS: dict[str, Callable[[int, argparse.Namespace], float]] = {
    "memcpy": bench_memcpy,
    "ring zero-copy": lambda nbytes, options: bench_ring(nbytes, options, copy_out=False),
    "ring copy-out": lambda nbytes, options: bench_ring(nbytes, options, copy_out=True),
    "queue bytes": lambda nbytes, options: bench_queue(nbytes, options, as_array=False),
    "queue array": lambda nbytes, options: bench_queue(nbytes, options, as_array=True),
}


def run_rounds(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Medians in MB/s, by size and column."""
    rates: dict[str, dict[str, list[float]]] = {s: {c: [] for c in COLUMNS} for s in SIZES}
    for _ in range(options.rounds):
        for size, nbytes in SIZES.items():
            for column, bench in COLUMNS.items():
                rates[size][column].append(bench(nbytes, options))
    return {s: {c: statistics.median(r) for c, r in row.items()} for s, row in rates.items()}


def ratios(row: dict[str, float]) -> dict[str, float]:
    """Of each way of taking, to a memcpy and to the faster queue."""
    best_queue = max(row["queue bytes"], row["queue array"])
    return {
        f"{way} / {other}": row[f"ring {way}"] / rate
        for way in ("zero-copy", "copy-out")
        for other, rate in (("memcpy", row["memcpy"]), ("queue", best_queue))
    }


def print_table(medians: dict[str, dict[str, float]]) -> None:
    """Throughput, then ratios, one line a size."""
    print("MB/s      " + "".join(f"{column:>16}" for column in COLUMNS))
    for size, row in medians.items():
        print(f"{size:<10}" + "".join(f"{rate:>16,.0f}" for rate in row.values()))
    print("\nratio     " + "".join(f"{name:>20}" for name in ratios(row)))
    for size, row in medians.items():
        print(f"{size:<10}" + "".join(f"{ratio:>20.2f}" for ratio in ratios(row).values()))


def main() -> None:
    """Read the options, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=4, help="of the ring and of the queue")
    parser.add_argument("--payload-checksum", action="store_true")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    medians = run_rounds(options)
    if options.json:
        document = {
            "options": vars(options),
            "cpus": os.cpu_count(),
            "load_average": [load_before, os.getloadavg()[0]],
            "mb_per_s": medians,
            "ratios": {size: ratios(row) for size, row in medians.items()},
        }
        print(json.dumps(document, indent=2))
    else:
        print_table(medians)
        print(f"\n{os.cpu_count()} CPUs, load average {load_before:.1f} before the run")


if __name__ == "__main__":
    main()
