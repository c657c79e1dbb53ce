"""Vector environments of Gymnasium's interface, stepped as they are, whatever their autoreset.

Under NEXT_STEP the step after an episode's end only resets, and is marked as such. Under SAME_STEP the
step that ends an episode shows the next one's first observation already, and infos have the last one;
under DISABLED the same is done here, with a reset of those that have ended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate
from numpy.typing import NDArray

from aa2c.envs.actions import to_space
from aa2c.envs.failure import ENV_ERRORS, Unusable, failed_call, shown
from aa2c.envs.masks import Mask, has_mask
from aa2c.envs.plain import Obs, VectorStep, close_all, fit_obs, held_in, spec_of
from aa2c.envs.state import load_env, save_env
from aa2c.errors import StartError

_FINAL_OBS = ("final_obs", "final_observation")  # the second before Gymnasium 1.0
_MODES = ", ".join(mode.name for mode in AutoresetMode)

Flags = NDArray[np.bool_]


class GymnasiumVector:
    """A vector environment of Gymnasium's interface. Raises `StartError` for one that tells too little."""

    def __init__(
        self, flag: str, envs: VectorEnv[Any, Any, Any], *, is_squashed: bool = False
    ) -> None:
        autoreset = autoreset_mode(getattr(envs, "metadata", None))
        if autoreset is None:
            raise StartError(
                f"{flag} is a vector environment that does not tell its autoreset: give it "
                f'metadata["autoreset_mode"], one of gymnasium.vector.AutoresetMode\'s {_MODES}.'
            )
        self._flag, self._autoreset = flag, autoreset
        self._envs: Any = envs
        self.num_envs = envs.num_envs
        spec = spec_of(
            envs.single_observation_space, envs.single_action_space, is_squashed=is_squashed
        )
        self.spec = dataclasses.replace(
            spec, has_mask=has_mask(envs), resets_at_once=autoreset != AutoresetMode.NEXT_STEP
        )
        # Its own may be that of a wrapped one, or missing.
        self._several = batch_space(envs.single_observation_space, self.num_envs)
        self.metadata = dict(envs.metadata)
        self._ended = np.zeros(self.num_envs, np.bool_)

    @property
    def mask(self) -> Mask | None:
        return self._envs.mask if self.spec.has_mask else None

    def reset(self, seed: int) -> Obs:
        self._ended = np.zeros(self.num_envs, np.bool_)
        return self._reset(seed=seed)

    def _reset(self, **how: Any) -> Obs:
        try:
            return self._fit(self._envs.reset(**how)[0])
        except ENV_ERRORS as error:
            raise failed_call(self._flag, self._envs, "reset", error) from error

    def step(self, actions: NDArray[Any]) -> VectorStep:
        try:
            taken = [to_space(self.spec.actions, row) for row in actions]
            space = self._envs.single_action_space
            empty: Any = create_empty_array(space, self.num_envs)
            seen, given, *ends, infos = self._envs.step(concatenate(space, taken, empty))
            obs, is_reset = self._fit(seen), self._ended
            rewards = np.where(is_reset, 0, self._row(given, "rewards", np.float64))
            terminated, truncated = (self._row(end, "ends", np.bool_) & ~is_reset for end in ends)
            final_obs = None
            if truncated.any() and self._autoreset == AutoresetMode.SAME_STEP:
                final_obs = self._final_obs(infos, truncated)
        except ENV_ERRORS as error:
            raise failed_call(self._flag, self._envs, "step", error) from error
        ended = terminated | truncated
        if self._autoreset == AutoresetMode.NEXT_STEP:
            self._ended = ended
        elif self._autoreset == AutoresetMode.DISABLED and ended.any():
            final_obs = obs[truncated] if truncated.any() else None
            obs = self._reset(options={"reset_mask": ended})
        return VectorStep(obs, rewards, terminated, truncated, is_reset, final_obs)

    def _row(self, given: Any, what: str, dtype: Any) -> NDArray[Any]:
        row = np.asarray(given, dtype)
        if row.shape != (self.num_envs,):
            raise Unusable(f"gave {what} of shape {row.shape}: give one of each environment")
        return row

    def _fit(self, seen: Any) -> Obs:
        """A batch of observations in memory of our own."""
        if self.spec.obs is not None:
            rows = list(iterate(self._several, seen))
            if len(rows) != self.num_envs:
                raise Unusable(f"gave {len(rows)} observations of {self.num_envs} environments")
            return np.stack([fit_obs(self.spec, row) for row in rows])
        batch = np.array(held_in(np.asarray(seen), self.spec.obs_dtype), self.spec.obs_dtype)
        if batch.shape != (self.num_envs, *self.spec.obs_shape):
            raise Unusable(
                f"gave observations of shape {batch.shape}, and {self.num_envs} environments have "
                f"{(self.num_envs, *self.spec.obs_shape)}"
            )
        return batch

    def _final_obs(self, infos: Any, truncated: Flags) -> Obs:
        """The last observations of the truncated episodes, as infos have them."""
        found = [infos[key] for key in _FINAL_OBS if isinstance(infos, Mapping) and key in infos]
        if not found:
            raise Unusable(
                f"truncated an episode without its last observation: under SAME_STEP put it into "
                f"infos[{shown(_FINAL_OBS[0])}]"
            )
        last = [_one_of(found[0], int(i)) for i in np.flatnonzero(truncated)]
        if self.spec.has_mask:
            last = [self._envs.see(one) for one in last]
        return np.stack([fit_obs(self.spec, one) for one in last]).astype(self.spec.obs_dtype)

    def render(self) -> Any:
        pictures = self._envs.render()
        return None if pictures is None else pictures[0]

    def state(self) -> dict[str, Any]:
        return {"envs": save_env(self._envs), "ended": self._ended.tolist()}

    def load_state(self, saved: dict[str, Any]) -> None:
        load_env(self._envs, saved["envs"])
        self._ended = np.array(saved["ended"], np.bool_)

    def close(self) -> None:
        close_all(self._flag, [self._envs])


def _one_of(batch: Any, i: int) -> Any:
    """Environment i's part: of an array or list of them, or of a mapping or tuple of batches."""
    if isinstance(batch, Mapping):
        return {name: _one_of(part, i) for name, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(_one_of(part, i) for part in batch)
    return batch[i]


def autoreset_mode(metadata: Any) -> AutoresetMode | None:
    """What metadata tell of the autoreset, if anything."""
    told = metadata.get("autoreset_mode") if isinstance(metadata, dict) else None
    try:
        return AutoresetMode(told)
    except ValueError:
        return None
