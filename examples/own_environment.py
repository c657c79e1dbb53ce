"""Train on an environment of your own: register it, then name it as module:EnvId.

    python -m aa2c serve --env own_environment:Corridor-v0 --total-env-steps 100000

(run from this folder, or with it on PYTHONPATH) does the same as this script.
"""

import sys

import gymnasium as gym
import numpy as np

from aa2c import recipe, train

LENGTH = 8


class Corridor(gym.Env):
    """Walk to the right end; each step costs a little."""

    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = 0
        return self._observe(), {}

    def step(self, action):
        self.position = max(0, self.position + (1 if action else -1))
        arrived = self.position == LENGTH
        return self._observe(), 1.0 if arrived else -0.01, arrived, False, {}

    def _observe(self):
        return np.array([self.position / LENGTH], np.float32)


gym.register("Corridor-v0", Corridor, max_episode_steps=100)

if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    status = train(recipe("own_environment:Corridor-v0", workers=2, total_env_steps=steps))
    print("mean return:", status["returns"]["train"]["mean"], "of at most", 1 - 0.01 * (LENGTH - 1))
