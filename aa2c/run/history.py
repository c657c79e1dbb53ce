"""What has happened in a run: returns, the series behind the charts, marks, warnings.

Runs in the orchestrator. The run's files get everything, memory the newest or a thinned-out part, so
that a page opened late shows the whole run, and memory does not grow with it.
"""

from __future__ import annotations

import functools
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from aa2c.config.config import Config
from aa2c.engine import Engine
from aa2c.log import EventDict, readable
from aa2c.ports import Message, Report
from aa2c.run.about import about, log_tail
from aa2c.run.diagnosis import Diagnosis, TrainReturns
from aa2c.run.episodes import POLICIES, episodes_before
from aa2c.run.files import Recording, metrics_row, rows_of
from aa2c.run.ignored import tell_of_ignored, without_effect
from aa2c.run.quantities import QUANTITIES, value_at
from aa2c.run.status import RECENT_EPISODES, Returns, Status, TestReturns
from aa2c.run.tracking import Tracking
from aa2c.run.words import spread

MOST_ROWS = 2000
KEPT_MARKS = 100
KEPT_RECORDS = 1000
KEPT_WARNINGS = 20
MARK_KEYS = {"time_s", "env_steps", "kind", "text"}
WARNING_LEVELS = ("warning", "error", "critical")

_SERIES = {quantity.name: quantity.row_keys for quantity in QUANTITIES if quantity.series}


class Series:
    """Rows of charts: all of them while they are few, then every 2nd, 4th, …"""

    def __init__(self, *names: str) -> None:
        self._names = names
        self._rows: list[tuple[Any, ...]] = []
        self._every = 1
        self._skipped = 0

    def add(self, *values: Any) -> None:
        """A row: a value for each name, null where there is none."""
        self._skipped += 1
        if self._skipped < self._every:
            return
        self._skipped = 0
        self._rows.append(values)
        if len(self._rows) > MOST_ROWS:
            self._rows = self._rows[1::2]
            self._every *= 2

    def undo(self, env_steps: float) -> None:
        """Drop the rows beyond these env steps, which a resume undid."""
        at = self._names.index("env_steps")
        while self._rows and (self._rows[-1][at] or 0) > env_steps:
            self._rows.pop()

    def columns(self) -> dict[str, list[Any]]:
        """The values of each name."""
        columns = zip(*self._rows, strict=True) if self._rows else ([] for _ in self._names)
        return {name: list(column) for name, column in zip(self._names, columns, strict=True)}


class Best:
    """The highest mean so far, and where; `undo` finds the one of before."""

    def __init__(self) -> None:
        self._records: deque[Status] = deque(maxlen=KEPT_RECORDS)
        self._first: Any = None

    def add(self, time_s: float, env_steps: int, mean: Any, std: Any = None) -> None:
        """A mean, if there is one, and its episodes' std."""
        if isinstance(mean, int | float) and (not self._records or mean > self.now["mean"]):
            told = {"mean": mean, "env_steps": env_steps, "time_s": time_s}
            self._records.append(told if std is None else told | {"std": std})
            self._first = self._first or self._records[0]

    def undo(self, env_steps: float) -> None:
        """Forget what is beyond these env steps."""
        while self._records and self._records[-1]["env_steps"] > env_steps:
            self._records.pop()
        if not self._records:
            self._first = None

    @property
    def first(self) -> Any:
        """The first mean that there was."""
        return self._first

    @property
    def now(self) -> Any:
        return self._records[-1] if self._records else None


