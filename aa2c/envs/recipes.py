"""Which recipe a task gets, from what is known of its environment before one is made.

Nothing is imported for it but Gymnasium, which knows where each of its ids comes from; for the default
environment not even that.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

from aa2c.config.config import Config
from aa2c.config.factory import Factory, Maker
from aa2c.config.toml import load_config, preset_names
from aa2c.errors import NoRecipeWarning

KINDS = ("atari", "continuous", "grid", "memory", "vector")

_CONTINUOUS = (
    "gymnasium.envs.mujoco.",
    "gymnasium.envs.box2d.bipedal_walker:",
    "gymnasium.envs.box2d.car_racing:",
    "gymnasium.envs.classic_control.pendulum:",
    "gymnasium.envs.classic_control.continuous_mountain_car:",
    "gymnasium.envs.phys2d.pendulum:",
    "gymnasium_robotics.",
)
_GRIDS = ("minigrid.",)  # BabyAI's are among them
# They belong to the task or to the machine: changing them is not tuning.
_NOT_TUNED = ("mode", "env", "memory", "total_env_steps", "workers", "num_envs", "update_threads")


def recipe(env: Maker = Config.env, *, mode: str = "grad", **options: Any) -> Config:
    """The configuration that `serve` would train this environment with; `options` override it.

    Raises `ConfigError`.
    """
    known = {name: options[name] for name in ("env_kwargs", "memory") if name in options}
    asked = Config(env=env, mode=mode, **known)
    preset = preset_for(mode, asked.env, asked.env_kwargs, asked.memory)
    return load_config(preset=preset, flags={"env": env, "mode": mode} | options)


def preset_for(mode: str, env: str, env_kwargs: Mapping[str, Any], memory: str) -> str:
    """The mode's recipe for the kind of task, or else for all others; "none" if it has none."""
    presets = preset_names()
    kinds = [_kind_of(env, env_kwargs), *(["memory"] if memory != "none" else []), "vector"]
    return next((name for kind in kinds if (name := f"{mode}/{kind}") in presets), "none")


def _kind_of(env: str, env_kwargs: Mapping[str, Any]) -> str:
    """A kind of its own, if the task's origin or its keyword arguments tell of one."""
    kwargs: dict[str, Any] = {}
    if isinstance(env, Factory):
        origin = f"{getattr(env.load(), '__module__', '')}:"
    elif env == Config().env:  # do not make the default case wait for an import
        origin = ""
    else:
        from aa2c.envs.find import is_atari, registered_as

        if is_atari(env):
            return "atari"
        origin = env.replace(":", ".:")  # package:id, of a package that was not imported yet
        if registered := registered_as(env):
            origin, kwargs = _origin(registered.entry_point), registered.kwargs
    if {**kwargs, **env_kwargs}.get("continuous", origin.startswith(_CONTINUOUS)):
        return "continuous"
    return "grid" if origin.startswith(_GRIDS) else ""


def _origin(entry_point: Any) -> str:
    """Module and name, as Gymnasium writes an entry point; of a class or function as well."""
    if isinstance(entry_point, str):
        return entry_point
    return f"{getattr(entry_point, '__module__', '')}:{getattr(entry_point, '__qualname__', '')}"


def warn_without_recipe(config: Config) -> None:
    """Warn once of bare defaults, where this task has a recipe of its own and nothing is tuned."""
    preset = preset_for(config.mode, config.env, config.env_kwargs, config.memory)
    if preset == "none":
        return
    tuned = load_config(preset=preset)
    sets = {
        item.name: item.default
        for item in dataclasses.fields(Config)
        if item.name not in _NOT_TUNED and getattr(tuned, item.name) != item.default
    }
    if all(getattr(config, name) == default for name, default in sets.items()):
        warnings.warn(
            f"{config.env_name} is trained with Config's bare defaults, which are tuned for nothing: "
            f"aa2c.recipe(env, mode={config.mode!r}) starts from the recipe {preset}.",
            NoRecipeWarning,
            stacklevel=3,
        )
