"""The whole state of Gymnasium environments as one JSON document, and back: for --deterministic.

Environments have no interface for it. What is taken are the attributes of the environment and of each
wrapper around it, where all of them are plain: numbers, texts, arrays, random number generators, and
lists and dictionaries of such. One with anything else (an emulator, a socket) cannot be saved.
"""

from __future__ import annotations

import enum
import random
import types
from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

_PLAIN = (bool, int, float, str, type(None))
_ENVS = (gym.Env, VectorEnv)
_CONSTANTS = (  # belong to the class or the id, and do not change while it runs
    gym.Space,
    EnvSpec,
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    enum.Enum,
)


class CannotBeSaved(Exception):
    """An environment holds what is not plain; says where."""


def save_env(env: Any) -> dict[str, Any]:
    """The state of an environment, a vector of them, or a wrapper. Raises `CannotBeSaved`."""
    return {
        name: _save(value, f"{type(env).__name__}.{name}")
        for name, value in vars(env).items()
        if name != "metadata" and not _is_constant(value)
    }


def _is_constant(value: Any) -> bool:
    if isinstance(value, list | tuple) and value:
        return all(_is_constant(item) for item in value)
    return isinstance(value, _CONSTANTS)


def _save(value: Any, where: str) -> Any:
    if isinstance(value, _ENVS):
        return {"env": save_env(value)}
    if isinstance(value, np.random.Generator):
        return {"rng": value.bit_generator.state}
    if isinstance(value, random.Random):
        return {"random": _save_python(value)}
    if isinstance(value, np.random.RandomState):
        return {"legacy_rng": _save_legacy(value)}
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        return {"array": [value.dtype.str, list(np.shape(value)), np.ravel(value).tolist()]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _save(item, f"{where}[{key}]") for key, item in value.items()}}
    if isinstance(value, list | tuple | deque):
        items = [_save(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return {type(value).__name__: items}
    if isinstance(value, _PLAIN):
        return value
    raise CannotBeSaved(f"{where} is a {type(value).__name__}")


def load_env(env: Any, saved: dict[str, Any]) -> None:
    """Put a state back into an environment of the same make, which has been reset."""
    for name, value in saved.items():
        setattr(env, name, _load(value, getattr(env, name, None)))


def _load(saved: Any, present: Any) -> Any:
    if not isinstance(saved, dict):
        return saved
    ((kind, value),) = saved.items()
    match kind:
        case "env":
            load_env(present, value)
            return present
        case "rng":
            present.bit_generator.state = value
            return present
        case "random":
            _load_python(present, value)
            return present
        case "legacy_rng":
            _load_legacy(present, value)
            return present
        case "array":
            dtype, shape, numbers = value
            array = np.array(numbers, dtype).reshape(shape)
            return array if shape or isinstance(present, np.ndarray) else array[()]
        case "dict":
            known = present if isinstance(present, dict) else {}
            return {key: _load(item, known.get(key)) for key, item in value.items()}
    known_items = list(present) if isinstance(present, list | tuple | deque) else []
    known_items += [None] * (len(value) - len(known_items))
    items = [_load(item, known) for item, known in zip(value, known_items, strict=False)]
    return {"list": list, "tuple": tuple, "deque": deque}[kind](items)


def save_random() -> dict[str, Any]:
    """The state of the global generators of Python and NumPy, from which environments may draw."""
    legacy: np.random.RandomState = np.random.mtrand._rand
    return {"python": _save_python(random), "numpy": _save_legacy(legacy)}


def load_random(saved: dict[str, Any]) -> None:
    """Resume from what `save_random` gave."""
    _load_python(random, saved["python"])
    _load_legacy(np.random.mtrand._rand, saved["numpy"])


def _save_python(generator: Any) -> list[Any]:
    version, words, gauss = generator.getstate()
    return [version, list(words), gauss]


def _load_python(generator: Any, saved: list[Any]) -> None:
    version, words, gauss = saved
    generator.setstate((version, tuple(words), gauss))


def _save_legacy(generator: np.random.RandomState) -> list[Any]:
    name, words, *rest = generator.get_state(legacy=True)
    return [str(name), np.asarray(words).tolist(), *rest]


def _load_legacy(generator: np.random.RandomState, saved: list[Any]) -> None:
    name, words, *rest = saved
    generator.set_state((name, np.array(words, np.uint32), *rest))
