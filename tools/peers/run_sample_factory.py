"""Env steps per second of Sample Factory's asynchronous APPO on an Atari game, on all cores.

    python run_sample_factory.py appo|appo-lstm GAME SECONDS

2 workers with 16 environments each, in two halves, one pass, its `convnet_atari` (the Nature CNN); appo-lstm with
an LSTM of 512 units behind it, learned from in sequences of the 32 steps of a rollout.
It logs frames every 5 s: env steps are a quarter of them. Measured from the first log line at least 15 s after
the first frames. Its wheel has no ROMs: they are imported from AA2C_ROMS.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LINE = re.compile(r"Total num frames: (\d+)")
FRAME_SKIP = 4
WARM_S = 15.0
LSTM = [
    "--use_rnn=True", "--rnn_type=lstm", "--rnn_size=512", "--rnn_num_layers=1", "--recurrence=32",
]  # fmt: skip


def main() -> None:
    """Train for some seconds; print one JSON document."""
    kind, game, seconds = sys.argv[1:]
    importer = Path(sys.executable).with_name("ale-import-roms")
    subprocess.run([importer, os.environ["AA2C_ROMS"]], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as directory:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "sf_examples.atari.train_atari", "--algo=APPO",
                f"--env=atari_{game.lower()}", f"--train_dir={directory}", "--experiment=bench",
                "--device=cpu", "--num_workers=2", "--num_envs_per_worker=16",
                "--worker_num_splits=2", "--rollout=32", "--batch_size=1024",
                "--num_batches_per_epoch=1", "--num_epochs=1", "--async_rl=True",
                "--serial_mode=False", "--train_for_env_steps=1000000000",
                f"--train_for_seconds={int(WARM_S + float(seconds) + 60)}",
                *(LSTM if kind == "appo-lstm" else ()),
            ],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            first, last = _watch(process, float(seconds))
        finally:
            process.terminate()
            process.wait()
    frames, passed = last[0] - first[0], last[1] - first[1]
    result = {"env_steps": frames / FRAME_SKIP, "seconds": passed, "trained_share": None}
    print(json.dumps(result))


def _watch(process: "subprocess.Popen[str]", seconds: float) -> tuple[tuple, tuple]:
    """Frames and the time they were logged: after warm-up, and so many seconds later."""
    log, marks = [], []
    for line in process.stdout:
        log.append(line)
        found = LINE.search(line)
        if not found or int(found[1]) == 0:
            continue
        marks.append((int(found[1]), time.perf_counter()))
        warm = [mark for mark in marks if mark[1] >= marks[0][1] + WARM_S]
        if warm and marks[-1][1] - warm[0][1] >= seconds:
            return warm[0], marks[-1]
    sys.exit("".join(log[-30:]))


if __name__ == "__main__":
    main()
