"""Atari games under ids of a user's own, with options; importing this registers them."""

from __future__ import annotations

import gymnasium as gym
from gymnasium.envs.registration import WrapperSpec


def _register(name: str, **options: object) -> None:
    kwargs = {"game": "pong", **options}
    gym.register(f"{name}-v0", "ale_py.env:AtariEnv", kwargs=kwargs)


_register("ShortBreakout", game="breakout", max_num_frames_per_episode=2000)
_register("AllButtons", full_action_space=True, difficulty=0, frameskip=4)
_register("Sticky", repeat_action_probability=0.25)
_register("EachFrame", frameskip=1)
_register("OtherMode", mode=1)
_register("Harder", full_action_space=True, difficulty=1)
_register("Bytes", obs_type="ram")
_register("Joystick", continuous=True)
gym.register("Limited-v0", "ale_py.env:AtariEnv", max_episode_steps=10, kwargs={"game": "pong"})
gym.register(
    "Wrapped-v0",
    "ale_py.env:AtariEnv",
    kwargs={"game": "pong"},
    additional_wrappers=(
        WrapperSpec("TimeLimit", "gymnasium.wrappers:TimeLimit", {"max_episode_steps": 5}),
    ),
)
