"""A game in which an illegal action raises, and tells what is legal in every way that there is.

Importing this registers it, once for each way and kind of action.
"""

from __future__ import annotations

import functools
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

ACTIONS = 5
SIZES = (3, 4)  # of the MultiDiscrete
LENGTH = 9


class Illegal(Exception):
    """What ends everything."""


class Masked(gym.Env[Any, Any]):
    """Some actions are legal, others each step; reward 1 for the highest legal one.

    `where` is what --action-mask says, `kind` "one" or "two" for MultiDiscrete actions, with masks that
    are concatenated or ("tuple") not. Half of the episodes are truncated. After its last step no action
    is legal, and a mask is told that must not be looked at.
    """

    def __init__(self, where: str = "info", kind: str = "one") -> None:
        self.where, self.kind = where, kind
        self.sizes = (ACTIONS,) if kind == "one" else SIZES
        one, several = gym.spaces.Discrete(ACTIONS, start=2), gym.spaces.MultiDiscrete(SIZES)
        self.action_space = one if kind == "one" else several
        place: gym.Space[Any] = gym.spaces.Box(0, 1, (sum(self.sizes) + 1,), np.float32)
        if where == "obs":
            masks = gym.spaces.MultiBinary(sum(self.sizes))
            place = gym.spaces.Dict({"action_mask": masks, "place": place})
        self.observation_space = place
        self.episode = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self.episode += 1
        self.t = 0
        self.draw()
        return self.told()

    def draw(self) -> None:
        self.legal = [self.np_random.integers(0, 2, n).astype(np.int8) for n in self.sizes]
        for own in self.legal:
            own[self.np_random.integers(len(own))] = 1

    def step(self, action: Any) -> Any:
        chosen = np.atleast_1d(np.asarray(action) - (2 if self.kind == "one" else 0))
        for own, number in zip(self.legal, chosen, strict=True):
            if not own[number]:
                raise Illegal(f"action {action} with {self.legal}")
        best = [np.flatnonzero(own)[-1] for own in self.legal]
        reward = float(np.mean(chosen == best))
        self.t += 1
        self.draw()
        is_over = self.t == LENGTH
        if is_over:
            self.legal = [np.zeros_like(own) for own in self.legal]
        truncated = is_over and self.episode % 2 == 0
        return self.told()[0], reward, is_over and not truncated, truncated, self.told()[1]

    def told(self) -> tuple[Any, Any]:
        row = np.concatenate(self.legal)
        place = np.append(row, self.t / LENGTH).astype(np.float32)
        if self.where == "obs":
            return {"action_mask": row, "place": place}, {}
        mask = tuple(self.legal) if self.kind == "tuple" else row
        return place, {"action_mask": mask} if self.where == "info" else {}


class MaskedByMethod(Masked):
    """The mask is a method's, as sb3-contrib wants it."""

    def __init__(self, kind: str = "one") -> None:
        super().__init__("method", kind)

    def action_masks(self) -> Any:
        return np.concatenate(self.legal).astype(bool)


class Strange(Masked):
    """It tells whatever `mask` is as its mask."""

    def __init__(self, mask: Any = None, where: str = "info", kind: str = "one") -> None:
        super().__init__(where, kind)
        self.mask = mask

    def told(self) -> tuple[Any, Any]:
        obs, info = super().told()
        return obs, {} if self.mask is None else info | {"action_mask": self.mask}


def make_vector(num_envs: int, where: str = "info", mode: str = "NEXT_STEP") -> Any:
    """What Gymnasium makes of them, with this autoreset; of "some" the last tells nothing."""
    ways = ["info" if where == "some" else where] * num_envs
    if where == "some":
        ways[-1] = "method"
    made = [MaskedByMethod if way == "method" else functools.partial(Masked, way) for way in ways]
    envs: Any = SyncVectorEnv(made, autoreset_mode=AutoresetMode[mode])
    if where == "method":
        envs.action_masks = lambda: np.stack(envs.call("action_masks"))
    return envs


for _kind in ("one", "two", "tuple"):
    for _where in ("info", "obs"):
        _options = {"where": _where, "kind": _kind}
        gym.register(f"Masked-{_where}-{_kind}-v0", Masked, kwargs=_options)
    gym.register(f"Masked-method-{_kind}-v0", MaskedByMethod, kwargs={"kind": _kind})
for _where in ("info", "obs", "method", "some"):
    gym.register(
        f"MaskedVector-{_where}-v0", vector_entry_point=make_vector, kwargs={"where": _where}
    )
