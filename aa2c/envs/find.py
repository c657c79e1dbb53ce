"""What --env and --vector mean, and the environments as they ask for them: keyword arguments, wrappers."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import secrets
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ale_py
import gymnasium as gym
from ale_py.registration import rom_id_to_name
from gymnasium.envs.registration import EnvSpec as Registered
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode

from aa2c.config.config import Config, flag
from aa2c.config.factory import load_code
from aa2c.config.values import nearest
from aa2c.envs.failure import shown
from aa2c.envs.foreign import as_gymnasium_s
from aa2c.envs.masks import masked, masked_vector
from aa2c.envs.own_vector import GymnasiumVector, autoreset_mode
from aa2c.envs.plain import PlainVector, Vector
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


def registered_as(env: str) -> Registered | None:
    """What Gymnasium knows of an id, without importing the module that may register it."""
    gym.register_envs(ale_py)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return gym.spec(env.rpartition(":")[2])
        except gym.error.Error:
            return None


def is_atari(env: str) -> bool:
    """Whether the id names an Atari game."""
    registered = registered_as(env)
    return registered is not None and _is_plain_atari(registered)


def plays_atari(config: Config) -> bool:
    """Whether a run plays an Atari game: with wrappers it is an environment like any other."""
    return not (config.vector or config.wrapper) and is_atari(config.env)


def _is_plain_atari(registered: Registered) -> bool:
    """With wrappers of its own around it, it is an environment like any other."""
    return registered.entry_point == ATARI_ENTRY_POINT and not registered.additional_wrappers


def find_env(config: Config) -> tuple[str, AtariGameOptions | None]:
    """The Gymnasium id that --env means, after importing its module, and its game if Atari.

    With wrappers a game is an environment like any other. No id is needed with --vector: then it is
    empty. Raises `StartError` if a game is asked for what it cannot be given.
    """
    if config.vector:
        return "", None
    gym.register_envs(ale_py)
    module, _, env_id = known_to_gymnasium(config.env).rpartition(":")
    if module:
        importlib.import_module(module)
    try:
        registered = gym.spec(env_id)
    except gym.error.UnregisteredEnv as error:
        near = _nearest_id(env_id) or "."
        more = "" if module else f" If a package registers it, name that first: PACKAGE:{env_id}."
        raise StartError(
            f"{config.env_flag} cannot be made: Gymnasium has no such id{near}{more}"
        ) from error
    if config.wrapper or not _is_plain_atari(registered):
        return env_id, None
    if config.action_mask != "none":
        raise StartError(
            f"{config.env_flag} has no action masks, as no Atari game has: use --action-mask none."
        )
    return env_id, _atari_options(config, env_id, registered)


def _nearest_id(env_id: str) -> str:
    """What was meant; of an Atari game most often its id without ALE/."""
    atari = f"ALE/{env_id}"
    known = [atari] if atari in gym.registry else gym.registry
    return nearest(env_id, known, cutoff=0.6)


def _atari_options(config: Config, env_id: str, registered: Registered) -> AtariGameOptions:
    """Of ale_py's own ids frame skip and sticky actions are the flags'; of others they must agree."""
    asked: dict[str, Any] = dict(registered.kwargs)
    rom = asked.pop("game")
    options = ({} if env_id in _standard_ids(rom) else asked) | config.env_kwargs
    for name, value in options.items():
        if name in _FLAGS and value != getattr(config, _FLAGS[name]):
            raise StartError(
                f"{config.env_flags} asks for {name} {value}, and {flag(_FLAGS[name])} is "
                f"{getattr(config, _FLAGS[name])}: make them agree."
            )
    refused = {
        name: value
        for name, value in options.items()
        if name not in _FLAGS and name not in _USED and value not in _REFUSED.get(name, ())
    }
    if refused:
        raise StartError(
            f"{config.env_flags} asks for {_listed(options)}, and ale_py's vector environment cannot give "
            f"{_listed(refused)}: do without, or name a --wrapper, with which a game is an environment "
            "like any other."
        )
    frames = [MAX_FRAMES_PER_GAME, options.get("max_num_frames_per_episode")]
    frames.append(registered.max_episode_steps and registered.max_episode_steps * config.frame_skip)
    return AtariGameOptions(
        rom,
        full_action_space=bool(options.get("full_action_space", False)),
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
    seed: int | None = None,
    **options: Any,
) -> Vector:
    """The environments that are asked for: single ones, or a vector environment as it is.

    An id's own vector environment is taken if it resets at NEXT_STEP and nothing else is asked for: it
    may not know the keyword arguments. Makes each exactly once: nothing is made just to be asked. `seed`
    is for a function of --vector that takes one; without, there is a new one each time.
    """
    is_squashed = config.action_bounds == "tanh"
    if not config.vector and _makes_single(config, gym.spec(env_id)):
        return PlainVector(
            config.env_flag,
            lambda: masked(
                make_one(config, env_id, **options), config.env_flag, config.action_mask
            ),
            num_envs,
            tick,
            is_squashed=is_squashed,
        )
    envs: Any
    if config.vector:
        envs = _users_vector(config, num_envs, seed)
    else:
        how = {"vectorization_mode": "vector_entry_point", **config.env_kwargs, **options}
        envs = gym.make_vec(env_id, num_envs, **how)
    tick()
    shows_next = autoreset_mode(getattr(envs, "metadata", None)) == AutoresetMode.SAME_STEP
    envs = masked_vector(envs, config.env_flag, config.action_mask, shows_next=shows_next)
    return GymnasiumVector(config.env_flag, envs, is_squashed=is_squashed)


def _makes_single(config: Config, registered: Registered) -> bool:
    own = registered.vector_entry_point
    if registered.entry_point is None:
        if config.wrapper:
            raise StartError(
                f"{config.env_flag} makes vector environments only: --wrapper wraps single ones."
            )
        return False
    asks = config.wrapper or config.env_kwargs or registered.additional_wrappers
    return bool(asks or own is None or not _is_next_step(_metadata_of(own)))


def make_one(config: Config, env_id: str, **options: Any) -> Any:
    """One environment, wrapped as --wrapper says. Raises `StartError` for a wrapper that does not."""
    # Without Gymnasium's checker, which is strict about infos.
    kwargs = {"disable_env_checker": True, **config.env_kwargs, **options}
    env: Any = gym.make(_makeable(gym.spec(env_id)), **kwargs)
    for name in config.wrapper:
        wrapped = _wrapper(name, env)(env)
        if not callable(getattr(wrapped, "step", None)):
            env.close()
            raise StartError(f"--wrapper {name} returned {shown(wrapped)}: return an environment.")
        env = wrapped
    return env


def _makeable(registered: Registered) -> Registered:
    """The same, whatever is innermost in the environments of a function."""
    entry_point = registered.entry_point
    make = entry_point if callable(entry_point) else load_env_creator(str(entry_point))
    if getattr(make, "unwrapped", None) is gym.Env.unwrapped:
        return registered
    return dataclasses.replace(
        registered, entry_point=lambda **kwargs: as_gymnasium_s(make(**kwargs))
    )


def _wrapper(name: str, env: Any) -> Callable[[Any], Any]:
    """What --wrapper names. Raises `StartError` for what the environment alone does not suffice."""
    wrapper: Callable[[Any], Any] = load_code("--wrapper", name)
    with contextlib.suppress(ValueError):  # it is written in C
        try:
            inspect.signature(wrapper).bind(env)
        except TypeError as error:
            env.close()
            raise StartError(
                f"--wrapper {name} is called with the environment alone: {error}. Name a function of "
                "your own, as package.module:function, that calls it with all it needs."
            ) from None
    return wrapper


def _users_vector(config: Config, num_envs: int, seed: int | None) -> Any:
    make = load_code("--vector", config.vector)
    kwargs: dict[str, Any] = dict(config.env_kwargs)
    if "seed" in inspect.signature(make).parameters:
        kwargs.setdefault("seed", secrets.randbits(31) if seed is None else seed)
    envs = make(num_envs, **kwargs)
    asked = ("num_envs", "single_observation_space", "single_action_space", "step", "reset")
    if missing := [name for name in asked if not hasattr(envs, name)]:
        raise StartError(
            f"--vector {config.vector} returned {shown(envs)} without {', '.join(missing)}: return a "
            "gymnasium.vector.VectorEnv."
        )
    if envs.num_envs != num_envs:
        raise StartError(
            f"--vector {config.vector} made {envs.num_envs} environments, and was asked for {num_envs}."
        )
    return envs


def _is_next_step(metadata: Any) -> bool:
    return autoreset_mode(metadata) == AutoresetMode.NEXT_STEP


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
