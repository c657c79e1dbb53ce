"""The stages of a run, each alone on all cores: env steps, inference, learning.

Each core gets a process that holds a worker and an updater, with shared memory of its own. All
processes do the same stage at the same time: caches, memory bandwidth and clock are shared, so that
a single core's rate would be too optimistic.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from aa2c.config.config import Config
from aa2c.envs.actions import random_actions
from aa2c.envs.vector import Envs, make_envs
from aa2c.host.child import keep_freed_memory
from aa2c.host.ports import ShmUpdaterPort, ShmWorkerPort
from aa2c.host.resting import Resting
from aa2c.learn.optimizer import make_optimizer
from aa2c.learn.rollout import Rollout, collect
from aa2c.modes.common import rollout_loss
from aa2c.modes.mode import MODES, UpdaterSetup, WorkerSetup
from aa2c.modes.traj import rollouts_per_batch
from aa2c.modes.traj.updater import take_rows
from aa2c.policy.fast_cpu import Choice, choose_precision
from aa2c.policy.flat import FlatParameters
from aa2c.policy.network import make_policy
from aa2c.policy.policy import Policy
from aa2c.shm.board import ParameterBoard, board_bytes
from aa2c.shm.counters import run_row, table_bytes, updater_row, worker_row
from aa2c.shm.ring import RingConsumer, RingProducer, ring_bytes
from aa2c.shm.segment import Segment, name_prefix
from aa2c.shm.slot import ArraySpec, slot_bytes
from aa2c.shm.wakeup import Wakeup

START_S = 120.0

Work = Callable[[], int]  # does a piece of a stage; returns its env steps


def env_stage(config: Config, envs: Envs) -> Work:
    """Step a worker's environments with random actions."""
    rng = np.random.default_rng(config.seed)

    def step() -> int:
        envs.step(random_actions(envs.spec.actions, config.num_envs, rng, envs.mask))
        return config.num_envs

    return step


def act_stage(config: Config, policy: Policy, obs: torch.Tensor) -> Work:
    """Choose actions for observations [B, …], as many times as in a rollout."""
    generator = torch.Generator().manual_seed(0)
    is_first = torch.zeros(len(obs), dtype=torch.bool)
    mask = None
    if config.action_mask != "none":
        mask = torch.ones(len(obs), policy.actions.num_mask, dtype=torch.bool)

    def act() -> int:
        policy.pack()
        state = policy.initial_state(len(obs))
        with torch.inference_mode():
            for _ in range(config.num_steps):
                state = policy.step(obs, state, is_first, mask, generator=generator).state
        return config.num_steps * len(obs)

    return act


def rollout_stage(config: Config, envs: Envs, network: Policy) -> Work:
    """Modes grad and model: gradient of a rollout and an optimizer step."""
    params = FlatParameters(network)
    optimizer = make_optimizer(config, params.vector)
    (parameter,) = optimizer.param_groups[0]["params"]
    parameter.grad = params.grad
    rollout = Rollout(envs, config, network.initial_state(envs.num_envs))
    collect(envs, network, rollout, torch.Generator().manual_seed(0))

    def learn() -> int:
        losses = rollout_loss(config, network, rollout, 0)
        params.grad.zero_()
        losses.total.backward()  # type: ignore[no-untyped-call]
        params.clip_grad_norm(config.max_grad_norm)
        optimizer.step()
        return rollout.env_steps

    return learn


def batch_stage(config: Config, envs: Envs, network: Policy) -> Work:
    """Where the updater evaluates the loss: all passes over a batch of real rollouts from a ring."""
    params, mode = FlatParameters(network), MODES[config.mode]
    count = rollouts_per_batch(config)
    worker_port, updater_port = _ports(config, envs, params, slots=count)
    replica, generator = make_policy(config, envs.spec), torch.Generator().manual_seed(0)
    worker = mode.make_producer(WorkerSetup(config, 0, envs, replica, generator))
    for _ in range(count):
        worker.produce(worker_port)
    records = updater_port.take(count)
    leaves = mode.record_leaves(config, envs.spec, params.num_params)
    alone = replace(config, update_threads=1)
    learner = mode.make_consumer(UpdaterSetup(alone, params, network, leaves, updater_port))

    def learn() -> int:
        learner.consume(records, config.learning_rate, updater_port.beat)
        return count * config.num_steps * config.num_envs

    return learn


