"""Coverage-guided fuzzing (atheris) of everything that reads untrusted bytes.

    python tools/fuzz.py ring --seconds 600

A target may succeed or raise its own error; any other exception ends the search and prints the input.
Inputs that reach new code are kept in --corpus.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import atheris
import msgpack

with atheris.instrument_imports(include=["aa2c", "tomllib"]):
    from aa2c.checkpoints.files import FORMAT, STATE, CheckpointError, read_checkpoint
    from aa2c.config.config import Config
    from aa2c.config.toml import load_config, to_toml
    from aa2c.errors import ConfigError
    from aa2c.shm.queue import Receiver
    from aa2c.shm.ring import RingConsumer, ring_bytes
    from aa2c.shm.segment import Segment, name_prefix
    from aa2c.shm.slot import PREFIX_BYTES, ArraySpec, Header, Malformed, read_slot, write_header

SLOT_BYTES = 4096
CAPACITY = 4


def slot(data: bytes) -> None:
    """An arbitrary header with a valid checksum, followed by arbitrary bytes."""
    memory = memoryview(bytearray(SLOT_BYTES))
    header_bytes = min(len(data), 960)
    memory[PREFIX_BYTES : PREFIX_BYTES + header_bytes] = data[:header_bytes]
    words = memory[:PREFIX_BYTES].cast("Q")
    words[1] = header_bytes
    words[2] = int.from_bytes(data[-2:], "little")
    words[7] = zlib.crc32(data[:header_bytes], zlib.crc32(memory[:56]))
    with contextlib.suppress(Malformed):
        read_slot(memory, 0)


def ring(data: bytes) -> None:
    """Arbitrary words and slots: the consumer never raises, and reads at most a full ring."""
    segment = Segment.create(f"{name_prefix('fuzz')}ring", ring_bytes(CAPACITY, SLOT_BYTES))
    segment.unlink()
    try:
        most = min(len(data), len(segment.buf))
        segment.buf[:most] = data[:most]
        consumer = RingConsumer(segment, CAPACITY, SLOT_BYTES, worker=0, generation=0)
        for _ in range(3 * CAPACITY):
            record = consumer.take()
            if record is not None:
                record.release()
        del record
        consumer.close()
    finally:
        segment.close()


def message(data: bytes) -> None:
    """Arbitrary bytes in a child's pipe."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    receiver = Receiver(reader)
    os.write(writer.fileno(), data[:60_000])
    writer.close()
    with contextlib.suppress(Malformed, EOFError):
        while True:
            receiver.drain()
    receiver.close()


def config(data: bytes) -> None:
    """An arbitrary --config file."""
    path = Path(tempfile.gettempdir()) / f"aa2c-fuzz-{os.getpid()}.toml"
    path.write_bytes(data)
    with contextlib.suppress(ConfigError):
        load_config(file=path)
    path.unlink()


def checkpoint(data: bytes) -> None:
    """An arbitrary manifest, or an arbitrary state with a matching manifest."""
    with tempfile.TemporaryDirectory(prefix="aa2c-fuzz") as directory:
        path = Path(directory) / "step-000000000001"
        path.mkdir()
        if data[:1] == b"m":
            (path / "MANIFEST.json").write_bytes(data[1:])
        else:
            (path / STATE).write_bytes(data)
            entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            (path / "MANIFEST.json").write_text(json.dumps({STATE: entry}))
        with contextlib.suppress(CheckpointError):
            read_checkpoint(path, lambda files: (files.config, files.counts, files.run_dir))


def good_slot() -> memoryview:
    """A valid slot with a record."""
    memory = memoryview(bytearray(SLOT_BYTES))
    specs = (ArraySpec("obs", "|u1", (2, 3)), ArraySpec("reward", "<f4", (5,)))
    header = Header(0, 0, 0, 1, {"env_steps": 8.0})
    write_header(memory, header, specs, payload_checksum=True)
    return memory


def good_ring() -> bytes:
    """A ring with that record in its first slot."""
    memory = bytearray(ring_bytes(CAPACITY, SLOT_BYTES))
    memory[:8] = (1).to_bytes(8, "little")
    at = len(memory) - CAPACITY * SLOT_BYTES
    memory[at : at + SLOT_BYTES] = good_slot()
    return bytes(memory)


def seeds() -> dict[str, bytes]:
    """A valid input for each target, to start from."""
    state = {"format": FORMAT, "config": {"env": "CartPole-v1"}, "counts": {"env_steps": 1}}
    header_bytes = good_slot()[:PREFIX_BYTES].cast("Q")[1]
    return {
        "slot": bytes(good_slot()[PREFIX_BYTES : PREFIX_BYTES + header_bytes]),
        "ring": good_ring(),
        "message": msgpack.packb({"kind": "episodes", "episodes": [[1.0, 5]]}),
        "config": to_toml(Config(mode="traj", hidden_sizes=(8, 8))).encode(),
        "checkpoint": json.dumps(state).encode(),
    }


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (slot, ring, message, config, checkpoint)
}


def main() -> None:
    """Parse arguments and search; libFuzzer ends the process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="directory of inputs to start from and add to")
    options = parser.parse_args()
    corpus = options.corpus or Path(tempfile.mkdtemp(prefix="aa2c-fuzz"))
    corpus.mkdir(parents=True, exist_ok=True)
    (corpus / "seed").write_bytes(seeds()[options.target])
    limits = [f"-max_total_time={options.seconds}", "-max_len=32768", "-timeout=20"]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], TARGETS[options.target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
