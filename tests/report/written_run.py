"""Runs as files, written without training, and what is read out of a report of them."""

from __future__ import annotations

import json
import re
import struct

from aa2c.config.config import Config
from aa2c.config.toml import to_toml
from aa2c.run.episodes import HEADER


def metrics_row(time_s, env_steps, **losses):
    """A line of metrics.jsonl, with the keys that a run writes."""
    progress = {"env_steps": env_steps, "updates": env_steps // 10, "policy_version": 3}
    losses = {
        **dict.fromkeys(("policy", "value", "entropy", "grad_norm", "learning_rate"), 0.5),
        "approx_kl": 0.0,
        **losses,
    }
    lag = {"min": 0, "mean": 1.5, "max": 3}
    row = {"time_s": time_s, "progress": progress, "losses": losses, "policy_lag": lag}
    return json.dumps(row | {"throughput": {"env_steps_per_s": 100.0}}) + "\n"


def episode_row(time_s, env_steps, kind, episode_return, length=20):
    worker = 1 if kind == "train" else ""
    return f"{time_s},{env_steps},{kind},{worker},{episode_return},{length}\r\n"


def write_run(directory, metrics=None, episodes=None, **options):
    """A run of 60 seconds at 100 env steps a second, with 300 episodes that get better."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.toml").write_text(to_toml(Config(**options)))
    if metrics is None:
        metrics = [metrics_row(float(t), t * 100) for t in range(61)]
    if episodes is None:
        episodes = [episode_row(i / 5, i * 20, "train", min(i, 200)) for i in range(1, 301)]
        for env_steps in (2000, 4000):  # evaluations end after training has gone on
            rows = [("greedy", 8), ("greedy", 10), ("sampled", 5), ("sampled", 9)]
            at = env_steps // 20 + 12
            episodes[at:at] = [
                episode_row(env_steps / 100 + 2, env_steps, kind, r + env_steps) for kind, r in rows
            ]
    (directory / "metrics.jsonl").write_text("".join(metrics))
    (directory / "episodes.csv").write_text(HEADER + "\r\n" + "".join(episodes))
    return directory


def size_of(png):
    data = png.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-8:-4] == b"IEND"
    return struct.unpack(">II", data[16:24])


def table_of(summary, title="Runs"):
    """The rows of one of the summary's tables, by column."""
    part = summary.partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def words(figure):
    return [t.get_text() for axes in figure.axes for t in axes.texts] + [
        t.get_text() for t in figure.texts
    ]
