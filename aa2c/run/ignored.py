"""Options that a run has no use for, beside those of another mode, which are refused: told by name.

They are told and not refused: a recipe or a file may set them for more than one task. What only the
spaces of the environment show is `aa2c.policy.unused`'s, and told by the updater.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from aa2c.config.config import Config, flag
from aa2c.modes.traj import rollouts_per_batch

_OF_ATARI = ("frame_skip", "noop_max", "sticky_action_prob", "terminal_on_life_loss")
_OF_MEMORY = ("memory_size", "sequence_length")
_OF_EVALUATOR = ("eval_episodes", "eval_max_steps", "eval_video")


def without_effect(config: Config) -> dict[str, str]:
    """Options that were changed from their defaults to no effect, and what they would need."""
    needs: dict[str, str] = {}
    if config.memory == "none":
        needs |= dict.fromkeys(_OF_MEMORY, "--memory")
    if not config.eval_interval_s:
        needs |= dict.fromkeys(_OF_EVALUATOR, "--eval-interval-s")
    if config.optimizer != "adam":
        needs["adam_beta1"] = "--optimizer adam"
    if config.memory != "none" and config.uses("minibatches") and not _has_sequences(config):
        needs["minibatches"] = "a batch of as many sequences: a smaller --sequence-length"
    if not config.nonfinite_limit:
        needs["nonfinite_action"] = "--nonfinite-limit"
    changed = {item.name for item in dataclasses.fields(Config) if _is_changed(item, config)}
    if changed & set(_OF_ATARI):
        from aa2c.envs.find import plays_atari  # imports gymnasium

        if not plays_atari(config):
            needs |= dict.fromkeys(_OF_ATARI, "an Atari game")
    return {name: need for name, need in needs.items() if name in changed}


def tell_of_ignored(log: Any, ignored: Mapping[str, str]) -> None:
    """Log a warning that names them, if there are any."""
    if ignored:
        told = "; ".join(f"{flag(name)} needs {need}" for name, need in ignored.items())
        log.warning("options without effect", options=told)


def _has_sequences(config: Config) -> bool:
    """Whether a batch has a sequence for each minibatch."""
    of_rollout = config.num_steps // (config.sequence_length or config.num_steps)
    return rollouts_per_batch(config) * config.num_envs * of_rollout >= config.minibatches


def _is_changed(item: dataclasses.Field[Any], config: Config) -> bool:
    return bool(getattr(config, item.name) != item.default)
