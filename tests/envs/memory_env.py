"""A task for which one observation does not suffice: act as a cue said that was shown steps ago."""

import gymnasium as gym
import numpy as np

DELAY = 4


class Cue(gym.Env):
    """The cue, -1 or 1, is shown at first only; after `DELAY` steps the action that it means pays 1."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._cue = int(self.np_random.integers(2))
        self._steps = 0
        return np.array([2 * self._cue - 1, 0], np.float32), {}

    def step(self, action):
        self._steps += 1
        is_over = self._steps > DELAY
        reward = float(is_over and action == self._cue)
        return np.array([0, self._steps / DELAY], np.float32), reward, is_over, False, {}


gym.register("Cue-v0", Cue)
