"""Videos of episodes, rendered for people, at the game's own speed.

Recorded in the evaluator and the command line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
from numpy.typing import NDArray

from aa2c.config.config import Config
from aa2c.envs.game import Game, GameStep, make_game
from aa2c.envs.masks import Mask
from aa2c.errors import ConfigError
from aa2c.learn.play import TestEpisode, always, play_on
from aa2c.policy.policy import Policy

SUFFIX = ".mp4"
WIDTH = 480  # pixels; smaller pictures are enlarged by the integer factor that comes closest


def record(
    config: Config,
    network: Policy,
    path: Path,
    *,
    greedy: bool,
    seed: int,
    max_steps: int,
    keep_going: Callable[[], bool] = always,
) -> TestEpisode | None:
    """Play one episode, write it to `path` as an H.264 video and return it.

    It is the first episode that `play` plays with the same seed. The file appears once it is
    complete, and replaces one of the same name; there is none, and no episode, once `keep_going()` is
    False. Raises `ConfigError`, which names --video, if the
    path cannot be written or the environment cannot be rendered, and `StartError` if the environment
    cannot be made.
    """
    partial = check_film(path)
    try:
        partial.touch()
        recorded = _Recorded(make_game(config, with_pictures=True), partial)
        try:
            episodes = play_on(
                [recorded], network, episodes=1, greedy=greedy, seed=seed, max_steps=max_steps,
                keep_going=keep_going,
            )  # fmt: skip
        finally:
            recorded.close()
        if episodes is None:
            return None
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or "the encoder failed"
        raise ConfigError(f"--video {path} cannot be written: {reason}.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return episodes[0]


def check_film(path: Path) -> Path:
    """Where a video is written before it is complete. Raises `ConfigError` if it cannot be."""
    if path.suffix != SUFFIX:
        raise ConfigError(f"--video {path} must end in {SUFFIX}.")
    partial = path.with_name(f".partial-{path.name}")
    try:
        if path.is_dir():
            raise ConfigError(f"--video {path} is a directory.")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise ConfigError(f"--video {path} cannot be written: {error.strerror}.") from error
    return partial


class _Recorded:
    """A game that is recorded while it is played."""

    def __init__(self, game: Game, path: Path) -> None:
        self._game = game
        self._writer: Any = imageio.get_writer(
            path, fps=game.pictures_per_s, codec="libx264", macro_block_size=1
        )
        self.spec = game.spec
        self.pictures_per_s = game.pictures_per_s

    @property
    def mask(self) -> Mask | None:
        return self._game.mask

    def start(self, seed: int) -> NDArray[Any]:
        obs = self._game.start(seed)
        self._writer.append_data(enlarge(self.picture()))
        return obs

    def step(self, action: NDArray[Any]) -> GameStep:
        step = self._game.step(action)
        self._writer.append_data(enlarge(self.picture()))
        return step

    def picture(self) -> NDArray[np.uint8]:
        return self._game.picture()

    def close(self) -> None:
        self._writer.close()
        self._game.close()


def enlarge(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture [H, W, 3] enlarged to about `WIDTH` without blur; sides are even, as H.264 needs."""
    factor = max(1, round(WIDTH / picture.shape[1]))
    large = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = (side // 2 * 2 for side in large.shape[:2])
    return large[:height, :width]
