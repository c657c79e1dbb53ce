"""Env steps per second of aa2c on an Atari game, on all cores, measured like its peers.

    python run_aa2c.py grad|model|traj|traj-float32|recipe-grad|recipe-model GAME SECONDS

2 workers with 16 environments each, in mode traj with 32. traj: one pass in minibatches of 256, two update
threads, rollouts of 32 steps; grad and model: the options of `grad/atari` and `model/atari`; all three with
the Nature CNN. traj-float32: without bfloat16, like the peers. recipe-…: the options of the tuned
`grad/pong` and `model/pong`, with their own network. Every sample except reset rows is learned from once; env
steps count once they have been learned from.
"""

import asyncio
import json
import sys
from dataclasses import replace

from aa2c.cli.bench.whole import whole_rate
from aa2c.config.toml import load_config

TRAJ = {
    "network": "nature",
    "update_epochs": 1,
    "minibatches": 8,
    "update_threads": 2,
    "num_envs": 32,
    "num_steps": 32,
}


def main() -> None:
    """Train for some seconds; print one JSON document."""
    kind, game, seconds = sys.argv[1:]
    mode = kind.removeprefix("recipe-").removesuffix("-float32")
    preset = f"{mode}/pong" if kind.startswith("recipe-") else f"{mode}/atari"
    config = replace(
        load_config(preset=preset), env=f"ALE/{game}-v5", workers=2, num_envs=16, port=0
    )
    if mode == "traj":
        config = replace(config, **TRAJ)
    if kind.endswith("-float32"):
        config = replace(config, precision="float32")
    rate = asyncio.run(whole_rate(config, float(seconds)))
    print(json.dumps({"env_steps": rate, "seconds": 1.0, "trained_share": 1.0}))


if __name__ == "__main__":
    main()
