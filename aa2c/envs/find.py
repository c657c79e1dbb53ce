"""What --env means: a Gymnasium id, with its module imported, and an Atari game's own options."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ale_py
import gymnasium as gym
from ale_py.registration import rom_id_to_name
from gymnasium.envs.registration import EnvSpec as Registered
from gymnasium.envs.registration import load_env_creator

from aa2c.config.config import Config, flag
from aa2c.envs.masks import masked, masked_vector
from aa2c.envs.plain import GymnasiumVector, PlainVector, Vector, is_next_step
from aa2c.envs.registered import known_to_gymnasium
from aa2c.errors import StartError

MAX_FRAMES_PER_GAME = 108_000
ATARI_ENTRY_POINT = "ale_py.env:AtariEnv"

# What ale_py's vector environment cannot do, and the values that ask for nothing.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "mode": (None,),
    "difficulty": (None, 0),
    "obs_type": ("rgb", "grayscale"),
    "continuous": (False,),
    "sound_obs": (False,),
}
_FLAGS = {"frameskip": "frame_skip", "repeat_action_probability": "sticky_action_prob"}
_USED = ("full_action_space", "max_num_frames_per_episode", "render_mode")


def no_tick() -> None:
    """No heartbeat is needed."""


@dataclass(frozen=True)
class AtariGameOptions:
    """An Atari game: its ROM, and what its id asks for beyond the standard preprocessing."""

    rom: str
    full_action_space: bool = False
    max_frames: int = MAX_FRAMES_PER_GAME


def is_atari(env: str) -> bool:
    """Whether the id names an Atari game."""
    gym.register_envs(ale_py)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return _is_plain_atari(gym.spec(env.rpartition(":")[2]))
        except gym.error.Error:
            return False


def _is_plain_atari(registered: Registered) -> bool:
    """With wrappers of its own around it, it is an environment like any other."""
    return registered.entry_point == ATARI_ENTRY_POINT and not registered.additional_wrappers


def find_env(config: Config) -> tuple[str, AtariGameOptions | None]:
    """The Gymnasium id that --env means, after importing its module, and its game if Atari.

    Raises `StartError` if the id asks for what its game cannot be given.
    """
    gym.register_envs(ale_py)
    module, _, env_id = known_to_gymnasium(config.env).rpartition(":")
    if module:
        importlib.import_module(module)
    registered = gym.spec(env_id)
    if not _is_plain_atari(registered):
        return env_id, None
    if config.action_mask != "none":
        raise StartError(
            f"--env {config.env} has no action masks, as no Atari game has: use --action-mask none."
        )
    return env_id, _atari_options(config, env_id, registered)


def _atari_options(config: Config, env_id: str, registered: Registered) -> AtariGameOptions:
    """Of ale_py's own ids frame skip and sticky actions are the flags'; of others they must agree."""
    asked: Mapping[str, Any] = registered.kwargs
    rom = asked["game"]
    if env_id in _standard_ids(rom):
        return AtariGameOptions(rom)
    options = {name: value for name, value in asked.items() if name != "game"}
    for name, value in options.items():
        if name in _FLAGS and value != getattr(config, _FLAGS[name]):
            raise StartError(
                f"--env {config.env} asks for {name} {value}, and {flag(_FLAGS[name])} is "
                f"{getattr(config, _FLAGS[name])}: make them agree."
            )
    refused = {
        name: value
        for name, value in options.items()
        if name not in _FLAGS and name not in _USED and value not in _REFUSED.get(name, ())
    }
    if refused:
        raise StartError(
            f"--env {config.env} asks for {_listed(options)}, and Atari games cannot be given "
            f"{_listed(refused)} here: register the id without."
        )
    frames = [MAX_FRAMES_PER_GAME, asked.get("max_num_frames_per_episode")]
    frames.append(registered.max_episode_steps and registered.max_episode_steps * config.frame_skip)
    return AtariGameOptions(
        rom,
        full_action_space=bool(asked.get("full_action_space", False)),
        max_frames=min(number for number in frames if number),
    )


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


def _standard_ids(rom: str) -> set[str]:
    name = rom_id_to_name(rom)
    old = {f"{name}{kind}-{v}" for kind in ("", "NoFrameskip") for v in ("v0", "v4")}
    return old | {f"ALE/{name}-v5"}


def make_gymnasium_vector(
    config: Config,
    env_id: str,
    num_envs: int,
    tick: Callable[[], None] = no_tick,
    **options: Any,
) -> Vector:
    """The environments of the id: its own vector environment where aa2c can use its autoreset.

    Makes each exactly once: nothing is made just to be asked.
    """
    name, is_squashed = config.env, config.action_bounds == "tanh"
    registered = gym.spec(env_id)
    own = registered.vector_entry_point
    has_plain = registered.entry_point is not None
    if own is None or (
        has_plain and (registered.additional_wrappers or not is_next_step(_metadata_of(own)))
    ):
        # Without Gymnasium's checker, which is strict about infos.
        return PlainVector(
            name,
            lambda: masked(
                gym.make(env_id, disable_env_checker=True, **options), name, config.action_mask
            ),
            num_envs,
            tick,
            is_squashed=is_squashed,
        )
    envs = gym.make_vec(env_id, num_envs, vectorization_mode="vector_entry_point", **options)
    tick()
    if not is_next_step(envs.metadata):
        raise StartError(f"--env {name} is a vector environment without autoreset at NEXT_STEP.")
    envs = masked_vector(envs, name, config.action_mask)
    return GymnasiumVector(name, envs, is_squashed=is_squashed)


def has_pictures(env_id: str) -> bool:
    """Whether the environment's class says that it draws itself, or says nothing of it."""
    entry_point = gym.spec(env_id).entry_point or gym.spec(env_id).vector_entry_point
    metadata = _metadata_of(entry_point)
    return metadata is None or "rgb_array" in (metadata.get("render_modes") or ())


def _metadata_of(entry_point: Any) -> dict[str, Any] | None:
    """Of the class that makes an environment; None of a function, which tells nothing."""
    creator = entry_point if callable(entry_point) else load_env_creator(entry_point)
    metadata = getattr(creator, "metadata", None)
    return metadata if isinstance(metadata, dict) else None
