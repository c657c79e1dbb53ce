"""What its owner may do to a run: pause, save, stop, add workers, change options.

Runs in the orchestrator. Children read control flags between two steps, so that none is interrupted,
and a restarted child finds them set. Every action is logged and kept as a mark of the run.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from aa2c.config.config import Config, changed, flag
from aa2c.config.options import LIVE_OPTIONS
from aa2c.config.values import converted
from aa2c.engine import Engine
from aa2c.errors import ConfigError, ControlRefused
from aa2c.ports import Message, Report
from aa2c.run.status import RECENT_EPISODES, Returns, Status
from aa2c.run.videos import Videos

CHECKPOINT_WAIT_S = 10.0
ROUND_WAIT_S = 5.0  # without progress
FRAMES_WAIT_S = 5.0

HEARD = (
    Report.CHECKPOINT, Report.FRAMES, Report.VIDEO, Report.ROLLED_BACK, Report.OPTIONS_UNDONE
)  # fmt: skip

Note = Callable[[str, str], None]  # kind and text of a mark


class Controls:
    """The actions. Each returns a sentence, and raises `ControlRefused` at the wrong moment.

    `note` keeps marks, `phase` is the run's place in its life cycle, and `end` ends it.
    """

    def __init__(
        self,
        config: Config,
        engine: Engine,
        *,
        note: Note,
        phase: Callable[[], str],
        end: Callable[[], None],
    ) -> None:
        self._config = config
        self._engine = engine
        self._flags = engine.control
        self._settings = engine.settings
        self._note = note
        self._phase = phase
        self._end = end
        self.videos = Videos(
            engine,
            has_evaluator=bool(config.eval_interval_s),
            is_training=lambda: phase() == "running",
        )
        self._changing_workers = asyncio.Lock()
        self._saved: list[asyncio.Future[str]] = []
        self._shown: list[asyncio.Future[Message]] = []

    @property
    def is_paused(self) -> bool:
        return bool(self._flags.count("is_paused"))

    def pause(self) -> str:
        """Pause workers and evaluator after their current step; the updater runs out of records."""
        return self._set_paused(True, "paused")

    def resume(self) -> str:
        """Continue after a pause."""
        return self._set_paused(False, "resumed")

    def _set_paused(self, wanted: bool, word: str) -> str:
        self._require_training()
        if self.is_paused != wanted:
            self._flags.set("is_paused", wanted)
            self._note("pause" if wanted else "resume", word)
        return word

    def stop(self) -> str:
        """End the run, with a final checkpoint; skip the evaluation of one that is ending."""
        if self._phase() not in ("starting", "running", "stopping"):
            raise ControlRefused("the run has already ended.")
        self._note("stop", "stopping")
        self._end()
        return "stopping: the updater writes a final checkpoint"

    async def checkpoint(self) -> str:
        """Write a checkpoint, and wait for it, within reason: an update may take long."""
        self._require_training()
        with contextlib.suppress(TimeoutError):
            return f"written: {await asyncio.wait_for(self._ask_to_save(), CHECKPOINT_WAIT_S)}"
        return "requested: it will be written after the current update"

    def _ask_to_save(self) -> asyncio.Future[str]:
        saved = asyncio.get_running_loop().create_future()
        self._saved = [*(it for it in self._saved if not it.done()), saved]
        self._flags.set("checkpoints_wanted", self._flags.count("checkpoints_wanted") + 1)
        return saved

    async def finish_round(self) -> None:
        """In lock-step, before the end: save while all workers wait, when their states are known.

        Given up only once nothing has been made or learned for a while.
        """
        if not (self._config.deterministic and self._phase() == "running"):
            return
        self.resume()
        saved, counters, before = self._ask_to_save(), self._engine.telemetry, None
        while not saved.done():
            done = counters.env_steps, counters.updater.count("records")
            if done == before:
                self._note("stop", "the round was not completed: the newest checkpoint is older")
                return
            before = done
            await asyncio.wait([saved], timeout=ROUND_WAIT_S)

    async def frames(self) -> Message:
        """The newest frames of worker 0's first environment. Raises `TimeoutError` if none arrive."""
        self._require_training()
        if self.is_paused:
            raise ControlRefused("the run is paused: there are no new frames.")
        shown = asyncio.get_running_loop().create_future()
        self._shown = [*(it for it in self._shown if not it.done()), shown]
        self._flags.set("frames_wanted", self._flags.count("frames_wanted") + 1)
        message: Message = await asyncio.wait_for(shown, FRAMES_WAIT_S)
        return message

    def video(self) -> str:
        """Let the evaluator record an episode of the newest policy; `videos` has what becomes of it."""
        self._require_training()
        if self.is_paused:
            raise ControlRefused("the run is paused: the evaluator rests.")
        return self.videos.ask()

    async def set_workers(self, count: int) -> str:
        """Change the number of workers; returns when that is done. Raises `ConfigError`."""
        self._require_training()
        least, most = self._config.least_workers, self._engine.most_workers
        if type(count) is not int or not least <= count <= most:
            raise ConfigError(
                f"--workers {_shown(count)} must be in {least} … {most} during this run."
            )
        async with self._changing_workers:
            self._require_training()
            before = len(self._engine.workers)
            if count > before:
                self._engine.require_room(count - before)
            if count != before:
                self._note("workers", f"workers {before} → {count}")
                await self._engine.set_workers(count)
        return f"{count} workers"

    def set(self, options: Mapping[str, Any]) -> str:
        """Change options for the rest of the run; if one is refused, none is changed.

        Raises `ConfigError`, which names the bound that a value violates.
        """
        self._require_training()
        allowed = [name for name in self.changeable() if name != "workers"]
        if not options:
            raise ConfigError(f"nothing to set: name one or more of {', '.join(allowed)}.")
        for name in options:
            if name not in allowed:
                raise ConfigError(
                    f"{name!r} cannot be changed during a run: {', '.join(allowed)} can."
                )
        wanted = {name: _number(name, value) for name, value in options.items()}
        before = self._settings.now()
        changed(before, wanted)  # raises for what cannot be
        for name, value in wanted.items():
            self._settings.set(name, value)
            self._note("set", f"{name} {_shown(_plain(getattr(before, name)))} → {_shown(value)}")
        return "set"

    def changeable(self) -> Status:
        """What can be changed now: current value and bounds."""
        now = self._settings.now()
        bounds = {item.name: item.metadata for item in fields(Config)}
        told: Status = {}
        for name in LIVE_OPTIONS:
            if not self._config.uses(name):
                continue
            if name == "eval_interval_s" and not self._config.eval_interval_s:
                continue
            value = _plain(getattr(now, name))
            told[name] = {"value": value} | {b: bounds[name][b] for b in ("minimum", "maximum")}
        told["workers"] = {
            "value": len(self._engine.workers),
            "minimum": self._config.least_workers,
            "maximum": self._engine.most_workers,
        }
        return told

    def told(self) -> Status:
        """The controls' parts of the status document."""
        return {"settings": self.changeable(), "video": self.videos.document()}

    def tell_score(self, returns: Returns) -> None:
        """Tell the updater the mean return, once there is one: it keeps the best checkpoint."""
        self._flags.set("episodes", returns.count)
        mean = returns.settled_mean
        if mean is not None:
            self._flags.set("train_return_mean", mean)
            self._flags.set("episodes_in_mean", RECENT_EPISODES)

    def hear(self, message: Message) -> None:
        """A rollback by the updater, or an answer: a requested checkpoint, frames, or a video."""
        match message["kind"]:
            case Report.ROLLED_BACK:
                name, rate = Path(message["path"]).name, message["learning_rate"]
                self._note("rollback", f"rollback to {name}, learning_rate → {_shown(rate)}")
            case Report.OPTIONS_UNDONE:
                self._undo(message["options"])
            case Report.VIDEO:
                self.videos.hear(message)
            case Report.FRAMES:
                _answer(self._shown, message)
            case Report.CHECKPOINT:
                self._note("checkpoint", "checkpoint")
                _answer(self._saved, message["path"])

    def _undo(self, options: Mapping[str, Any]) -> None:
        """Restore options to what they were before they were set, after a rollback."""
        before = self._settings.now()
        for name, value in options.items():
            good = _plain(tuple(value) if isinstance(value, list | tuple) else value)
            if good == _plain(getattr(self._config, name)):
                self._settings.unset(name)
            else:
                self._settings.set(name, good)
            was = _shown(_plain(getattr(before, name)))
            self._note("rollback", f"{name} {was} → {_shown(good)}, as before it was set")

    def _require_training(self) -> None:
        if self._phase() != "running":
            raise ControlRefused(f"the run is {self._phase()}: this needs a running one.")


def _plain(value: Any) -> Any:
    """An option's value for JSON; one number for a coefficient that all workers share."""
    if isinstance(value, tuple):
        return value[0] if len(value) == 1 else list(value)
    return value


def _number(name: str, value: Any) -> float:
    """One number for a live option, all of which are numbers: also a coefficient of all workers."""
    try:
        number: float = converted(value, float)
    except ValueError as error:
        raise ConfigError(f"{flag(name)} {error}") from None
    return number


def _shown(value: Any) -> str:
    """A value, shortened for messages."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _answer(waiting: list[asyncio.Future[Any]], answer: Any) -> None:
    """Give this to all who wait."""
    for future in waiting:
        if not future.done():
            future.set_result(answer)
    waiting.clear()
