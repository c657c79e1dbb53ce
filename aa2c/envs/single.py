"""One environment for a user to step, as a run's workers see it, in Gymnasium's own interface."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from aa2c.config.config import Config
from aa2c.envs.failure import explain_failures
from aa2c.envs.find import find_env, make_one
from aa2c.envs.game import SEEDS, AtariGame
from aa2c.errors import StartError

Env = gym.Env[Any, Any]

PICTURES = "rgb_array"


def make_single(config: Config, render_mode: str | None = None) -> Env:
    """One environment of --env. Raises `StartError`, which names --env, if it cannot be made."""
    with explain_failures(config.env_flags):
        env_id, game = find_env(config)
        if game:
            shown = (None, PICTURES)
            if render_mode not in shown:
                raise StartError(f"render_mode {render_mode!r}: an Atari game's is one of {shown}.")
            whole = AtariGame(config, game, with_pictures=render_mode == PICTURES)
            return SingleAtari(whole, most_steps=max(1, game.max_frames // config.frame_skip))
        if config.vector or gym.spec(env_id).entry_point is None:
            raise StartError(f"{config.env_flag} makes vector environments only.")
        options: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
        env: Env = make_one(config, env_id, **options)
        return env


class SingleAtari(gym.Env[NDArray[np.uint8], np.int64]):
    """A whole Atari game, cut after so many steps; four frames of 84x84 stacked, rewards are raw."""

    def __init__(self, game: AtariGame, most_steps: int) -> None:
        self._game = game
        self._most_steps = most_steps
        self._steps = 0
        self.observation_space = game.observation_space
        self.action_space = game.action_space
        self.metadata = {"render_modes": [PICTURES], "render_fps": game.pictures_per_s}
        self.render_mode = PICTURES if game.has_pictures else None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        return self._game.start(int(self.np_random.integers(SEEDS))), {}

    def step(self, action: np.int64) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        obs, reward, is_over = self._game.step(np.asarray(action))
        self._steps += 1
        is_cut = self._steps >= self._most_steps and not is_over
        return obs, reward, is_over, is_cut, {}

    def render(self) -> Any:
        return self._game.picture() if self._game.has_pictures else None

    def close(self) -> None:
        self._game.close()
