"""Train a whole policy of your own: a function with a parameter `num_outputs` makes the heads, too.

    python -m aa2c serve --network own_policy:Remembering --memory own --memory-size 32

(run from this folder, or with it on PYTHONPATH) does the same as this script.
"""

import sys

from torch import Tensor, nn

from aa2c import recipe, train


class Remembering(nn.Module):
    """An actor-critic with a state [N, memory_size]: zeros where an episode begins.

    Without `--memory own` a policy has no parameter `memory_size` and no state: `forward(obs)` returns
    outputs and values.
    """

    def __init__(self, obs_shape: tuple[int, ...], num_outputs: int, memory_size: int) -> None:
        super().__init__()
        (inputs,) = obs_shape
        self.cell = nn.GRUCell(inputs, memory_size)
        self.actor = nn.Sequential(
            nn.Linear(memory_size, 32), nn.SiLU(), nn.Linear(32, num_outputs)
        )
        self.critic = nn.Sequential(nn.Linear(memory_size, 32), nn.SiLU(), nn.Linear(32, 1))

    def forward(self, obs: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs [N, num_outputs], values [N] or [N, 1], and the next state, of N environments."""
        state = self.cell(obs, state)
        return self.actor(state), self.critic(state), state


if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    config = recipe(
        network="own_policy:Remembering",
        memory="own",
        memory_size=32,
        workers=2,
        total_env_steps=steps,
    )
    print("mean return:", train(config)["returns"]["train"]["mean"])
