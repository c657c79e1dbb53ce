"""B plain environments side by side, behind the interface of all vectors of environments.

An environment is third-party code: what it returns is taken as far as it can be understood,
and what it raises becomes one sentence. This is where the autoreset happens: an environment that has
ended ignores its next action and is reset instead (Gymnasium's NEXT_STEP). Vector environments with
an autoreset of their own are in `aa2c.envs.own_vector`.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from aa2c.envs.actions import action_spec, to_space
from aa2c.envs.failure import ENV_ERRORS, Unusable, failed_call, one_line, shown
from aa2c.envs.masks import Mask, has_mask
from aa2c.envs.observations import exactly_as, is_like, layout_of, obs_spec, scale_of, to_row
from aa2c.envs.spec import EnvSpec
from aa2c.envs.state import load_env, save_env
from aa2c.errors import StartError

CLOSE_S = 2.0  # for one environment
CLOSE_ALL_S = 5.0
DTYPES = ("uint8", "int8", "bool", "int32", "int64", "float32", "float64")  # others: float32

Obs = NDArray[Any]


class VectorStep(NamedTuple):
    """One step of B environments, all [B, …]; rewards are raw float64.

    `final_obs` [n, …] are the last observations of the n truncated episodes, where `obs` shows the
    next ones already.
    """

    obs: Obs
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    is_reset: NDArray[np.bool_]
    final_obs: Obs | None = None


class Vector(Protocol):
    """B environments of Gymnasium that step together, with a policy's actions [B, …]."""

    num_envs: int
    spec: EnvSpec
    metadata: dict[str, Any]

    @property
    def mask(self) -> Mask | None:
        """The actions that are legal now [B, A]; None if the environments do not tell."""

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
        flag: str,
        make: Callable[[], Any],
        num_envs: int,
        tick: Callable[[], None],
        *,
        is_squashed: bool = False,
    ) -> None:
        """Make the environments; `tick` is called after each, and after each reset."""
        self._flag = flag
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
            replace(
                spec_of(env.observation_space, env.action_space, is_squashed=is_squashed),
                has_mask=has_mask(env),
            )
            for env in self._envs
        ]
        return common_spec(self._flag, specs)

    @property
    def mask(self) -> Mask | None:
        return np.stack([env.mask for env in self._envs]) if self.spec.has_mask else None

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
                obs[i] = fit_obs(self.spec, result[0])
                reward = result[1]
                rewards[i] = reward if type(reward) is float else _number(reward)
                terminated[i], truncated[i] = bool(result[2]), bool(result[3])
            except ENV_ERRORS as error:
                raise failed_call(self._flag, env, "step", error) from error
        self._ended = terminated | truncated
        return VectorStep(obs, rewards, terminated, truncated, is_reset)

    def _reset(self, i: int, obs: Obs, seed: int | None = None) -> None:
        env = self._envs[i]
        try:
            result = env.reset(seed=seed)
            if not isinstance(result, tuple) or len(result) != 2:
                raise Unusable(f"returned {shown(result)}: return obs, info")
            obs[i] = fit_obs(self.spec, result[0])
        except ENV_ERRORS as error:
            raise failed_call(self._flag, env, "reset", error) from error
        self._tick()

    def _empty(self) -> Obs:
        return np.empty((self.num_envs, *self.spec.obs_shape), self._dtype)

    def render(self) -> Any:
        return self._envs[0].render()

    def state(self) -> dict[str, Any]:
        return {"envs": [save_env(env) for env in self._envs], "ended": self._ended.tolist()}

    def load_state(self, saved: dict[str, Any]) -> None:
        for env, state in zip(self._envs, saved["envs"], strict=True):
            load_env(env, state)
        self._ended = np.array(saved["ended"], np.bool_)

    def close(self) -> None:
        close_all(self._flag, self._envs)


def common_spec(flag: str, specs: Sequence[EnvSpec]) -> EnvSpec:
    """The one that they all are. Raises `StartError` if they differ."""
    for spec in specs:
        if spec != specs[0]:
            raise StartError(
                f"{flag} makes environments of different spaces, {specs[0]} and {spec}: all "
                "environments of a run need the same."
            )
    return specs[0]


def spec_of(obs: Any, actions: Any, *, is_squashed: bool = False) -> EnvSpec:
    """The spec of these spaces. Raises `StartError` for those that do not fit."""
    kind = action_spec(actions, is_squashed=is_squashed)
    if not isinstance(obs, gym.spaces.Box) or not math.prod(obs.shape) or not obs.shape:
        rows = obs_spec(obs)
        layout = layout_of(rows)
        if layout.shape == (0,):
            raise StartError(f"--env has observations {obs}, in which there is nothing to see.")
        return EnvSpec(layout.shape, layout.dtype, kind, obs_scale=1.0, obs=rows)
    name = obs.dtype.newbyteorder("=").name
    dtype = name if name in DTYPES else "float32"
    return EnvSpec(obs.shape, dtype, kind, obs_scale=scale_of(obs))


def fit_obs(spec: EnvSpec, seen: Any) -> Obs:
    """An observation as an array of the spec's shape, whose values its dtype can hold.

    Raises `Unusable` for one that is not of its space.
    """
    if spec.obs is not None:
        return to_row(spec.obs, seen)
    try:
        array = np.asarray(seen)
    except ValueError:
        array = np.asarray(None)
    shape = spec.obs_shape
    if array.shape != shape:
        if not is_like(array.shape, shape):
            raise Unusable(
                f"gave the observation {shown(seen)} of shape {array.shape}, and its "
                f"observation_space has {shape}: make them agree"
            )
        array = array.reshape(shape)
    return held_in(array, spec.obs_dtype)


def held_in(seen: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Observations whose values an integer dtype can hold, in it. Raises `Unusable`."""
    wanted = np.dtype(dtype)
    if wanted.kind not in "iub":
        return seen
    cast = exactly_as(seen, wanted)
    if cast is None:
        raise Unusable(
            f"gave the observation {shown(seen)}, which the {dtype} of its "
            "observation_space cannot hold: make them agree"
        )
    return cast


def _number(reward: Any) -> float:
    """A reward, whatever kind of number or array of one it is."""
    try:
        return float(np.asarray(reward).reshape(()).item())
    except (TypeError, ValueError):
        raise Unusable(f"gave the reward {shown(reward)}: give one number") from None


def close_all(flag: str, envs: Sequence[Any]) -> None:
    """Close environments, each in a thread that is left behind if it takes too long."""
    deadline = time.monotonic() + CLOSE_ALL_S
    for env in envs:
        thread = threading.Thread(target=_close, args=(flag, env), name="close", daemon=True)
        thread.start()
        thread.join(max(0.0, min(CLOSE_S, deadline - time.monotonic())))
        if thread.is_alive():
            print(f"{flag}: close() takes too long, and is left behind.", file=sys.stderr)


def _close(flag: str, env: Any) -> None:
    try:
        env.close()
    except BaseException as error:  # nobody would hear of it in a thread
        print(f"{flag}: close() raised {one_line(error)}", file=sys.stderr)
