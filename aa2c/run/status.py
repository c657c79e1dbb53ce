"""The status of a run: counters -> one document, which /status serves and everything else reads.

Runs in the orchestrator. Children's counters are read from shared memory, never requested.
"""

from __future__ import annotations

import math
import os
import statistics
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from aa2c.config.config import Config
from aa2c.config.modes import ModeFacts
from aa2c.engine import ChildView, Engine, Telemetry, Usage
from aa2c.run.bottleneck import Down, advise
from aa2c.run.quantities import QUANTITIES

SCHEMA = 1
RECENT_EPISODES = 100
NEWEST_EPISODES = 20
LOSSES = tuple(keys[-1] for keys in (q.keys for q in QUANTITIES) if keys[0] == "losses")

MOST_SHOWN = 256  # workers, one by one

SHOWN_OPTIONS = ("workers", "num_envs", "update_threads")

RunState = Literal[
    "starting", "running", "degraded", "paused", "stopping", "finished", "stopped", "failed"
]
RUN_STATES: tuple[str, ...] = get_args(RunState)
TRAINING_STATES = ("running", "degraded")
ENDED_STATES = ("finished", "stopped", "failed")

Status = dict[str, Any]


class Returns:
    """Raw returns of the most recent episodes."""

    def __init__(self, count: int = 0) -> None:
        self.count = count
        self._recent: deque[float] = deque(maxlen=RECENT_EPISODES)
        self.first_mean: float | None = None  # of the first 100 of this program, or of before

    def add(self, episode_returns: Sequence[float]) -> None:
        self.count += len(episode_returns)
        for episode_return in episode_returns:
            self._recent.append(episode_return)
            if self.first_mean is None:
                self.first_mean = self.settled_mean

    def recall(self, episode_return: float) -> None:
        """An episode of before the run was resumed, which `count` has."""
        self._recent.append(episode_return)

    def newest(self) -> list[float | None]:
        """The newest returns, oldest first: what the page adds to its chart; null if not finite."""
        return [_finite(it) for it in self._recent][-NEWEST_EPISODES:]

    @property
    def settled_mean(self) -> float | None:
        """Mean of the last 100, once there are that many."""
        recent = self._recent
        return float(np.mean(recent)) if len(recent) == RECENT_EPISODES else None

    def summary(self) -> Status:
        """Mean and std of the last 100, the total count, and the last one."""
        recent = self._recent
        last = _finite(recent[-1] if recent else None)
        return {**_mean_and_std(recent), "count": self.count, "last": last}


class TestReturns:
    """Raw returns of the last evaluation, greedy or sampled."""

    def __init__(self) -> None:
        self._count = 0
        self._env_steps: int | None = None
        self._returns: list[float] = []

    def set(self, env_steps: int, returns: list[float]) -> None:
        """The returns of a policy trained for so many env steps."""
        self._env_steps = env_steps
        self._returns = returns
        self._count += len(returns)

    def summary(self) -> Status:
        """Mean and std of the last evaluation, its env steps, and the total count."""
        spread = _mean_and_std(self._returns)
        return {**spread, "count": self._count, "env_steps": self._env_steps}


def _mean_and_std(returns: Sequence[float]) -> Status:
    """Both null if there are no returns, or ones that are not finite, of which it gives the number."""
    with np.errstate(invalid="ignore"):
        mean, std = (float(f(returns)) if returns else None for f in (np.mean, np.std))
    nonfinite = len(returns) - sum(map(math.isfinite, returns))
    return {"mean": _finite(mean), "std": _finite(std), "nonfinite": nonfinite}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def make_status(
    run: Status,
    config: Config,
    engine: Engine,
    all_returns: tuple[Returns, Mapping[str, TestReturns]],
) -> Status:
    """The document, schema 1: keys may be added, never renamed.

    `all_returns` are the training returns and the test returns.
    """
    (returns, tests), counters = all_returns, engine.telemetry
    workers = _shown_workers(engine)
    options = {name: getattr(config, name) for name in SHOWN_OPTIONS}
    return {
        "schema": SCHEMA,
        "run": {
            **run,
            "mode": config.mode,
            "env": config.env_name,
            "seed": config.seed,
            "options": options,
        },
        "progress": _progress(run["state"], config, counters) | {"episodes": returns.count},
        "throughput": _throughput(engine, config.mode_facts, run["state"]),
        "returns": {
            "train": returns.summary(),
            "test": {policy: test.summary() for policy, test in tests.items()},
        },
        "losses": _losses(counters, config.mode_facts),
        "policy_lag": counters.policy_lag(),
        "orchestrator": _usage(os.getpid(), engine.usage),
        "updater": _updater_status(engine.updater, config, counters),
        "evaluator": {
            **_child_status(engine.evaluator),
            **({} if config.eval_interval_s else {"state": "off"}),
            "evaluations": counters.evaluator.count("records"),
        },
        "workers": [_worker_status(slot, counters) for slot in workers],
        "rings": [engine.ring_status(slot.index) for slot in workers],
        "hosts": engine.hosts(),
        "engine": _child_status(engine.bridge) if engine.bridge else None,
    }


