"""A task of an image and a vector, either of which alone says nothing: its optimum is known."""

from typing import Any

import gymnasium as gym
import numpy as np

STEPS = 8
SIDE = 8


class Signal(gym.Env[Any, Any]):
    """The action pays 1 that is the side of the image which is lit, xor'ed with the switch."""

    observation_space = gym.spaces.Dict(
        picture=gym.spaces.Box(0, 255, (SIDE, SIDE, 1), np.uint8),
        more=gym.spaces.Tuple((gym.spaces.Discrete(2), gym.spaces.Box(-1, 1, (2,), np.float32))),
    )
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self._steps = 0
        return self._look(), {}

    def step(self, action: Any) -> Any:
        reward = float(action == (self._side ^ self._switch))
        self._steps += 1
        return self._look(), reward, self._steps == STEPS, False, {}

    def _look(self) -> Any:
        self._side, self._switch = (int(x) for x in self.np_random.integers(2, size=2))
        picture = self.np_random.integers(0, 60, (SIDE, SIDE, 1), np.uint8)
        half = slice(SIDE // 2, SIDE) if self._side else slice(0, SIDE // 2)
        picture[:, half] += 150
        noise = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return {"picture": picture, "more": (self._switch, noise)}


gym.register("Signal-v0", Signal)
