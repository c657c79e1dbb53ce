"""Action masks: which actions are legal now, as far as an environment tells.

A mask is one row of booleans with a column for each action of a Discrete; of a MultiDiscrete, a Tuple
or a Dict of these, all their columns side by side. `--action-mask` names where it is looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray

from aa2c.envs.actions import action_spec, split_mask
from aa2c.envs.failure import Unusable, shown
from aa2c.envs.spec import ACTION_MASK, ActionSpec, Joint
from aa2c.errors import StartError

METHOD = "action_masks"
_PLACES = {
    "info": f'info["{ACTION_MASK}"]',
    "obs": f'the observation\'s "{ACTION_MASK}"',
}

Mask = NDArray[np.bool_]
_See = Callable[[Any], Any]
_Reader = Callable[[Any, Any], Any]  # of observation and info, what the environment says


def to_mask(spec: ActionSpec, given: Any) -> Mask:
    """A mask [A] as `policy.step` takes it, of one row, or of a tuple or dict with a mask of each part.

    Raises `Unusable` for what is none, and where no action is legal.
    """
    if isinstance(spec, Joint) and (own := of_parts(spec, given)):
        return np.concatenate([to_mask(*pair) for pair in zip(spec.parts, own, strict=True)])
    try:
        numbers = np.asarray(given)
    except ValueError:
        numbers = np.asarray(None)
    if numbers.shape != (spec.num_mask,):
        raise Unusable(
            f"gave the action mask {shown(given)} of shape {numbers.shape}, and its action_space needs "
            f"{(spec.num_mask,)}: make them agree"
        )
    if numbers.dtype.kind not in "biuf" or not ((numbers == 0) | (numbers == 1)).all():
        raise Unusable(
            f"gave the action mask {shown(given)}: give 1 for each legal action and 0 for the others"
        )
    mask: Mask = numbers.astype(np.bool_)
    _require_legal(spec, mask)
    return mask


def of_parts(spec: Joint, given: Any) -> list[Any]:
    """The masks of its parts, if there is one of each."""
    if isinstance(given, Mapping) and spec.names and set(given) == set(spec.names):
        return [given[name] for name in spec.names]
    if not isinstance(given, tuple | list | np.ndarray) or not _has_several(given):
        return []
    own = list(given)
    for size in spec.shape[:-1]:  # nested, as MultiDiscrete.sample takes them
        if len(own) == size and all(map(_has_several, own)):
            own = [mask for row in own for mask in row]
    return own if len(own) == len(spec.parts) else []


def _has_several(given: Any) -> bool:
    """Whether these are masks, and not one."""
    if isinstance(given, np.ndarray) and given.dtype != object:
        return given.ndim > 1
    return isinstance(given, tuple | list | np.ndarray) and not all(map(_is_number, given))


def _is_number(given: Any) -> bool:
    return not isinstance(given, Mapping | tuple | list) and np.ndim(given) == 0


def _require_legal(spec: ActionSpec, mask: Mask) -> None:
    if isinstance(spec, Joint):
        for part, own in zip(spec.parts, split_mask(spec, mask), strict=True):
            _require_legal(part, own)
    elif not mask.any():
        raise Unusable(
            f"gave the action mask {shown(mask.astype(int).tolist())}, which leaves no legal action: "
            "end the episode, or let one action be legal"
        )


def without_mask(obs: Any) -> Any:
    """What the network sees of a Dict observation: all but its mask, and a single part by itself."""
    if not isinstance(obs, Mapping):
        return obs
    rest = {name: part for name, part in obs.items() if name != ACTION_MASK}
    return next(iter(rest.values())) if len(rest) == 1 else rest


def _as_it_is(obs: Any) -> Any:
    return obs


def _space_without_mask(flag: str, space: gym.Space[Any]) -> gym.Space[Any]:
    if not isinstance(space, spaces.Dict) or ACTION_MASK not in space.spaces or len(space) < 2:
        raise StartError(
            f'--action-mask obs needs a Dict with "{ACTION_MASK}" and something to see, and {flag} '
            f"has observations {space}: see --action-mask info and method."
        )
    rest = without_mask(space.spaces)
    return spaces.Dict(rest) if isinstance(rest, dict) else rest


def _maskable(flag: str, space: gym.Space[Any]) -> ActionSpec:
    spec = action_spec(space)
    if not spec.num_mask:
        raise StartError(
            f"--action-mask needs Discrete or MultiDiscrete actions, and {flag} has {space}: "
            "use --action-mask none."
        )
    return spec


def told_in(source: str, holder: Any) -> Any:
    """The mask in an info or an observation. Raises `Unusable` where there is none."""
    if not isinstance(holder, Mapping) or ACTION_MASK not in holder:
        raise Unusable(
            f"gave no {_PLACES[source]}: give it every time, or see --action-mask for other places"
        )
    return holder[ACTION_MASK]


def _reader(env: Any, flag: str, source: str) -> _Reader:
    """What gives the mask, as the environment tells it. Raises `StartError` if it cannot.

    A function, not an object: an environment's state is saved without it.
    """
    if source == "obs":
        return lambda obs, info: told_in(source, obs)
    if source == "info":
        return lambda obs, info: told_in(source, info)
    at = env
    while not hasattr(at, METHOD):
        if (at := getattr(at, "env", None)) is None:
            if isinstance(env, VectorEnv) and hasattr(env, "call"):  # those of Gymnasium ask each
                return lambda obs, info: env.call(METHOD)
            raise StartError(
                f"--action-mask method needs a method {METHOD}() of {flag}, which has none: give "
                "it one, or see --action-mask info and obs."
            )
    return lambda obs, info: getattr(at, METHOD)()


class MaskedEnv(gym.Wrapper[Any, Any, Any, Any]):
    """An environment, and in `mask` [A] which actions are legal now.

    After an episode's last step all are: the next action is ignored.
    """

    def __init__(self, env: Any, flag: str, source: str) -> None:
        super().__init__(env)
        spec, read = _maskable(flag, env.action_space), _reader(env, flag, source)
        self._read: Callable[[Any, Any], Mask] = lambda obs, info: to_mask(spec, read(obs, info))
        self._see: _See = _as_it_is
        if source == "obs":
            self._see = without_mask
            self.observation_space = _space_without_mask(flag, env.observation_space)
        self.mask = np.ones(spec.num_mask, np.bool_)

    def reset(self, **options: Any) -> Any:
        result = self.env.reset(**options)
        if not isinstance(result, tuple) or len(result) != 2:
            return result  # who asked says what is wrong with it
        obs, info = result
        self.mask = self._read(obs, info)
        return self._see(obs), info

    def step(self, action: Any) -> Any:
        result: Any = self.env.step(action)
        if len(result) != 5:
            return result
        obs, reward, terminated, truncated, info = result
        is_over = bool(terminated) or bool(truncated)
        self.mask = np.ones_like(self.mask) if is_over else self._read(obs, info)
        return self._see(obs), reward, terminated, truncated, info


class MaskedVectorEnv(VectorWrapper[Any, Any, Any, Any, Any]):
    """A vector environment, and `mask` [B, A] as `MaskedEnv` has it.

    With `shows_next` the step that ends an episode shows the next one's start, and so does its mask.
    """

    def __init__(
        self, env: VectorEnv[Any, Any, Any], flag: str, source: str, *, shows_next: bool
    ) -> None:
        super().__init__(env)
        self._shows_next = shows_next
        spec, read = _maskable(flag, env.single_action_space), _reader(env, flag, source)

        def read_masks(obs: Any, info: Any, asked: Mask, made: Mask) -> Mask:
            if asked.any():
                rows, is_told = read(obs, info), np.ones(env.num_envs, np.bool_)
                if source == "info":  # Gymnasium's word for the environments that told it
                    is_told = info.get(f"_{ACTION_MASK}", is_told)
                for i in np.flatnonzero(asked):
                    told = _row(spec, rows, int(i)) if is_told[i] else told_in(source, None)
                    made[i] = to_mask(spec, told)
            return made

        self._read = read_masks
        self.see: _See = _as_it_is
        if source == "obs":
            self.see = without_mask
            self.single_observation_space = _space_without_mask(flag, env.single_observation_space)
        self.mask = np.ones((env.num_envs, spec.num_mask), np.bool_)

    def reset(self, **options: Any) -> Any:
        everyone = np.ones(self.num_envs, np.bool_)
        asked = (options.get("options") or {}).get("reset_mask", everyone)
        obs, info = self.env.reset(**options)
        self.mask = self._read(obs, info, asked, self.mask.copy())
        return self.see(obs), info

    def step(self, actions: Any) -> Any:
        obs, rewards, terminated, truncated, info = self.env.step(actions)
        is_over = np.asarray(terminated, np.bool_) | np.asarray(truncated, np.bool_)
        asked = np.ones_like(is_over) if self._shows_next else ~is_over
        self.mask = self._read(obs, info, asked, np.ones_like(self.mask))
        return self.see(obs), rewards, terminated, truncated, info


def _row(spec: ActionSpec, rows: Any, i: int) -> Any:
    """One environment's; Gymnasium makes a mapping of columns of mappings."""
    if isinstance(rows, Mapping) and isinstance(spec, Joint) and set(spec.names) <= set(rows):
        pairs = zip(spec.names, spec.parts, strict=True)
        return {name: _row(part, rows[name], i) for name, part in pairs}
    return rows[i]


def masked(env: Any, flag: str, source: str) -> Any:
    """The environment with a mask from this source, if it is not none. Raises `StartError`."""
    return env if source == "none" else MaskedEnv(env, flag, source)


def masked_vector(
    env: VectorEnv[Any, Any, Any], flag: str, source: str, *, shows_next: bool
) -> Any:
    """The vector environment with masks from this source, likewise."""
    if source == "none":
        return env
    return MaskedVectorEnv(env, flag, source, shows_next=shows_next)


def has_mask(env: Any) -> bool:
    """Whether its actions are masked."""
    return isinstance(env, MaskedEnv | MaskedVectorEnv)