def _progress(state: str, config: Config, counters: Telemetry) -> Status:
    is_training = state in TRAINING_STATES
    return {
        "env_steps": counters.env_steps,
        "total_env_steps": config.total_env_steps,
        "updates": counters.updates_made,
        "policy_version": counters.updater.count("policy_version"),
        "time_left_s": _time_left_s(config, counters) if is_training else None,
    }


def _shown_workers(engine: Engine) -> Sequence[ChildView]:
    """All workers; of very many only those in trouble, since `hosts` has the sums of the others."""
    if len(engine.workers) <= MOST_SHOWN:
        return engine.workers
    return [slot for slot in engine.workers if slot.state != "running"][:MOST_SHOWN]


def _throughput(engine: Engine, mode: ModeFacts, state: str) -> Status:
    """Rates and the bottleneck."""
    counters, workers = engine.telemetry, engine.workers
    waits = [counters.worker_wait_per_s(slot.index) for slot in workers]
    updater_waits = min(1.0, counters.updater_wait_per_s)
    workers_wait = min(1.0, statistics.fmean(waits)) if waits else 0.0
    children = {"the updater": engine.updater} | {f"worker {slot.index}": slot for slot in workers}
    down = [
        Down(name, slot.state, slot.last_exit)
        for name, slot in children.items()
        if slot.state != "running"
    ]
    if is_down(engine.evaluator):
        down.append(Down("the evaluator", engine.evaluator.state, engine.evaluator.last_exit))
    if engine.bridge and is_down(engine.bridge):
        down.insert(0, Down("the engine", engine.bridge.state, engine.bridge.last_exit))
    bottleneck, advice = advise(mode, state, updater_waits, workers_wait, down)
    return {
        "env_steps_per_s": round(counters.env_steps_per_s, 1),
        "updates_per_s": round(counters.updates_per_s, 1),
        "bottleneck": bottleneck,
        "updater_wait_share": round(updater_waits, 3),
        "worker_wait_share": round(workers_wait, 3),
        "advice": advice,
    }


def is_down(slot: ChildView) -> bool:
    """Whether a child has died and is not, or not yet, back."""
    return slot.last_exit is not None and slot.state not in ("running", "stopping")


def state_in(phase: RunState, is_paused: Callable[[], bool], engine: Engine) -> RunState:
    """The state of a run in a phase of its life; while it trains, its children decide.

    Only then there is memory in which it is said whether it is paused.
    """
    if phase != "running":
        return phase
    children = (engine.updater, engine.evaluator, *engine.workers)
    training: RunState = "degraded" if any(map(is_down, children)) else "running"
    return "paused" if is_paused() else training


def how_ended(error: Exception | None, budget_is_used_up: bool) -> RunState:
    """The last state of a run: only one that was trained to its budget has finished."""
    if error is not None:
        return "failed"
    return "finished" if budget_is_used_up else "stopped"


def _losses(counters: Telemetry, mode: ModeFacts) -> Status:
    """Of the latest update; null before this start's first, and for losses the mode does not have."""
    told: Status = {name: _finite(counters.updater.value(name)) for name in LOSSES}
    has_learned = any(told.values())  # a resumed run has made updates, but has no losses yet
    of_mode = (*mode.losses, *mode.diagnostics, "value_unit", "learning_rate")
    known = of_mode if has_learned else ()
    return told | {name: None for name in LOSSES if name not in known}


def _time_left_s(config: Config, counters: Telemetry) -> float | None:
    """Time to the end of the budget at the current rate; null if that is 0."""
    left, per_second = config.total_env_steps - counters.env_steps, counters.env_steps_per_s
    return round(max(0, left) / per_second, 1) if per_second else None


def _child_status(slot: ChildView) -> Status:
    return {
        **_usage(slot.pid, slot.usage),
        "state": slot.state,
        "restarts": slot.restarts,
        "last_exit": slot.last_exit,
        "exits": dict(slot.exits),
    }


def _usage(pid: int | None, usage: Usage) -> Status:
    """A process with its CPU and resident memory; of one that has ended, what it has used."""
    share = usage.cpu_share if pid else None
    return {
        "pid": pid,
        "cpu_s": round(usage.cpu_s, 2),
        "cpu_share": None if share is None else round(share, 3),
        "rss_bytes": usage.rss_bytes if pid else None,
    }


def _updater_status(slot: ChildView, config: Config, counters: Telemetry) -> Status:
    row = counters.updater
    return {
        **_child_status(slot),
        "threads": config.update_threads,
        "wait_s": round(row.value("wait_s"), 3),
        "update_s": round(row.value("update_s"), 3),
        "stale": row.count("stale"),
        "discarded": row.count("discarded"),
        "rejected": row.count("rejected"),
        "torn_steps": row.count("torn_steps"),
        "nonfinite": row.count("nonfinite"),
        "rollbacks": row.count("rollbacks"),
        "checkpoint_at": row.value("checkpoint_time") or None,
    }


def _worker_status(slot: ChildView, counters: Telemetry) -> Status:
    row, lag = counters.workers[slot.index], counters.worker_policy_lag(slot.index)
    return {
        "id": slot.index,
        **_child_status(slot),
        "generation": slot.generation,
        "env_steps": row.count("env_steps"),
        "env_steps_per_s": round(counters.worker_env_steps_per_s(slot.index), 1),
        "wait_s": round(row.value("wait_s"), 3),
        "policy_lag": None if lag is None else round(lag, 2),
    }
