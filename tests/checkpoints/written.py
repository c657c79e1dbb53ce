"""Checkpoints of a small network, written and changed."""

from __future__ import annotations

import hashlib
import json

import torch

from aa2c.checkpoints.tensors import save
from aa2c.config.config import Config
from aa2c.envs.spec import Discrete, EnvSpec
from aa2c.policy.flat import FlatParameters
from aa2c.policy.network import make_policy

SPEC = EnvSpec((4,), "float32", Discrete(3))
CONFIG = Config(ent_coef=(0.1, 0.2), workers=2, hidden_sizes=(8, 5), name='q"uo\nte ü')
FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
GOOD_COUNTS = dict.fromkeys(("env_steps", "updates", "policy_version", "records", "episodes"), 2000)


def network_of(seed):
    torch.manual_seed(seed)
    network = make_policy(CONFIG, SPEC)
    FlatParameters(network)
    network.policy[-1].weight.data.mul_(100)
    return network


def write(directory, env_steps, seed=0, keep=10, score=None):
    return save(
        directory,
        network=network_of(seed),
        optimizer={"exp_avg": torch.full((128,), float(seed)), "step": torch.tensor(3.0)},
        config=CONFIG,
        spec=SPEC,
        counts={
            "env_steps": env_steps,
            "updates": 2,
            "policy_version": 3,
            "records": 4,
            "episodes": 5,
        },
        rng=torch.get_rng_state(),
        score=score,
        keep=keep,
        worker_states={},
    )


def replace(checkpoint, name, data):
    """Put other bytes in a checkpoint, with a manifest that agrees."""
    (checkpoint / name).write_bytes(data)
    path = checkpoint / "MANIFEST.json"
    manifest = json.loads(path.read_text())
    manifest[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    path.write_text(json.dumps(manifest))
