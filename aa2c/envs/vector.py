"""Environments: one vector of them per worker, all with the same behaviour at an episode's end.

Runs in the workers. `aa2c.envs.game`, for tests and videos,
stands beside it on the same `aa2c.envs.plain`. Everything is brought to Gymnasium's NEXT_STEP
autoreset: the observation after a `terminated` or `truncated` step is the true last one, the step
after it ignores its action, returns the first observation of the next episode with reward 0, and is
marked as a reset row.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from aa2c.config.config import Config
from aa2c.envs.actions import check_actions
from aa2c.envs.failure import explain_failures
from aa2c.envs.find import AtariGameOptions, find_env, make_gymnasium_vector, no_tick
from aa2c.envs.masks import Mask
from aa2c.envs.plain import Vector, spec_of
from aa2c.envs.processes import AsyncVector
from aa2c.envs.spec import OBS, STEP_LEAVES, EnvSpec
from aa2c.envs.state import CannotBeSaved, load_random, save_random
from aa2c.errors import StartError

Arrays = dict[str, NDArray[Any]]


class Episode(NamedTuple):
    """A finished episode: raw return, length in env steps."""

    episode_return: float
    length: int


@dataclass(frozen=True, slots=True)
class Step:
    """One step of all B environments: `obs` [B, …] and `STEP_LEAVES` [B] by name; what ended.

    `final_obs` [n, …] are the last observations of the n truncated episodes, in their order, where
    `obs` does not show them.
    """

    arrays: Arrays
    episodes: list[Episode]
    final_obs: NDArray[Any] | None = None

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    @property
    def ended(self) -> NDArray[np.bool_]:
        """Episodes [B] that ended with this step."""
        ended: NDArray[np.bool_] = self.arrays["terminated"] | self.arrays["truncated"]
        return ended


def make_step(
    obs: Any, *values: Any, episodes: list[Episode], final_obs: NDArray[Any] | None = None
) -> Step:
    """A step with these values of `STEP_LEAVES`, in their order."""
    told = zip(STEP_LEAVES, values, strict=True)
    arrays = {OBS: np.asarray(obs)} | {leaf.name: np.asarray(v, leaf.dtype) for leaf, v in told}
    return Step(arrays, episodes, final_obs)


class Envs(Protocol):
    """B environments that step together."""

    num_envs: int
    spec: EnvSpec

    @property
    def mask(self) -> Mask | None:
        """The actions that are legal now [B, A]; None if the environments do not tell."""

    def reset(self) -> NDArray[Any]:
        """First observations [B, …]."""

    def step(self, actions: NDArray[Any]) -> Step:
        """Step all with a policy's actions [B, …]. Raises `ValueError` for others."""

    def state(self) -> dict[str, Any]:
        """All of it, to resume from exactly, for JSON. Raises `CannotBeSaved`."""

    def load_state(self, saved: dict[str, Any]) -> None:
        """Resume from what `state` gave; after a reset."""

    def close(self) -> None: ...


class EpisodeStatistics:
    """Raw return and length of every running episode."""

    def __init__(self, num_envs: int) -> None:
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, np.int64)

    def add(self, rewards: NDArray[Any], is_reset: NDArray[np.bool_]) -> list[Episode]:
        """Count one step; a reset row shows that the episode before it is over."""
        episodes = self.finish(is_reset)
        self._returns += rewards
        self._lengths += ~is_reset
        return episodes

    def state(self) -> dict[str, Any]:
        """For JSON."""
        return {"returns": self._returns.tolist(), "lengths": self._lengths.tolist()}

    def load_state(self, saved: dict[str, Any]) -> None:
        """Resume from what `state` gave."""
        self._returns[:] = saved["returns"]
        self._lengths[:] = saved["lengths"]

    def finish(self, ended: NDArray[np.bool_]) -> list[Episode]:
        """These episodes are over."""
        if not ended.any():
            return []
        pairs = zip(self._returns[ended], self._lengths[ended], strict=True)
        episodes = [Episode(float(total), int(length)) for total, length in pairs]
        self._returns[ended] = 0
        self._lengths[ended] = 0
        return episodes


class GymnasiumEnvs:
    """Any environments of Gymnasium."""

    def __init__(self, envs: Vector, seed: int, *, is_deterministic: bool = False) -> None:
        self._envs = envs
        self._seed = seed
        self._is_deterministic = is_deterministic
        self.num_envs = envs.num_envs
        self.spec = envs.spec
        self._statistics = EpisodeStatistics(self.num_envs)

    @property
    def mask(self) -> Mask | None:
        return self._envs.mask

    def reset(self) -> NDArray[Any]:
        if self._is_deterministic:  # for environments that draw from the global generators
            random.seed(self._seed)
            np.random.seed(self._seed % 2**32)
        return self._envs.reset(self._seed)

    def step(self, actions: NDArray[Any]) -> Step:
        check_actions(self.spec.actions, actions)
        obs, rewards, terminated, truncated, is_reset, final_obs = self._envs.step(actions)
        rewards = rewards.astype(np.float32)
        episodes = self._statistics.add(rewards, is_reset)
        if self.spec.resets_at_once:
            episodes = self._statistics.finish(terminated | truncated)
        values = rewards, terminated, truncated, is_reset
        return make_step(obs, *values, episodes=episodes, final_obs=final_obs)

    def state(self) -> dict[str, Any]:
        return {
            "envs": self._envs.state(),
            "statistics": self._statistics.state(),
            "random": save_random(),
        }

    def load_state(self, saved: dict[str, Any]) -> None:
        self._envs.load_state(saved["envs"])
        self._statistics.load_state(saved["statistics"])
        load_random(saved["random"])

    def close(self) -> None:
        self._envs.close()


