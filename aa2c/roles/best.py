"""The best checkpoint: by the mean return of the last 100 training episodes when it was written."""

from __future__ import annotations

from pathlib import Path

from aa2c.checkpoints.files import best_score
from aa2c.config.config import Config
from aa2c.ports import UpdaterPort

EPISODES_APART = 100  # as many as a mean is of: two means share no episode
SHARE_APART = 0.01  # of the budget


class BestKept:
    """Knows the best checkpoint of the run, and with --keep-best when to write one that is better."""

    def __init__(self, config: Config, port: UpdaterPort, directory: Path) -> None:
        self._is_asked = config.keep_best
        self._apart = SHARE_APART * config.total_env_steps
        self._port = port
        self._directory = directory
        self._best: float | None = None
        self.saved()

    def saved(self) -> None:
        """A checkpoint was written, or there were some already."""
        self._episodes = self._port.run.count("episodes")
        self._env_steps = self._port.counters.count("env_steps")
        self._best = best_score(self._directory)

    def score_now(self) -> float | None:
        """Mean return of the last 100 training episodes; None before there were so many."""
        run = self._port.run
        return run.value("train_return_mean") if run.count("episodes_in_mean") else None

    def is_due(self) -> bool:
        """Whether returns are better than those of all checkpoints, and none was written just now."""
        if not self._is_asked:
            return False
        score = self.score_now()
        return (
            score is not None
            and (self._best is None or score > self._best)
            and self._port.run.count("episodes") - self._episodes >= EPISODES_APART
            and self._port.counters.count("env_steps") - self._env_steps >= self._apart
        )
