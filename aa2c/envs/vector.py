"""Environments: one vector of them per worker, all with the same behaviour at an episode's end.

Runs in worker, updater (to learn the spaces) and evaluator. The only place that names gymnasium
and ale_py; `aa2c.envs.game`, for tests and videos, builds on it. Everything is brought to
Gymnasium's NEXT_STEP autoreset: the observation after a `terminated` or `truncated` step is the
true last one, the step after it ignores its action, returns the first observation of the next
episode with reward 0, and is marked as a reset row.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import ale_py
import gymnasium as gym
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from aa2c.config.config import Config
from aa2c.envs.registered import known_to_gymnasium
from aa2c.envs.spec import OBS, STEP_LEAVES, EnvSpec
from aa2c.envs.state import CannotBeSaved, load_env, save_env
from aa2c.errors import Aa2cError, StartError

Arrays = dict[str, NDArray[Any]]

MAX_FRAMES_PER_GAME = 108_000
ATARI_ENTRY_POINT = "ale_py.env:AtariEnv"


class Episode(NamedTuple):
    """A finished episode: raw return, length in env steps."""

    episode_return: float
    length: int


@dataclass(frozen=True, slots=True)
class Step:
    """One step of all B environments: `obs` [B, …] and `STEP_LEAVES` [B] by name; what ended."""

    arrays: Arrays
    episodes: list[Episode]

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]


def make_step(obs: Any, *values: Any, episodes: list[Episode]) -> Step:
    """A step with these values of `STEP_LEAVES`, in their order."""
    told = zip(STEP_LEAVES, values, strict=True)
    arrays = {OBS: np.asarray(obs)} | {leaf.name: np.asarray(v, leaf.dtype) for leaf, v in told}
    return Step(arrays, episodes)


class Envs(Protocol):
    """B environments that step together."""

    num_envs: int
    spec: EnvSpec

    def reset(self) -> NDArray[Any]:
        """First observations [B, …]."""

    def step(self, actions: NDArray[np.int64]) -> Step:
        """Step all with actions [B] in 0 … num_actions-1. Raises `ValueError` for others."""

    def state(self) -> dict[str, Any]:
        """All of it, to go on from exactly, for JSON. Raises `CannotBeSaved`."""

    def load_state(self, saved: dict[str, Any]) -> None:
        """Go on from what `state` gave; after a reset."""

    def close(self) -> None: ...


class EpisodeStatistics:
    """Raw return and length of every running episode."""

    def __init__(self, num_envs: int) -> None:
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, np.int64)

    def add(self, rewards: NDArray[Any], is_reset: NDArray[np.bool_]) -> list[Episode]:
        """Count one step; a reset row shows that the episode before it is over."""
        episodes = self._finish(is_reset) if is_reset.any() else []
        self._returns += rewards
        self._lengths += ~is_reset
        return episodes

    def state(self) -> dict[str, Any]:
        """For JSON."""
        return {"returns": self._returns.tolist(), "lengths": self._lengths.tolist()}

    def load_state(self, saved: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._returns[:] = saved["returns"]
        self._lengths[:] = saved["lengths"]

    def _finish(self, ended: NDArray[np.bool_]) -> list[Episode]:
        pairs = zip(self._returns[ended], self._lengths[ended], strict=True)
        episodes = [Episode(float(total), int(length)) for total, length in pairs]
        self._returns[ended] = 0
        self._lengths[ended] = 0
        return episodes


class GymnasiumEnvs:
    """Any Gymnasium vector environment with Box observations and Discrete actions."""

    def __init__(self, envs: VectorEnv[Any, Any, Any], seed: int) -> None:
        self._envs = envs
        self._seed = seed
        self.num_envs = envs.num_envs
        self.spec, self._first_action = spec_of(envs)
        self._statistics = EpisodeStatistics(self.num_envs)
        self._ended = np.zeros(self.num_envs, np.bool_)

    def reset(self) -> NDArray[Any]:
        obs, _ = self._envs.reset(seed=self._seed)
        return np.asarray(obs)

    def step(self, actions: NDArray[np.int64]) -> Step:
        check_actions(actions, self.spec.num_actions)
        obs, rewards, terminated, truncated, _ = self._envs.step(actions + self._first_action)
        is_reset = self._ended
        rewards = np.where(is_reset, 0, rewards).astype(np.float32)
        terminated = np.asarray(terminated, np.bool_) & ~is_reset
        truncated = np.asarray(truncated, np.bool_) & ~is_reset
        self._ended = terminated | truncated
        episodes = self._statistics.add(rewards, is_reset)
        return make_step(obs, rewards, terminated, truncated, is_reset, episodes=episodes)

    def state(self) -> dict[str, Any]:
        return {
            "envs": save_env(self._envs),
            "statistics": self._statistics.state(),
            "ended": self._ended.tolist(),
        }

    def load_state(self, saved: dict[str, Any]) -> None:
        load_env(self._envs, saved["envs"])
        self._statistics.load_state(saved["statistics"])
        self._ended = np.array(saved["ended"], np.bool_)

    def close(self) -> None:
        self._envs.close()


class AtariEnvs:
    """Atari games in ale_py's C++ vector environment, with the standard preprocessing.

    84x84 grey, 4 frames stacked, an action repeated `frame_skip` frames, maximum of the last two,
    no-op starts, FIRE at a game's start. A lost life is `terminated`, yet the game goes on, and
    an episode is a full game with its raw score. One C++ thread: the worker is the unit of scale.
    """

    def __init__(self, config: Config, game: str, num_envs: int, seed: int) -> None:
        self._envs = make_atari_vector(
            config,
            game,
            num_envs,
            life_loss_info=config.terminal_on_life_loss,
            max_num_frames_per_episode=MAX_FRAMES_PER_GAME,
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

    def step(self, actions: NDArray[np.int64]) -> Step:
        # An action outside the range would block the C++ side for ever.
        check_actions(actions, self.spec.num_actions)
        obs, rewards, terminated, truncated, info = self._envs.step(actions)
        game_start = _game_start(info)
        is_reset = game_start != self._game_start
        self._game_start = game_start
        rewards = np.asarray(rewards, np.float32)
        episodes = self._statistics.add(rewards, is_reset)
        return make_step(obs, rewards, terminated, truncated, is_reset, episodes=episodes)

    def state(self) -> dict[str, Any]:
        raise CannotBeSaved("ale_py's vector environment gives its emulators to nobody")

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


def check_actions(actions: NDArray[np.int64], num_actions: int) -> None:
    """Raise `ValueError` for an action outside 0 … num_actions-1."""
    if actions.astype(np.uint64).max() >= num_actions:  # those below 0 are very large then
        raise ValueError(f"actions must be in 0 … {num_actions - 1}, got {actions}")


def spec_of(envs: VectorEnv[Any, Any, Any]) -> tuple[EnvSpec, int]:
    """The spec and the number of the first action. Raises `StartError` for other spaces."""
    obs, actions = envs.single_observation_space, envs.single_action_space
    if not isinstance(obs, gym.spaces.Box) or not obs.shape:
        raise StartError(
            f"--env has observations {obs}, and aa2c needs a Box with a dimension: wrap it."
        )
    if not isinstance(actions, gym.spaces.Discrete):
        raise StartError(f"--env has actions {actions}, and aa2c needs Discrete ones: wrap it.")
    return EnvSpec(obs.shape, str(obs.dtype), int(actions.n)), int(actions.start)


def atari_spec(envs: AtariVectorEnv) -> EnvSpec:
    """The spec of ale_py's environments, whose frames are stacked."""
    return replace(spec_of(envs)[0], is_stacked=True)