class AtariEnvs:
    """Atari games in ale_py's C++ vector environment, with the standard preprocessing.

    84x84 grey, 4 frames stacked, an action repeated `frame_skip` frames, maximum of the last two,
    no-op starts, FIRE at a game's start. A lost life is `terminated`, yet the game continues, and
    an episode is a full game with its raw score. One C++ thread: the worker is the unit of scale.
    """

    mask = None

    def __init__(self, config: Config, game: AtariGameOptions, num_envs: int, seed: int) -> None:
        self._envs = make_atari_vector(
            config,
            game,
            num_envs,
            life_loss_info=config.terminal_on_life_loss,
            max_num_frames_per_episode=game.max_frames,
        )
        self._seed = seed
        self.num_envs = num_envs
        self.spec = atari_spec(self._envs)
        self._statistics = EpisodeStatistics(num_envs)
        self._game_start = np.zeros(num_envs, np.int64)

    def reset(self) -> NDArray[Any]:
        obs, info = self._envs.reset(seed=self._seed)
        self._game_start = _game_start(info)
        return np.asarray(obs)

    def step(self, actions: NDArray[Any]) -> Step:
        # An action outside the range would block the C++ side forever.
        check_actions(self.spec.actions, actions)
        obs, rewards, terminated, truncated, info = self._envs.step(actions)
        game_start = _game_start(info)
        is_reset = game_start != self._game_start
        self._game_start = game_start
        rewards = np.asarray(rewards, np.float32)
        episodes = self._statistics.add(rewards, is_reset)
        return make_step(obs, rewards, terminated, truncated, is_reset, episodes=episodes)

    def state(self) -> dict[str, Any]:
        raise CannotBeSaved("ale_py's vector environment does not expose its emulators")

    def load_state(self, saved: dict[str, Any]) -> None:
        raise NotImplementedError  # there is no such state

    def close(self) -> None:
        self._envs.close()


def _game_start(info: dict[str, Any]) -> NDArray[np.int64]:
    """The frame at which each running game began: changes exactly at a reset, not at a lost life."""
    start: NDArray[np.int64] = np.subtract(
        info["frame_number"], info["episode_frame_number"], dtype=np.int64
    )
    return start


def atari_spec(envs: AtariVectorEnv) -> EnvSpec:
    """The spec of ale_py's environments, whose frames are stacked."""
    spaces = envs.single_observation_space, envs.single_action_space
    return replace(spec_of(*spaces), is_stacked=True)


def make_envs(config: Config, num_envs: int, seed: int, tick: Callable[[], None] = no_tick) -> Envs:
    """The environments of one worker; `tick` is called after each that was made or reset.

    Raises `StartError`, which names --env and the cause, for an id or an environment that does
    not work.
    """
    with explain_failures(config.env_flags):
        env_id, game = find_env(config)
        if game:
            if config.vectorization == "async":
                raise StartError(
                    "--vectorization async is not for Atari games, which ale_py steps as one vector."
                )
            return AtariEnvs(config, game, num_envs, seed)
        envs: Vector
        if config.vectorization == "async":
            envs = AsyncVector(config, num_envs, tick)
        else:
            envs = make_gymnasium_vector(config, env_id, num_envs, tick, seed)
        return GymnasiumEnvs(envs, seed, is_deterministic=config.deterministic)


def make_atari_vector(
    config: Config, game: AtariGameOptions, num_envs: int, **options: Any
) -> AtariVectorEnv:
    """ale_py's environments with the options of the configuration and raw rewards."""
    return AtariVectorEnv(
        game.rom,
        num_envs,
        num_threads=1,
        frameskip=config.frame_skip,
        noop_max=config.noop_max,
        repeat_action_probability=config.sticky_action_prob,
        full_action_space=game.full_action_space,
        reward_clipping=False,
        autoreset_mode=AutoresetMode.NEXT_STEP,
        **options,
    )


def env_spec(config: Config) -> EnvSpec:
    """Spaces of the environment, read off one instance."""
    envs = make_envs(dataclasses.replace(config, vectorization="sync"), 1, config.seed)
    try:
        return envs.spec
    finally:
        envs.close()