def _ports(
    config: Config, envs: Envs, params: FlatParameters, *, slots: int
) -> tuple[ShmWorkerPort, ShmUpdaterPort]:
    """Both ends of a worker's ring in one process, with parameters published."""
    leaves = MODES[config.mode].record_leaves(config, envs.spec, params.num_params)
    specs = [ArraySpec(*leaf) for leaf in leaves]
    record_bytes = slot_bytes(tuple(specs))
    ring, board_memory, counters = (
        _anonymous(name, nbytes)
        for name, nbytes in (
            ("ring", ring_bytes(slots, record_bytes)),
            ("board", board_bytes(params.num_params)),
            ("counters", table_bytes(1)),
        )
    )
    board = ParameterBoard(board_memory, params.num_params)
    space, records = Wakeup(), Wakeup()
    worker_port = ShmWorkerPort(
        config,
        RingProducer(ring, slots, record_bytes, specs, worker=0, generation=0),
        board,
        worker_row(counters, 0),
        run_row(counters),
        resting=Resting(counters),
        updater=updater_row(counters),
        space=space,
        records=records,
        hear=_hear_nothing,
        report=_report_nothing,
    )
    updater_port = ShmUpdaterPort(
        config,
        board,
        counters,
        spaces=[space],
        records=records,
        hear=_hear_nothing,
        report=_report_nothing,
    )
    updater_port.attach_ring(RingConsumer(ring, slots, record_bytes, worker=0, generation=0))
    updater_port.publish(params.numpy)
    return worker_port, updater_port


def _anonymous(name: str, nbytes: int) -> Segment:
    """Shared memory that vanishes with its process."""
    segment = Segment.create(name_prefix("bench") + name, nbytes)
    segment.unlink()
    return segment


def _hear_nothing() -> bool:
    return True


def _report_nothing(kind: str, **fields: Any) -> None:
    pass


class Bench:
    """What a process needs for each stage."""

    def __init__(self, config: Config, seed: int) -> None:
        torch.set_num_threads(1)
        self._config = config
        self._envs = make_envs(config, config.num_envs, seed)
        self._acting, self._learning = (make_policy(config, self._envs.spec) for _ in range(2))
        stage = batch_stage if config.mode_facts.loss_in == "updater" else rollout_stage
        self._learn = stage(config, self._envs, self._learning)
        self._step = env_stage(config, self._envs)
        self._chosen = self._acting.precision

    def work(self, stage: str, batch_size: int, precision: str) -> Work:
        """One stage's work, acting on so many observations at once; in a precision, if one is named."""
        choice = Choice(getattr(torch, precision), "measured") if precision else self._chosen
        self._acting.precision = self._learning.precision = choice
        if stage == "env":
            return self._step
        if stage == "learn":
            return self._learn
        return act_stage(self._config, self._acting, self._obs(batch_size))

    @property
    def precisions(self) -> tuple[Choice, str]:
        """The precision in which the network computes here, and the name of another, or ""."""
        if not any(isinstance(layer, torch.nn.Conv2d) for layer in self._acting.modules()):
            return self._chosen, ""
        best = choose_precision("auto")
        others = {"float32", best.name} - {self._chosen.name}
        return self._chosen, others.pop() if others else ""

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes of a record's arrays, and of the parameters."""
        num_params = FlatParameters(make_policy(self._config, self._envs.spec)).num_params
        specs = MODES[self._config.mode].record_leaves(self._config, self._envs.spec, num_params)
        return sum(spec.nbytes for spec in specs), 4 * num_params

    def _obs(self, batch_size: int) -> torch.Tensor:
        """Observations as a rollout holds them."""
        rollout = Rollout(self._envs, self._config)
        rows = np.arange(batch_size) % self._config.num_envs
        obs = torch.from_numpy(rollout.now)
        return take_rows(obs, torch.from_numpy(rows))


_bench: Bench
_together: threading.Barrier


def _set_up(config: Config, together: Any) -> None:
    global _bench, _together
    keep_freed_memory()
    _bench, _together = Bench(config, os.getpid()), together


def _measure(stage: str, batch_size: int, seconds: float, precision: str) -> float:
    """Env steps per second of this process, while all others do the same stage."""
    work = _bench.work(stage, batch_size, precision)
    work()
    _together.wait(START_S)
    started = now = time.perf_counter()
    done = 0
    while now - started < seconds:
        done += work()
        now = time.perf_counter()
    _together.wait(START_S)
    return done / (now - started)


def _sizes() -> tuple[int, int]:
    return _bench.sizes


def _precisions() -> tuple[Choice, str]:
    return _bench.precisions


class AllCores:
    """A process per core, as a context manager; `rate` lets all of them do one stage."""

    def __init__(self, config: Config) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.count = len(os.sched_getaffinity(0))
        self._num_envs = config.num_envs
        self._pool = ProcessPoolExecutor(
            self.count, spawn, initializer=_set_up, initargs=(config, spawn.Barrier(self.count))
        )

    def rate(self, stage: str, seconds: float, batch_size: int = 0, precision: str = "") -> float:
        """Env steps per second of the whole machine on a stage: env, act or learn."""
        # Each process waits in the barrier for all others, so that each gets exactly one job.
        jobs = [
            self._pool.submit(_measure, stage, batch_size or self._num_envs, seconds, precision)
            for _ in range(self.count)
        ]
        return sum(job.result() for job in jobs)

    def sizes(self) -> tuple[int, int]:
        """Bytes of a record's arrays, and of the parameters."""
        return self._pool.submit(_sizes).result()

    def precisions(self) -> tuple[Choice, str]:
        """The precision in which the network computes here, and the name of another, or ""."""
        return self._pool.submit(_precisions).result()

    def __enter__(self) -> AllCores:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