def is_atari(env_id: str) -> bool:
    """Whether the id names an Atari game."""
    gym.register_envs(ale_py)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return gym.spec(env_id.rpartition(":")[2]).entry_point == ATARI_ENTRY_POINT
        except gym.error.Error:
            return False


def no_tick() -> None:
    """Nobody waits for a sign of life."""


def make_envs(config: Config, num_envs: int, seed: int, tick: Callable[[], None] = no_tick) -> Envs:
    """The environments of one worker; `tick` is called after each that was made.

    Raises `StartError`, which names --env and the cause, for an id or an environment that does
    not work.
    """
    with explain_failures(config.env):
        env_id, rom = find_env(config.env)
        if rom:
            return AtariEnvs(config, rom, num_envs, seed)
        return GymnasiumEnvs(make_gymnasium_vector(env_id, num_envs, tick), seed)


@contextmanager
def explain_failures(env: str) -> Iterator[None]:
    """Turn whatever an environment's own code raises into a `StartError` of one sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Gymnasium's advice on versions
            yield
    except Aa2cError:
        raise
    except Exception as error:
        raise StartError(f"--env {env} cannot be made: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """What kind of error it is and what it says, without line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def find_env(env: str) -> tuple[str, str]:
    """The Gymnasium id that --env means, after importing its module, and its ROM if Atari."""
    gym.register_envs(ale_py)
    module, _, env_id = known_to_gymnasium(env).rpartition(":")
    if module:
        importlib.import_module(module)
    registered = gym.spec(env_id)
    return env_id, registered.kwargs["game"] if registered.entry_point == ATARI_ENTRY_POINT else ""


def make_atari_vector(config: Config, rom: str, num_envs: int, **options: Any) -> AtariVectorEnv:
    """ale_py's environments with the options of the configuration and raw rewards."""
    return AtariVectorEnv(
        rom,
        num_envs,
        num_threads=1,
        frameskip=config.frame_skip,
        noop_max=config.noop_max,
        repeat_action_probability=config.sticky_action_prob,
        reward_clipping=False,
        autoreset_mode=AutoresetMode.NEXT_STEP,
        **options,
    )


def make_gymnasium_vector(
    env_id: str, num_envs: int, tick: Callable[[], None] = no_tick, **options: Any
) -> VectorEnv[Any, Any, Any]:
    """Gymnasium's vector environment of the id, with autoreset at the next step."""
    if gym.spec(env_id).vector_entry_point is not None:
        envs = gym.make_vec(env_id, num_envs, **options)
        if envs.metadata.get("autoreset_mode") == AutoresetMode.NEXT_STEP:
            return envs
        envs.close()

    def ticking(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        tick()
        return env

    return gym.make_vec(
        env_id,
        num_envs,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.NEXT_STEP},
        wrappers=[ticking],  # type: ignore[list-item]
        **options,
    )


def env_spec(config: Config) -> EnvSpec:
    """Spaces of the environment, read off one instance."""
    envs = make_envs(config, 1, config.seed)
    try:
        return envs.spec
    finally:
        envs.close()