class Charts:
    """What the charts show: a row a second, episodes, and evaluations where they were measured."""

    def __init__(self) -> None:
        self._seconds = Series(*_SERIES)
        self._episodes = Series("time_s", "env_steps", "return")
        self._tests = {policy: Series("time_s", "env_steps", "mean") for policy in POLICIES}
        self._tested_at: dict[str, int] = {}
        self._best = {kind: Best() for kind in ("train", *POLICIES)}

    def add_row(self, row: Mapping[str, Any]) -> None:
        """A row of metrics.jsonl."""
        self._seconds.add(*(value_at(row, keys) for keys in _SERIES.values()))
        self.note_best(row)

    def note_best(self, row: Mapping[str, Any]) -> None:
        """Whether the mean of the last episodes is the highest so far, once there are enough."""
        count = value_at(row, ("returns", "train", "count"))
        if isinstance(count, int) and count >= RECENT_EPISODES:
            names = ("time_s", "env_steps", "train_return_mean", "train_return_std")
            self._best["train"].add(*(value_at(row, _SERIES[name]) for name in names))

    def add_episodes(self, time_s: float, env_steps: int, returns: Iterable[float]) -> None:
        """The raw returns of training episodes that ended here."""
        for episode_return in returns:
            shown = episode_return if math.isfinite(episode_return) else None
            self._episodes.add(round(time_s, 3), env_steps, shown)

    def undo(self, env_steps: float) -> None:
        """Drop what a resume at these env steps undid."""
        self._seconds.undo(env_steps)
        for best in self._best.values():
            best.undo(env_steps)
        for policy, series in self._tests.items():
            series.undo(env_steps)
            if self._tested_at.get(policy, 0) > env_steps:
                del self._tested_at[policy]

    def add_tests(self, time_s: float, tests: Any, most: float = math.inf) -> None:
        """The last evaluation of each policy, unless it is there, or of more than `most` env steps."""
        for policy, series in self._tests.items():
            env_steps, mean = (value_at(tests, (policy, key)) for key in ("env_steps", "mean"))
            is_new = env_steps != self._tested_at.get(policy)
            if isinstance(env_steps, int) and env_steps <= most and is_new:
                self._tested_at[policy] = env_steps
                series.add(time_s, env_steps, mean)
                self._best[policy].add(time_s, env_steps, mean)

    def returns(self, train: Status, first_mean: float | None = None) -> TrainReturns | None:
        """What is known of training returns, of which this is the summary now; None at first.

        `first_mean` is that of this program's first episodes, which no row may have caught.
        """
        seen_first, best = self._best["train"].first, self._best["train"].now
        if best is None or train["mean"] is None or train["count"] < RECENT_EPISODES:
            return None
        std = max(train["std"], best.get("std", 0.0))
        first = seen_first["mean"]
        if first_mean is not None and first_mean < first:
            first = first_mean
        return TrainReturns(first, best["mean"], best["env_steps"], train["mean"], std)

    def best(self) -> Status:
        """The highest means: of 100 training episodes, and of an evaluation of each policy."""
        return {kind: best.now for kind, best in self._best.items()}

    def document(self) -> Status:
        """The columns of all three."""
        tests = {policy: series.columns() for policy, series in self._tests.items()}
        episodes = self._episodes.columns()
        return {"series": self._seconds.columns(), "tests": tests, "episodes": episodes}


