"""B plain environments side by side, and Gymnasium's own vector environments, behind one interface.

An environment is third-party code: what it returns is taken as far as it can be understood,
and what it raises becomes one sentence. This is where the autoreset happens: an environment that has
ended ignores its next action and is reset instead (Gymnasium's NEXT_STEP).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array
from numpy.typing import NDArray

from aa2c.envs.actions import action_spec, to_space
from aa2c.envs.failure import ENV_ERRORS, Unusable, failed_call, one_line, shown
from aa2c.envs.observations import layout_of, obs_spec, scale_of, to_row
from aa2c.envs.spec import EnvSpec
from aa2c.envs.state import load_env, save_env
from aa2c.errors import StartError

CLOSE_S = 2.0  # for one environment
CLOSE_ALL_S = 5.0
DTYPES = ("uint8", "int8", "bool", "int32", "int64", "float32", "float64")  # others: float32

Obs = NDArray[Any]


class VectorStep(NamedTuple):
    """One step of B environments, all [B, …]; rewards are raw float64."""

    obs: Obs
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    is_reset: NDArray[np.bool_]


class Vector(Protocol):
    """B environments of Gymnasium that step together, with a policy's actions [B, …]."""

    num_envs: int
    spec: EnvSpec
    metadata: dict[str, Any]

    def reset(self, seed: int) -> Obs:
        """First observations [B, …]; environment i is seeded with seed + i."""

    def step(self, actions: NDArray[Any]) -> VectorStep: ...

    def render(self) -> Any:
        """A picture of the first environment."""

    def state(self) -> dict[str, Any]:
        """For JSON. Raises `CannotBeSaved`."""

    def load_state(self, saved: dict[str, Any]) -> None: ...

    def close(self) -> None:
        """Never raises, and returns within `CLOSE_ALL_S`."""


class PlainVector:
    """B environments of `gym.Env`, stepped one after the other.

    Infos are ignored. Observations are copied at once, so an environment may use a buffer again.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Any],
        num_envs: int,
        tick: Callable[[], None],
        *,
        is_squashed: bool = False,
    ) -> None:
        """Make the environments; `tick` is called after each, and after each reset."""
        self._name = name
        self._tick = tick
        self._envs: list[Any] = []
        self.num_envs = num_envs
        self._ended = np.zeros(num_envs, np.bool_)
        try:
            for _ in range(num_envs):
                self._envs.append(make())
                tick()
            self.spec = self._common_spec(is_squashed=is_squashed)
        except BaseException:
            self.close()
            raise
        self._dtype = np.dtype(self.spec.obs_dtype)
        self.metadata = dict(self._envs[0].metadata or {})

    def _common_spec(self, *, is_squashed: bool) -> EnvSpec:
        specs = [
            spec_of(env.observation_space, env.action_space, is_squashed=is_squashed)
            for env in self._envs
        ]
        for spec in specs:
            if spec != specs[0]:
                raise StartError(
                    f"--env {self._name} makes environments of different spaces, {specs[0]} and "
                    f"{spec}: all environments of a run need the same."
                )
        return specs[0]

    def reset(self, seed: int) -> Obs:
        obs = self._empty()
        for i in range(self.num_envs):
            self._reset(i, obs, seed=seed + i)
        self._ended = np.zeros(self.num_envs, np.bool_)
        return obs

    def step(self, actions: NDArray[Any]) -> VectorStep:
        obs, is_reset = self._empty(), self._ended
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), np.bool_)
        for i, row in enumerate(actions):
            if is_reset[i]:
                self._reset(i, obs)
                continue
            env = self._envs[i]
            try:
                result = env.step(to_space(self.spec.actions, row))
                if len(result) != 5:
                    raise Unusable(
                        f"returned {len(result)} values: return obs, reward, terminated, truncated, "
                        "info"
                    )
                obs[i] = self._fit(result[0])
                reward = result[1]
                rewards[i] = reward if type(reward) is float else _number(reward)
                terminated[i], truncated[i] = bool(result[2]), bool(result[3])
            except ENV_ERRORS as error:
                raise failed_call(self._name, env, "step", error) from error
        self._ended = terminated | truncated
        return VectorStep(obs, rewards, terminated, truncated, is_reset)

    def _reset(self, i: int, obs: Obs, seed: int | None = None) -> None:
        env = self._envs[i]
        try:
            result = env.reset(seed=seed)
            if not isinstance(result, tuple) or len(result) != 2:
                raise Unusable(f"returned {shown(result)}: return obs, info")
            obs[i] = self._fit(result[0])
        except ENV_ERRORS as error:
            raise failed_call(self._name, env, "reset", error) from error
        self._tick()

    def _empty(self) -> Obs:
        return np.empty((self.num_envs, *self.spec.obs_shape), self._dtype)

    def _fit(self, seen: Any) -> Obs:
        """The observation as an array of the space's shape, whose values its dtype can hold."""
        if self.spec.obs is not None:
            return to_row(self.spec.obs, seen)
        try:
            array = np.asarray(seen)
        except ValueError:
            array = np.asarray(None)
        shape = self.spec.obs_shape
        if array.shape != shape:
            if [n for n in array.shape if n != 1] != [n for n in shape if n != 1]:
                raise Unusable(
                    f"gave the observation {shown(seen)} of shape {array.shape}, and its "
                    f"observation_space has {shape}: make them agree"
                )
            array = array.reshape(shape)
        if array.dtype != self._dtype and self._dtype.kind in "iub":
            with np.errstate(all="ignore"):
                cast = array.astype(self._dtype)
            if not np.array_equal(cast, array):
                raise Unusable(
                    f"gave the observation {shown(seen)}, which the {self._dtype} of its "
                    "observation_space cannot hold: make them agree"
                )
            return cast
        return array

    def render(self) -> Any:
        return self._envs[0].render()

    def state(self) -> dict[str, Any]:
        return {"envs": [save_env(env) for env in self._envs], "ended": self._ended.tolist()}

    def load_state(self, saved: dict[str, Any]) -> None:
        for env, state in zip(self._envs, saved["envs"], strict=True):
            load_env(env, state)
        self._ended = np.array(saved["ended"], np.bool_)

    def close(self) -> None:
        close_all(self._name, self._envs)


