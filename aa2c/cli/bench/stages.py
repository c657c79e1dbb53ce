"""The stages of a run, each alone on all cores: env steps, inference, learning.

Each core gets a process with environments, a policy that acts and one that learns. All processes do
the same stage at the same time: caches, memory bandwidth and clock are shared, so that a single
core's rate would be too optimistic.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

from aa2c.cli.signals import born_deaf
from aa2c.config.config import Config
from aa2c.envs.actions import random_actions
from aa2c.envs.vector import env_spec, make_envs
from aa2c.host.child import keep_freed_memory
from aa2c.learn.batch import take_rows
from aa2c.learn.optimizer import make_optimizer
from aa2c.learn.rollout import Rollout, collect
from aa2c.modes.common import rollout_loss
from aa2c.modes.mode import MODES, UpdaterSetup
from aa2c.policy.fast_cpu import ChosenPrecision, choose_precision
from aa2c.policy.flat import FlatParameters
from aa2c.policy.network import make_policy
from aa2c.ports import Record, UpdaterPort

START_S = 120.0

Work = Callable[[], int]  # does a piece of a stage; returns its env steps


def describe(config: Config) -> tuple[int, int, ChosenPrecision, str]:
    """Bytes of a record's arrays and of the parameters; the precision, and another one or "".

    Raises what would break every process.
    """
    spec = env_spec(config)
    policy = make_policy(config, spec)
    num_params = FlatParameters(policy).num_params
    record = MODES[config.mode].record_leaves(config, spec, num_params)
    others = set()
    if any(isinstance(layer, torch.nn.Conv2d) for layer in policy.modules()):
        others = {"float32", choose_precision("auto").name} - {policy.precision.name}
    return sum(leaf.nbytes for leaf in record), 4 * num_params, policy.precision, "".join(others)


class Stages:
    """The work of each stage, in one process."""

    def __init__(self, config: Config, seed: int) -> None:
        torch.set_num_threads(1)
        keep_freed_memory()
        self._config = replace(config, update_threads=1)
        self._rng = np.random.default_rng(config.seed)
        self._generator = torch.Generator().manual_seed(0)
        self._envs = make_envs(config, config.num_envs, seed)
        self._acting, self.learning = (make_policy(config, self._envs.spec) for _ in range(2))
        self._chosen = self._acting.precision
        in_records = config.mode_facts.loss_in == "updater"
        state = self._acting.initial_state(config.num_envs)
        self._rollout = Rollout(self._envs, config, state, in_records=in_records)
        self._learn = self._learn_batch() if in_records else self._learn_rollout()

    def work(self, stage: str, batch_size: int, precision: str) -> Work:
        """One stage's work, acting on so many observations at once; in a precision, if one is named."""
        choice = (
            ChosenPrecision(getattr(torch, precision), "measured") if precision else self._chosen
        )
        self._acting.precision = self.learning.precision = choice
        works = {
            "env": self._step_envs,
            "act": self._act(batch_size),
            "learn": self._learn,
            "cpu_ns": self._use_core,
        }
        return works[stage]

    def _step_envs(self) -> int:
        envs = self._envs
        envs.step(random_actions(envs.spec.actions, envs.num_envs, self._rng, envs.mask))
        return envs.num_envs

    def _use_core(self) -> int:
        """Some work; returns the CPU time that it took, in ns, instead of env steps."""
        before = time.process_time_ns()
        self._step_envs()
        return time.process_time_ns() - before

    def _act(self, batch_size: int) -> Work:
        """Choose actions for so many observations, as many times as in a rollout."""
        policy, steps = self._acting, self._config.num_steps
        rows = torch.arange(batch_size) % self._config.num_envs
        obs = take_rows(torch.from_numpy(self._rollout.now), rows)
        is_first = torch.zeros(batch_size, dtype=torch.bool)
        mask = None
        if self._envs.spec.has_mask:
            mask = torch.ones(batch_size, policy.actions.num_mask, dtype=torch.bool)

        def act() -> int:
            policy.pack()
            state = policy.initial_state(batch_size)
            with torch.inference_mode():
                for _ in range(steps):
                    state = policy.step(obs, state, is_first, mask, generator=self._generator).state
            return steps * batch_size

        return act

    def _learn_rollout(self) -> Work:
        """Where workers evaluate the loss: gradient of a rollout and an optimizer step."""
        config, policy, rollout = self._config, self.learning, self._rollout
        params = FlatParameters(policy)
        optimizer = make_optimizer(config, params.vector)
        optimizer.param_groups[0]["params"][0].grad = params.grad
        collect(self._envs, policy, rollout, self._generator)

        def learn() -> int:
            losses = rollout_loss(config, policy, rollout, 0)
            params.grad.zero_()
            losses.total.backward()  # type: ignore[no-untyped-call]
            params.clip_grad_norm(config.max_grad_norm)
            optimizer.step()
            return rollout.env_steps

        return learn

    def _learn_batch(self) -> Work:
        """Where the updater evaluates it: all passes over a batch of rollouts, as records hold them."""
        config, policy, mode = self._config, self.learning, MODES[self._config.mode]
        params = FlatParameters(policy)
        leaves = mode.record_leaves(config, self._envs.spec, params.num_params)
        port = cast(UpdaterPort, SimpleNamespace(config_now=lambda: config))
        learner = mode.make_consumer(UpdaterSetup(config, params, policy, leaves, port))
        records = []
        for _ in range(learner.records_per_update):
            arrays = {leaf.name: np.zeros(leaf.shape, leaf.dtype) for leaf in leaves}
            self._rollout.write_into(arrays)
            collect(self._envs, policy, self._rollout, self._generator)
            records.append(cast(Record, SimpleNamespace(arrays=arrays)))

        def learn() -> int:
            learner.consume(records, config.learning_rate, lambda: True)
            return len(records) * config.num_steps * config.num_envs

        return learn


_stages: Stages
_together: threading.Barrier


def _set_up(config: Config, together: Any) -> None:
    global _stages, _together
    _stages, _together = Stages(config, os.getpid()), together


def _measure(stage: str, seconds: float, batch_size: int, precision: str) -> float:
    """Env steps per second of this process, while all others do the same stage."""
    work = _stages.work(stage, batch_size, precision)
    work()
    _together.wait(START_S)
    started = now = time.perf_counter()
    done = 0
    while now - started < seconds:
        done += work()
        now = time.perf_counter()
    _together.wait(START_S)
    return done / (now - started)


@contextlib.contextmanager
def all_cores(config: Config, cores: int) -> Iterator[Callable[..., float]]:
    """A process per core. What it gives lets all of them do one stage: `env`, `act`, `learn` or `cpu_ns`.

    It returns env steps per second of the whole machine, or CPU time per second, in ns.
    """
    spawn = multiprocessing.get_context("spawn")
    setup = (config, spawn.Barrier(cores))
    with ProcessPoolExecutor(cores, spawn, initializer=_set_up, initargs=setup) as pool:

        def rate(stage: str, seconds: float, batch_size: int = 0, precision: str = "") -> float:
            # Each process waits in the barrier for all others, so that each gets exactly one job.
            job = (stage, seconds, batch_size or config.num_envs, precision)
            with born_deaf():  # the pool starts its processes when it is given jobs
                futures = [pool.submit(_measure, *job) for _ in range(cores)]
            return sum([future.result() for future in futures])

        try:
            yield rate
        except BaseException:  # such as Ctrl-C: nobody waits for what they measure
            for child in multiprocessing.active_children():
                child.kill()
            raise
