"""Videos of episodes, rendered for people, at the game's own speed."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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
ENCODER = ["-threads", "1", "-maxrate", "4M", "-bufsize", "8M"]  # so that a minute is below 40 MB
WIDTH = 480  # pixels; smaller pictures are enlarged by the integer factor that comes closest


def record(
    config: Config,
    network: Policy,
    path: Path,
    *,
    greedy: bool,
    seed: int,
    max_steps: int,
    most_s: float = math.inf,
    keep_going: Callable[[], bool] = always,
) -> Video:
    """Play one episode and write it to `path` as an H.264 video.

    It is the first episode that `play` plays with the same seed. It is cut after `most_s` of video,
    and once `keep_going()`, which is asked before each step, is False. The file appears once it is
    complete, and replaces one of the same name. Raises `ConfigError`, which names --video, if the
    path cannot be written or the environment cannot be rendered, and `StartError` if the environment
    cannot be made.
    """
    partial = check_video(path)
    try:
        partial.touch()
        recorded = _Recorded(make_game(config, with_pictures=True), partial)
        try:
            play_on(
                [recorded],
                network,
                episodes=1,
                greedy=greedy,
                seed=seed,
                max_steps=int(min(max_steps, most_s * recorded.pictures_per_s)),
                keep_going=keep_going,
            )
        finally:
            recorded.close()
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or "the encoder failed"
        raise ConfigError(f"--video {path} cannot be written: {reason}.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return recorded.video


def check_video(path: Path) -> Path:
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


class Video(NamedTuple):
    """A recorded episode, and how long it is."""

    episode: TestEpisode
    duration_s: float


class _Recorded:
    """A game that is recorded while it is played."""

    def __init__(self, game: Game, path: Path) -> None:
        self._game = game
        self._writer: Any = imageio.get_writer(
            path,
            fps=game.pictures_per_s,
            codec="libx264",
            macro_block_size=1,
            output_params=ENCODER,
        )
        self._episode = TestEpisode(0.0, 0, is_capped=True)
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
        before = self._episode
        self._episode = TestEpisode(
            before.episode_return + step.reward, before.length + 1, is_capped=not step.is_over
        )
        self._writer.append_data(enlarge(self.picture()))
        return step

    @property
    def video(self) -> Video:
        return Video(self._episode, (self._episode.length + 1) / self.pictures_per_s)

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