class GymnasiumVector:
    """A vector environment of Gymnasium's interface whose autoreset is NEXT_STEP."""

    def __init__(
        self, name: str, envs: VectorEnv[Any, Any, Any], *, is_squashed: bool = False
    ) -> None:
        self._name = name
        self._envs = envs
        self.num_envs = envs.num_envs
        spaces = envs.single_observation_space, envs.single_action_space
        self.spec = spec_of(*spaces, is_squashed=is_squashed)
        if self.spec.obs is not None:
            raise StartError(
                f"--env {name} is a vector environment with observations {spaces[0]}, and aa2c needs a "
                "Box of them: give one that makes single environments."
            )
        self.metadata = dict(envs.metadata)
        self._ended = np.zeros(self.num_envs, np.bool_)

    def reset(self, seed: int) -> Obs:
        try:
            obs = np.asarray(self._envs.reset(seed=seed)[0], self.spec.obs_dtype)
        except ENV_ERRORS as error:
            raise failed_call(self._name, self._envs, "reset", error) from error
        self._ended = np.zeros(self.num_envs, np.bool_)
        return obs

    def step(self, actions: NDArray[Any]) -> VectorStep:
        try:
            taken = [to_space(self.spec.actions, row) for row in actions]
            space = self._envs.single_action_space
            empty: Any = create_empty_array(space, self.num_envs)
            batch = concatenate(space, taken, empty)
            seen, rewards, *ends, _ = self._envs.step(batch)
            obs, is_reset = np.asarray(seen, self.spec.obs_dtype), self._ended
            terminated, truncated = (np.asarray(end, np.bool_) & ~is_reset for end in ends)
            rewards = np.where(is_reset, 0, rewards).astype(np.float64)
        except ENV_ERRORS as error:
            raise failed_call(self._name, self._envs, "step", error) from error
        self._ended = terminated | truncated
        return VectorStep(obs, rewards, terminated, truncated, is_reset)

    def render(self) -> Any:
        pictures = self._envs.render()
        return None if pictures is None else pictures[0]

    def state(self) -> dict[str, Any]:
        return {"envs": save_env(self._envs), "ended": self._ended.tolist()}

    def load_state(self, saved: dict[str, Any]) -> None:
        load_env(self._envs, saved["envs"])
        self._ended = np.array(saved["ended"], np.bool_)

    def close(self) -> None:
        close_all(self._name, [self._envs])


def spec_of(obs: Any, actions: Any, *, is_squashed: bool = False) -> EnvSpec:
    """The spec of these spaces. Raises `StartError` for those that do not fit."""
    kind = action_spec(actions, is_squashed=is_squashed)
    if not isinstance(obs, gym.spaces.Box) or not obs.shape:
        rows = obs_spec(obs)
        layout = layout_of(rows)
        return EnvSpec(layout.shape, layout.dtype, kind, obs_scale=1.0, obs=rows)
    name = obs.dtype.newbyteorder("=").name
    dtype = name if name in DTYPES else "float32"
    return EnvSpec(obs.shape, dtype, kind, obs_scale=scale_of(obs))


def _number(reward: Any) -> float:
    """A reward, whatever kind of number or array of one it is."""
    try:
        return float(np.asarray(reward).reshape(()).item())
    except (TypeError, ValueError):
        raise Unusable(f"gave the reward {shown(reward)}: give one number") from None


def close_all(name: str, envs: Sequence[Any]) -> None:
    """Close environments, each in a thread that is left behind if it takes too long."""
    deadline = time.monotonic() + CLOSE_ALL_S
    for env in envs:
        thread = threading.Thread(target=_close, args=(name, env), name="close", daemon=True)
        thread.start()
        thread.join(max(0.0, min(CLOSE_S, deadline - time.monotonic())))
        if thread.is_alive():
            print(f"--env {name}: close() takes too long, and is left behind.", file=sys.stderr)


def _close(name: str, env: Any) -> None:
    try:
        env.close()
    except BaseException as error:  # nobody would hear of it in a thread
        print(f"--env {name}: close() raised {one_line(error)}", file=sys.stderr)


def is_next_step(metadata: Any) -> bool:
    """Whether metadata tell of the autoreset that aa2c can use."""
    return isinstance(metadata, dict) and metadata.get("autoreset_mode") == AutoresetMode.NEXT_STEP
