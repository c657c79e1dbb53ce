"""Throughput of the ring compared with a memcpy and `multiprocessing.Queue`.

    python tools/bench_ring.py [--seconds 1] [--rounds 3] [--slots 4] [--payload-checksum] [--json]

What moves one record in each column:

    memcpy          one NumPy copy between two separate buffers, in one process
    ring zero-copy  the producer process copies its buffer into the slot; the consumer process takes and
                    releases, and reads only the header, since the optimizer reads in place
    ring copy-out   the same, but the consumer also copies the array into a buffer of its own
    queue bytes     `multiprocessing.Queue`: put(bytes) in one process, get() in the other
    queue array     the same with a NumPy array, as in a record

Producer and consumer wake each other as worker and updater do. Rounds are interleaved, so that a busy
moment of the machine affects all columns alike; the table has medians. MB are 10**6 bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import statistics
from collections.abc import Callable
from typing import Any

from aa2c.cli.bench.transport import measure, memcpy_rate, ring_rate, running, source_buffer, spawn

SIZES = {"16 KiB": 2**14, "1 MiB": 2**20, "16 MiB": 2**24}


def bench_ring(nbytes: int, options: argparse.Namespace, *, copy_out: bool) -> float:
    """From a producer process to this one, over a ring."""
    return ring_rate(
        nbytes,
        options.seconds,
        slots=options.slots,
        copy_out=copy_out,
        payload_checksum=options.payload_checksum,
    )


def produce_into_queue(target: Any, nbytes: int, as_array: bool) -> None:
    """Put records until killed."""
    source = source_buffer(nbytes)
    record = source if as_array else source.tobytes()
    while True:
        target.put(record)


def bench_queue(nbytes: int, options: argparse.Namespace, *, as_array: bool) -> float:
    """From a producer process to this one, over a `multiprocessing.Queue`."""
    records = spawn.Queue(options.slots)

    def receive() -> bool:
        try:
            records.get(timeout=0.1)
        except queue.Empty:
            return False
        return True

    try:
        with running(produce_into_queue, records, nbytes, as_array):
            return measure(receive, nbytes, options.seconds)
    finally:
        records.close()


COLUMNS: dict[str, Callable[[int, argparse.Namespace], float]] = {
    "memcpy": lambda nbytes, options: memcpy_rate(nbytes, options.seconds),
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
    """The ring's rates over a memcpy's, and over those of the faster queue."""
    best_queue = max(row["queue bytes"], row["queue array"])
    return {
        f"{way} / {other}": row[f"ring {way}"] / rate
        for way in ("zero-copy", "copy-out")
        for other, rate in (("memcpy", row["memcpy"]), ("queue", best_queue))
    }


def print_table(medians: dict[str, dict[str, float]]) -> None:
    """Print throughput, then ratios, one line per size."""
    print("MB/s      " + "".join(f"{column:>16}" for column in COLUMNS))
    for size, row in medians.items():
        print(f"{size:<10}" + "".join(f"{rate:>16,.0f}" for rate in row.values()))
    print("\nratio     " + "".join(f"{name:>20}" for name in ratios(row)))
    for size, row in medians.items():
        print(f"{size:<10}" + "".join(f"{ratio:>20.2f}" for ratio in ratios(row).values()))


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds per measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=4, help="slots of the ring and the queue")
    parser.add_argument("--payload-checksum", action="store_true")
    parser.add_argument("--json", action="store_true", help="print JSON")
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
