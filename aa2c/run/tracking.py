"""Experiment trackers: TensorBoard and Weights & Biases, with CleanRL's tags over env steps.

Runs in the orchestrator, in a thread of its own, because a tracker may block on disk or network. A
tracker that fails is switched off with a warning; it never ends a run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from aa2c.config.config import Config
from aa2c.run.quantities import QUANTITIES
from aa2c.run.status import Status

MOST_WAITING = 100  # rows; a tracker that is slower than the run misses the newest
CLOSE_TIMEOUT_S = 5.0

_Row = tuple[dict[str, float], int]


class Tracker(Protocol):
    """A sink for numbers."""

    def log(self, numbers: Mapping[str, float], env_steps: int) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in the run's tb/."""

    def __init__(self, run_dir: Path, config: Config) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(run_dir / "tb"), write_to_disk=True)
        rows = "".join(f"|{name}|{value}|\n" for name, value in _hyperparameters(config).items())
        self._writer.add_text("hyperparameters", f"|param|value|\n|-|-|\n{rows}")

    def log(self, numbers: Mapping[str, float], env_steps: int) -> None:
        for tag, number in numbers.items():
            self._writer.add_scalar(tag, number, env_steps)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A wandb run of the same name; without an account it is kept in the run's wandb/."""

    def __init__(self, run_dir: Path, config: Config) -> None:
        import wandb

        if not _has_wandb_account():
            os.environ.setdefault("WANDB_MODE", "offline")  # or it would ask at the terminal
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "aa2c"),
            name=run_dir.name,
            id=run_dir.name[-64:],
            resume="allow",
            dir=str(run_dir),
            config=_hyperparameters(config),
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )
        self._run.define_metric("*", step_metric="global_step")

    def log(self, numbers: Mapping[str, float], env_steps: int) -> None:
        self._run.log({**numbers, "global_step": env_steps})

    def close(self) -> None:
        self._run.finish()


KINDS: dict[str, Callable[[Path, Config], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


class Tracking:
    """The trackers that --track names; failures go to `log`."""

    def __init__(self, run_dir: Path, config: Config, log: Any) -> None:
        self._run_dir = run_dir
        self._config = config
        self._log = log
        self._env_steps = 0
        self._has_lost = False
        self._waiting: queue.Queue[_Row | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name="aa2c-tracking", daemon=True)
        if config.track:
            self._thread.start()

    def add_row(self, status: Status) -> None:
        """A second's numbers."""
        self._env_steps = status["progress"]["env_steps"]
        self._put(dict(_numbers(status)), self._env_steps)

    def add_episodes(self, episodes: Sequence[tuple[float, int]]) -> None:
        """Training episodes: raw return and length."""
        for episode_return, length in episodes:
            numbers = {"charts/episodic_return": episode_return, "charts/episodic_length": length}
            self._put(numbers, self._env_steps)

    def add_test(self, policy: str, env_steps: int, mean: float | None) -> None:
        """An evaluation of parameters of so many env steps: mean raw return, null if not finite."""
        if mean is not None:
            self._put({f"test/{policy}_return": mean}, env_steps)

    def close(self) -> None:
        """Let the trackers write what is queued, within a time limit."""
        if not self._thread.is_alive():
            return
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=CLOSE_TIMEOUT_S / 2)
        self._thread.join(CLOSE_TIMEOUT_S / 2)
        if self._thread.is_alive():
            self._log.warning("a tracker did not finish in time", trackers=self._config.track)

    def _put(self, numbers: dict[str, float], env_steps: int) -> None:
        if not self._thread.is_alive():
            return
        try:
            self._waiting.put_nowait((numbers, env_steps))
        except queue.Full:
            if not self._has_lost:
                reason = "it is slower than the run, or its disk is full"
                self._log.warning(
                    "a tracker loses rows", trackers=self._config.track, reason=reason
                )
            self._has_lost = True

    def _run(self) -> None:
        """The thread: open, log, close; a tracker that fails is dropped."""
        trackers: dict[str, Tracker] = {}
        for wanted in self._config.track:
            with self._warning(wanted, trackers):
                trackers[wanted] = KINDS[wanted](self._run_dir, self._config)
        while trackers and (row := self._waiting.get()) is not None:
            for name, tracker in list(trackers.items()):
                with self._warning(name, trackers):
                    tracker.log(*row)
        for name, tracker in list(trackers.items()):
            with self._warning(name, trackers):
                tracker.close()

    @contextlib.contextmanager
    def _warning(self, name: str, trackers: dict[str, Tracker]) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a library's, or the disk's: the run continues without it
            trackers.pop(name, None)
            reason = f"{type(error).__name__}: {error}"
            self._log.warning("a tracker is switched off", tracker=name, reason=reason)


def _numbers(status: Status) -> Iterator[tuple[str, float]]:
    for quantity in QUANTITIES:
        if quantity.tag:
            for _, value in quantity.samples(status):
                if math.isfinite(value):
                    yield quantity.tag, float(value)


def _hyperparameters(config: Config) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(config).items()
    }


def _has_wandb_account() -> bool:
    """Whether wandb could log in without asking at a terminal."""
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    return bool(os.environ.get("WANDB_API_KEY")) or (
        netrc.is_file() and "api.wandb.ai" in netrc.read_text()
    )
