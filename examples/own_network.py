"""Train a network of your own: a function that makes the layers below the policy and value heads.

    python -m aa2c serve --network own_network:make_trunk

(run from this folder, or with it on PYTHONPATH) does the same as this script.
"""

import sys

from torch import nn

from aa2c import recipe, train


def make_trunk(obs_shape: tuple[int, ...]) -> nn.Module:
    """Layers from observations [N, *obs_shape] to features [N, 96]; aa2c adds the two heads."""
    (inputs,) = obs_shape
    return nn.Sequential(nn.Linear(inputs, 96), nn.LayerNorm(96), nn.SiLU())


if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    config = recipe(network="own_network:make_trunk", workers=2, total_env_steps=steps)
    print("mean return:", train(config)["returns"]["train"]["mean"])
