"""Env steps per second of aa2c on a task, on all cores, measured like its peers.

    python run_aa2c.py KIND GAME SECONDS

Atari, 2 workers with 16 environments each, in mode traj with 32. traj: one pass in minibatches of 256, two
update threads, rollouts of 32 steps; traj-lstm: the same with an LSTM of 512 units, learned from in sequences of
32 steps; grad and model: the options of `grad/atari` and `model/atari`; all four with the Nature CNN.
…-float32: without bfloat16, like the peers. recipe-…: the options of the tuned `grad/pong` and `model/pong`,
with their own network.

MuJoCo, mode traj. cheetah-cleanrl and cheetah-sb3: batch, passes, minibatches, layers and normalization of the
peer, but its environments are spread over 2 workers with several each.

Every sample except reset rows is learned from once per pass; env steps count once they have been learned from.
"""

import asyncio
import json
import sys
from dataclasses import replace

from aa2c.cli.bench.whole import whole_rate
from aa2c.config.config import Config
from aa2c.config.toml import load_config

TRAJ = {
    "network": "nature",
    "update_epochs": 1,
    "minibatches": 8,
    "update_threads": 2,
    "num_envs": 32,
    "num_steps": 32,
}


LSTM = {"memory": "lstm", "memory_size": 512}
MUJOCO = {
    "cleanrl": {
        "num_envs": 4, "num_steps": 256, "update_epochs": 10, "minibatches": 32,
        "hidden_sizes": (64, 64), "learning_rate": 3e-4, "gamma": 0.99, "gae_lambda": 0.95,
        "clip_coef": 0.2, "clip_vloss": True, "ent_coef": (0.0,), "vf_coef": 0.5, "max_grad_norm": 0.5,
    },
    "sb3": {
        "num_envs": 4, "num_steps": 64, "update_epochs": 20, "minibatches": 8,
        "hidden_sizes": (256, 256), "learning_rate": 2.0633e-05, "gamma": 0.98, "gae_lambda": 0.92,
        "clip_coef": 0.1, "clip_vloss": False, "ent_coef": (0.000401762,), "vf_coef": 0.58096,
        "max_grad_norm": 0.8,
    },
}  # fmt: skip


def mujoco(kind: str, game: str) -> Config:
    """The options of a peer."""
    config = load_config(preset="traj/vector")
    normalized = {"norm_obs": True, "norm_returns": True, "norm_adv": True}
    return replace(config, env=game, workers=2, update_threads=1, **normalized, **MUJOCO[kind])


def atari(kind: str, game: str) -> Config:
    """The options of a kind."""
    plain = kind.removesuffix("-float32")
    mode = plain.removeprefix("recipe-").removesuffix("-lstm")
    preset = f"{mode}/pong" if plain.startswith("recipe-") else f"{mode}/atari"
    config = replace(load_config(preset=preset), env=f"ALE/{game}-v5", workers=2, num_envs=16)
    if mode == "traj":
        config = replace(config, **TRAJ)
    if plain.endswith("-lstm"):
        config = replace(config, **LSTM)
    return replace(config, precision="float32") if kind.endswith("-float32") else config


def main() -> None:
    """Train for some seconds; print one JSON document."""
    kind, game, seconds = sys.argv[1:]
    family, _, peer = kind.partition("-")
    config = mujoco(peer, game) if family == "cheetah" else atari(kind, game)
    rate = asyncio.run(whole_rate(config, float(seconds)))
    print(json.dumps({"env_steps": rate, "seconds": 1.0, "trained_share": 1.0}))


if __name__ == "__main__":
    main()
