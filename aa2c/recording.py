"""What a run leaves on disk: its directory, configuration, log, and rows of metrics and episodes.

Runs in the orchestrator, the only writer of these files but the log.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aa2c.config import Config
from aa2c.config_file import to_toml
from aa2c.errors import ConfigError

EPISODE_COLUMNS = ("time_s", "env_steps", "worker", "return", "length")


def make_run_dir(config: Config) -> Path:
    """A new directory for the run. Raises `ConfigError`, which names --name or --runs-dir."""
    slug = re.sub(r"[^\w.-]+", "-", config.env)[:64]
    stamp = time.strftime("%Y%m%d-%H%M%S")
    names = [config.name] if config.name else [f"{slug}-{config.mode}-{stamp}"]
    names += [] if config.name else [f"{names[0]}-{i}" for i in range(2, 100)]
    for name in names:
        path = Path(config.runs_dir).absolute() / name
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise ConfigError(f"--name {name[:40]}… is too long for a directory.") from None
            raise ConfigError(
                f"--runs-dir {config.runs_dir} cannot be written: {error.strerror}."
            ) from None
        return path
    raise ConfigError(f"--name {names[0]} exists in {config.runs_dir} already: choose another.")


class Recording:
    """config.toml at the start, then a row a second and a row an episode."""

    def __init__(self, run_dir: Path, config: Config) -> None:
        (run_dir / "config.toml").write_text(to_toml(config))
        self._metrics = (run_dir / "metrics.jsonl").open("a", buffering=1)
        self._episodes = (run_dir / "episodes.csv").open("a", newline="")
        self._episode_rows = csv.writer(self._episodes)
        self._episode_rows.writerow(EPISODE_COLUMNS)

    def write_metrics(self, status: dict[str, Any]) -> None:
        """One row: the run's numbers, without the parts that name processes."""
        parts = ("progress", "throughput", "returns", "losses", "policy_lag")
        row = {"time_s": status["run"]["uptime_s"]} | {part: status[part] for part in parts}
        self._metrics.write(json.dumps(row) + "\n")
        self._episodes.flush()

    def write_episodes(
        self, time_s: float, env_steps: int, worker: int, episodes: Iterable[tuple[float, int]]
    ) -> None:
        """One row for each episode that a worker finished."""
        for episode_return, length in episodes:
            self._episode_rows.writerow(
                (round(time_s, 3), env_steps, worker, episode_return, length)
            )

    def close(self) -> None:
        """Close the files, even on a full disk."""
        for file in (self._metrics, self._episodes):
            with contextlib.suppress(OSError):
                file.close()