class RunHistory:
    """Everything known of a run beyond its counters, in memory and in its directory.

    `before` has the env steps and episodes of the checkpoint that a run is resumed from; what was
    recorded after it was undone. Raises `ConfigError` if another process trains the run.
    """

    def __init__(self, run_dir: Path, config: Config, before: Mapping[str, int]) -> None:
        self._recording = Recording(run_dir, config)
        self.documents: Mapping[str, Callable[[], Status]] = {
            "history": self.document,
            "about": lambda: about(config, run_dir),
            "log": lambda: log_tail(run_dir),
        }
        self.log: Any = None
        self._track = functools.partial(
            Tracking, run_dir, config, env_steps_before=before["env_steps"]
        )
        self.tracking: Tracking | None = None
        self._diagnosis: Diagnosis | None = None
        self._can_write = True
        self.started_at = time.time()
        self._clock_start = time.monotonic()
        self._charts = Charts()
        self._marks: deque[Status] = deque(maxlen=KEPT_MARKS)
        self._warnings: deque[Status] = deque(maxlen=KEPT_WARNINGS)
        self.returns = Returns(before["episodes"])
        self.tests = {policy: TestReturns() for policy in POLICIES}
        self._time_before_s = 0.0
        self._trained_s: float | None = None

    def read_back(self, run_dir: Path, env_steps_before: int) -> None:
        """Have what was recorded before a resume, up to so many env steps."""
        for row in rows_of(run_dir / "metrics.jsonl"):
            time_s, env_steps = (value_at(row, _SERIES[name]) for name in ("time_s", "env_steps"))
            if isinstance(time_s, int | float) and isinstance(env_steps, int | float):
                self._time_before_s = max(self._time_before_s, time_s)
                self._charts.undo(env_steps)
                if env_steps <= env_steps_before:
                    self._charts.add_row(row)
                tests = value_at(row, ("returns", "test"))
                self._charts.add_tests(time_s, tests, most=env_steps_before)
        for time_s, env_steps, episode_return in episodes_before(run_dir, env_steps_before):
            self._charts.add_episodes(time_s, int(env_steps), (episode_return,))
            self.returns.recall(episode_return)
        for mark in rows_of(run_dir / "marks.jsonl"):
            if set(mark) == MARK_KEYS and mark["env_steps"] <= env_steps_before:
                self._marks.append(mark)

    @property
    def uptime_s(self) -> float:
        """Training time, over all starts of the run."""
        if self._trained_s is not None:
            return self._trained_s
        return self._time_before_s + time.monotonic() - self._clock_start

    def end_training(self) -> None:
        """Stop the clock: what follows is no training, and would make it look slow."""
        self._trained_s = self.uptime_s

    def add_row(self, status: Status) -> None:
        """Keep a second's numbers. A full disk costs rows, is reported once, and does not end the run.

        The charts leave pauses out: a night of pause would thin out the day before.
        """
        if self.tracking is not None:
            self.tracking.add_row(status)
        if self._diagnosis is not None:
            returns = self._charts.returns(status["returns"]["train"], self.returns.first_mean)
            self._diagnosis.look(status["progress"]["env_steps"], returns)
        row = metrics_row(status)
        if status["run"]["state"] != "paused":
            self._charts.add_row(row)
        try:
            if self._recording.reopen_if_removed():
                self.log.warning(
                    "the run's directory was removed; a new one is made, its contents are lost"
                )
            self._recording.write_metrics(row)
        except OSError as error:
            if self._can_write:
                why = f"{error.strerror}: rows are lost until it can be written again"
                self.log.warning("the run's directory cannot be written", why=why)
            self._can_write = False
        else:
            self._can_write = True

    def hear(self, env_steps: int, worker: int, message: Message) -> None:
        """Keep the raw returns and lengths of episodes: a worker's, or an evaluation's."""
        episodes = message["episodes"]
        returns = [episode_return for episode_return, _ in episodes]
        kind: str = "train"
        author: int | None = worker
        if message["kind"] == Report.EVALUATED:
            kind, author, env_steps = message["policy"], None, message["env_steps"]
            self._add_test(message, returns)
            if message["is_last"] and kind == POLICIES[-1]:
                scores = (f"{name} {spread(it.summary())}" for name, it in self.tests.items())
                self.add_mark(env_steps, "evaluation", f"final evaluation: {', '.join(scores)}")
        else:
            self.returns.add(returns)
            self._charts.add_episodes(self.uptime_s, env_steps, returns)
            if self.tracking is not None:
                self.tracking.add_episodes(episodes)
        self._recording.write_episodes(self.uptime_s, env_steps, kind, author, episodes)

    def _add_test(self, message: Message, returns: list[float]) -> None:
        """A whole evaluation is one point, at the env steps of the parameters that were evaluated."""
        policy, env_steps = message["policy"], message["env_steps"]
        test = self.tests[policy]
        test.set(env_steps, returns)
        told = test.summary()
        self._charts.add_tests(self.uptime_s, {policy: told})
        if self.tracking is not None:
            self.tracking.add_test(policy, env_steps, told["mean"], message["episodes"])
            if video := message.get("video"):
                self.tracking.add_video(policy, env_steps, Path(video))
        if reason := message.get("no_video"):
            self.log.warning("there are no videos of evaluations", reason=reason)

    def add_mark(self, env_steps: int, kind: str, text: str) -> None:
        """Keep something that was done to the run."""
        mark = {"time_s": round(self.uptime_s, 3), "env_steps": env_steps, "kind": kind}
        self._marks.append(mark | {"text": text})
        self._recording.write_mark(self._marks[-1])

    def watch(self, engine: Engine, log: Any) -> None:
        """Begin to track, and to diagnose how learning goes; options that this run ignores are named."""
        self.log = log
        self.tracking = self._track(log=log)
        self._diagnosis = Diagnosis(engine, log)
        tell_of_ignored(log, without_effect(engine.settings.now()))

    def watch_log(
        self, on_event: Callable[[EventDict], None] | None
    ) -> Callable[[EventDict], None]:
        """A callback for a logger: it keeps warnings, and passes everything on."""

        def hear(event: EventDict) -> None:
            if event["level"] in WARNING_LEVELS:
                self._warnings.append(
                    {
                        "time": event["timestamp"],
                        "level": event["level"],
                        "text": readable(event, with_prefix=False),
                    }
                )
            if on_event is not None:
                on_event(event)

        return hear

    def told(self, status: Status) -> Status:
        """The history's parts of the status document, of which the other parts are given."""
        self._charts.note_best(metrics_row(status))
        newest: Status = {"newest_returns": self.returns.newest(), "best": self._charts.best()}
        newest["warnings"] = [] if self._diagnosis is None else self._diagnosis.told()
        return newest | {"marks": list(self._marks), "log": list(self._warnings)}

    def document(self) -> Status:
        """What /history serves."""
        return self._charts.document() | {"marks": list(self._marks)}

    def close(self) -> None:
        """There is no more to come."""
        self._recording.close()
        if self.tracking is not None:
            self.tracking.end()

    async def drain(self) -> None:
        """After `close`: wait until trackers have taken what waits, as long as they take it."""
        if self.tracking is not None:
            await self.tracking.drain()
