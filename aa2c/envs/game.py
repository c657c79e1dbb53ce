"""Games: one environment each, for test episodes and videos.

Runs in the evaluator. Unlike `aa2c.envs.vector`, where workers collect as fast as they can, a game
starts when it is told to, from a seed of its own, and is over only when the whole of it is: each
episode can be cut at any step, played again, and drawn.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from aa2c.config.config import Config
from aa2c.envs.actions import check_actions
from aa2c.envs.failure import ENV_ERRORS, explain_failures, one_line
from aa2c.envs.find import AtariGameOptions, find_env, has_pictures, make_gymnasium_vector
from aa2c.envs.masks import Mask
from aa2c.envs.plain import Vector
from aa2c.envs.spec import EnvSpec
from aa2c.envs.vector import atari_spec, make_atari_vector
from aa2c.errors import ConfigError, RunFailed

ATARI_FRAMES_PER_S = 60
ATARI_SCREEN = (210, 160)  # height, width
PICTURES_PER_S = 30.0  # of an environment that does not say
NO_FRAME_LIMIT = 2**31 - 1
SEEDS = 2**31  # of a game: 0 … SEEDS - 1


class GameStep(NamedTuple):
    """What one action led to; the reward is raw."""

    obs: NDArray[Any]
    reward: float
    is_over: bool


class Game(Protocol):
    """One environment. `pictures_per_s` shows it at its own speed, one picture a step."""

    spec: EnvSpec
    pictures_per_s: float

    @property
    def mask(self) -> Mask | None:
        """The actions that are legal now [A]; None if the environment does not tell."""

    def start(self, seed: int) -> NDArray[Any]:
        """Start a game, the same for the same seed in 0 … 2^31-1; its first observation."""

    def step(self, action: NDArray[Any]) -> GameStep:
        """Take one action of a policy. Raises `ValueError` for others."""

    def picture(self) -> NDArray[np.uint8]:
        """What a person would see now, [height, width, 3]. Only if made `with_pictures`."""

    def close(self) -> None: ...


class GymnasiumGame:
    """One environment of Gymnasium. `envs` is a vector of one, to be the same as in training."""

    def __init__(self, envs: Vector, name: str) -> None:
        self._envs = envs
        self._name = name
        self.spec = envs.spec
        self.pictures_per_s = float(envs.metadata.get("render_fps") or PICTURES_PER_S)

    @property
    def mask(self) -> Mask | None:
        return None if self._envs.mask is None else self._envs.mask[0]

    def start(self, seed: int) -> NDArray[Any]:
        first: NDArray[Any] = self._envs.reset(seed)[0]
        return first

    def step(self, action: NDArray[Any]) -> GameStep:
        actions = np.asarray(action)[None]
        check_actions(self.spec.actions, actions)
        step = self._envs.step(actions)
        is_over = bool(step.terminated[0] or step.truncated[0])
        return GameStep(step.obs[0], float(step.rewards[0]), is_over)

    def picture(self) -> NDArray[np.uint8]:
        """Raises `ConfigError`, with the cause, for an environment that cannot be drawn."""
        try:
            picture = np.asarray(self._envs.render(), np.uint8)
        except ENV_ERRORS as error:  # whatever it raises, most often for want of a package
            raise _no_picture(self._name, one_line(error)) from error
        if picture.ndim != 3 or picture.shape[2] != 3:
            raise _no_picture(self._name, f"its picture has the shape {picture.shape}")
        return picture

    def close(self) -> None:
        self._envs.close()


class AtariGame:
    """One Atari game with the preprocessing of `AtariEnvs`; only the last lost life ends it.

    After a lost life FIRE is pressed where there is such a button: a policy that is sure of
    another action would wait forever for a ball that never comes. ale_py does so only at a
    game's start. The picture is that of a second emulator, which plays the same game in colour.
    """

    mask = None

    def __init__(self, config: Config, game: AtariGameOptions, *, with_pictures: bool) -> None:
        options = {"life_loss_info": False, "max_num_frames_per_episode": NO_FRAME_LIMIT}
        self._envs = make_atari_vector(config, game, 1, **options)
        self._screen: Any = None
        self._picture: NDArray[np.uint8] = np.zeros((0, 0, 3), np.uint8)
        if with_pictures:
            height, width = ATARI_SCREEN
            options |= {"img_height": height, "img_width": width}
            self._screen = make_atari_vector(
                config, game, 1, grayscale=False, stack_num=1, **options
            )
        buttons = [action.name for action in self._envs.ale.get_action_set()]
        self._fire = buttons.index("FIRE") if "FIRE" in buttons else None
        self._lives = 0
        self._life_was_lost = False
        self.spec = atari_spec(self._envs)
        self.observation_space = self._envs.single_observation_space
        self.action_space = self._envs.single_action_space
        self.has_pictures = with_pictures
        self.pictures_per_s = ATARI_FRAMES_PER_S / config.frame_skip

    def start(self, seed: int) -> NDArray[Any]:
        obs, info = self._envs.reset(seed=seed)
        self._lives, self._life_was_lost = int(info["lives"][0]), False
        if self._screen is not None:
            self._picture = self._screen.reset(seed=seed)[0][0, 0]
        first: NDArray[Any] = obs[0]
        return first

    def step(self, action: NDArray[Any]) -> GameStep:
        if self._life_was_lost and self._fire is not None:
            action = np.array(self._fire)
        actions = np.asarray(action)[None]
        check_actions(self.spec.actions, actions)
        obs, rewards, terminated, truncated, info = self._envs.step(actions)
        step = GameStep(obs[0], float(rewards[0]), bool(terminated[0] or truncated[0]))
        lives = int(info["lives"][0])
        self._lives, self._life_was_lost = lives, lives < self._lives
        if self._screen is not None:
            self._step_screen(actions, step)
        return step

    def _step_screen(self, actions: NDArray[np.int64], step: GameStep) -> None:
        pictures, rewards, terminated, truncated, _ = self._screen.step(actions)
        self._picture = pictures[0, 0]
        if rewards[0] != step.reward or (terminated[0] or truncated[0]) != step.is_over:
            raise RunFailed("--video: the emulator in colour went another way than the game.")

    def picture(self) -> NDArray[np.uint8]:
        return self._picture

    def close(self) -> None:
        self._envs.close()
        if self._screen is not None:
            self._screen.close()


def make_game(config: Config, *, with_pictures: bool = False) -> Game:
    """The game of --env.

    Raises `StartError`, which names --env and the cause, for one that does not work, and
    `ConfigError`, which names --video, if there shall be pictures and it has none.
    """
    with explain_failures(config.env_flags):
        env_id, game = find_env(config)
        if game:
            return AtariGame(config, game, with_pictures=with_pictures)
        if not with_pictures:
            return GymnasiumGame(make_gymnasium_vector(config, env_id, 1), config.env_name)
        if config.vector:
            raise _no_picture(config.env_name, "it makes vector environments")
        if not has_pictures(env_id):
            raise _no_picture(config.env, "it has no render mode rgb_array")
        envs = make_gymnasium_vector(config, env_id, 1, render_mode="rgb_array")
        return GymnasiumGame(envs, config.env)


def _no_picture(env: str, reason: str) -> ConfigError:
    return ConfigError(f"--video: {env} cannot be drawn: {reason}")
