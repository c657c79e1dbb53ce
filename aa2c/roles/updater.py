"""The updater process: optimizer, published parameters, checkpoints, and 1 … N update threads.

One thread takes records, publishes and saves; the mode's consumer divides the arithmetic of an
update over the update threads (see the mode's file), which all rest between two calls of
`consume`. So publishing and saving need no lock, and see no half-made update, in any order but
hogwild's.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import torch

from aa2c.checkpoints import tensors as checkpoint
from aa2c.checkpoints.files import KEPT_COUNTS, CheckpointError
from aa2c.config.config import Config
from aa2c.config.modes import WATCHED
from aa2c.envs.actions import most_entropy
from aa2c.envs.spec import EnvSpec, Leaf
from aa2c.failpoint import failpoint
from aa2c.modes.mode import MODES, UpdaterSetup
from aa2c.policy.flat import FlatParameters
from aa2c.policy.network import make_policy
from aa2c.policy.unused import without_effect
from aa2c.ports import Counters, Record, Report, UpdaterPort
from aa2c.roles.best import BestKept
from aa2c.roles.guard import Guard
from aa2c.roles.intake import Intake
from aa2c.roles.live_options import LiveOptions
from aa2c.roles.rate import LearningRate

RECENT_LAGS = 256

Connect = Callable[[int, Sequence[Leaf], Mapping[str, int]], UpdaterPort]


class Updater:
    """The policy that learns, with what is needed to step, publish and save it."""

    def __init__(
        self,
        setup: UpdaterSetup,
        spec: EnvSpec,
        run_dir: Path,
        newest_checkpoint: Callable[[], Path | None],
    ) -> None:
        config, self._params, self._policy, _, self._port = setup
        self._config = config
        self._spec = spec
        self._mode = MODES[config.mode]
        self.consumer = self._mode.make_consumer(setup)
        self._directory = run_dir / "checkpoints"
        self._counters = self._port.counters
        self._rate = LearningRate(self._port)
        self._options = LiveOptions(config, self._port)
        self._guard = Guard(config, self._port, newest_checkpoint, self._roll_back)
        self.intake = Intake(config, self.consumer, self._port, self._guard)
        self._lags: deque[int] = deque(maxlen=RECENT_LAGS)
        self._counters.set("most_entropy", most_entropy(spec.actions))
        self._saved_at = time.monotonic()
        self._saved: Path | None = None
        self._best = BestKept(config, self._port, self._directory)

    def take_and_learn(self) -> bool:
        """Take what waits, and update as often as it suffices for; False if nothing waited."""
        has_taken = self.intake.take()
        failpoint("updater.after_take")
        while records := self.intake.next_batch():
            self._learn(records)
            failpoint("updater.before_release")
            self._port.release(records)
        return has_taken

    def _learn(self, records: Sequence[Record]) -> None:
        """Update with these records, count them, and publish."""
        started = time.monotonic()
        counters, is_learned_already = self._counters, self._mode.workers_step
        if is_learned_already:  # the learning rate is for what follows
            self._count(records)
        learning_rate = self._rate.now()
        outcome = self.consumer.consume(records, learning_rate, self._port.beat)
        failpoint("updater.mid_update")
        if not is_learned_already:
            self._count(records)
        told = {"learning_rate": learning_rate} | dict(outcome.losses)
        for name in (*self._mode.losses, *self._mode.diagnostics, "learning_rate"):
            if name in told:
                counters.set(name, told[name])
        sum_up(counters, told)
        counters.set("value_unit", self._policy.unit_of_loss)
        counters.add("updates", outcome.updates)
        if outcome.policy_version is None:
            self._port.publish(self._params.numpy)
        else:
            counters.set("policy_version", outcome.policy_version)
        counters.add("update_s", time.monotonic() - started)
        if not outcome.nonfinite:
            self._guard.succeeded("update")
            return
        counters.add("nonfinite", outcome.nonfinite)
        for record in records:
            self._port.set_aside(record.arrays, record.header.values)
        self._guard.failed("update")

    def _count(self, records: Sequence[Record]) -> None:
        counters = self._counters
        version = counters.count("policy_version")
        for record in records:
            learned_at = self.consumer.learned_at(record, version)
            self._lags.append(max(0, learned_at - record.header.policy_version))
            self._port.count_lag(record.header.worker, self._lags[-1])
            counters.add("env_steps", record.header.values["env_steps"])
        counters.add("records", len(records))
        counters.set("lag_min", min(self._lags))
        counters.set("lag_max", max(self._lags))
        counters.set("lag_mean", sum(self._lags) / len(self._lags))

    def _roll_back(self, path: Path) -> None:
        """Be what the checkpoint was; records that were made since go, also those not yet here.

        With the live options of before, too, or at half the learning rate where none was set.
        """
        self.intake.undo(self.consumer.undone_version(self._counters.count("policy_version")))
        if not self._options.undo():
            self._rate.halve()
        saved = checkpoint.load_checkpoint(path)
        self._return_to(saved)
        if not self._mode.workers_step:
            self._port.publish(self._params.numpy)
        self._counters.add("rollbacks", 1)
        self._port.report(Report.ROLLED_BACK, path=str(path), learning_rate=self._rate.base)

    def _return_to(self, saved: checkpoint.Checkpoint) -> None:
        """Network and optimizer as they were; counts go on."""
        checkpoint.load_network(saved, self._policy)
        self.restore(saved, with_counts=False)

    def restore(self, saved: checkpoint.Checkpoint, *, with_counts: bool) -> None:
        """Resume from a checkpoint: optimizer, random numbers, and counts where they are a run's own.

        Counts of a run that is alive never go back. Raises `CheckpointError`.
        """
        if with_counts:
            for name in KEPT_COUNTS:
                self._counters.set(name, saved.counts[name])
        try:
            self.consumer.load_state(saved.optimizer, self._rate.now())
            torch.set_rng_state(saved.optimizer["rng"])
        except (ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(f"{saved.path} does not fit this run: {error}") from None

    def save_if_due(self) -> None:
        """Write a checkpoint if the last one is old enough, or if one is asked for.

        In lock-step only between two rounds, while all workers wait for their turn.
        """
        if not self.intake.is_between_rounds:
            return
        asked = self._port.run.count("checkpoints_wanted")
        if asked > self._counters.count("checkpoints_made"):
            path = self._try_to_save()
            self._counters.set("checkpoints_made", asked)
            if path:
                self._port.report(Report.CHECKPOINT, path=str(path))
        elif (
            time.monotonic() - self._saved_at >= self._config.checkpoint_interval_s
            or self._best.is_due()
        ):
            self._try_to_save()

    def save_last(self) -> Path:
        """At the end. In lock-step a round that was cut off is not saved: the last whole one is."""
        if self._config.deterministic and self._saved:
            return self._saved
        last = self.save()
        return self._return_to_best(last) if self._config.keep_best else last

    def _return_to_best(self, last: Path) -> Path:
        """Save the best checkpoint's network and optimizer as the newest, with the run's own counts.

        Unless the last one is the best.
        """
        saved = checkpoint.load_checkpoint(self._directory, best=True)
        if saved.path.name == last.name or saved.score is None:
            return last
        self._return_to(saved)
        path = self._save_unless_full(score=saved.score)
        if path is None:
            return last
        self._port.report(Report.RETURNED, name=saved.path.name, score=saved.score)
        return path

    def _try_to_save(self) -> Path | None:
        states = self._port.worker_states() if self._config.deterministic else {}
        return self._save_unless_full(states) if states is not None else None

    def _save_unless_full(
        self,
        worker_states: Mapping[int, bytes] = MappingProxyType({}),
        *,
        score: float | None = None,
    ) -> Path | None:
        """A full disk costs a checkpoint, not the run."""
        try:
            return self.save(worker_states, score=score)
        except OSError as error:
            self._port.report(Report.UNSAVED, reason=str(error))
            return None

    def _config_to_save(self) -> Config:
        guard, now = self._guard, self._port.config_now()
        config = self._options.to_save(is_failing=guard.is_failing, has_failed=guard.has_ended_run)
        is_set_back = config.learning_rate != now.learning_rate
        return config if is_set_back else replace(config, learning_rate=self._rate.base)

    def save(
        self,
        worker_states: Mapping[int, bytes] = MappingProxyType({}),
        *,
        score: float | None = None,
    ) -> Path:
        """Write a checkpoint; returns its directory. Its score is that of the last episodes, or given."""
        self._saved_at = time.monotonic()
        state = self.consumer.state()  # first: it may bring the parameters up to date
        counts = {name: self._counters.count(name) for name in KEPT_COUNTS}
        path = checkpoint.save(
            self._directory,
            network=self._policy,
            optimizer=state,
            config=self._config_to_save(),
            spec=self._spec,
            counts=counts | {"episodes": self._port.run.count("episodes")},
            rng=torch.get_rng_state(),
            score=self._best.score_now() if score is None else score,
            keep=self._config.checkpoints_kept,
            worker_states=worker_states,
        )
        self._saved = path
        self._best.saved()
        self._counters.set("checkpoint_time", time.time())
        return path


def sum_up(counters: Counters, told: Mapping[str, float]) -> None:
    """Add to the sums from which means over many updates are made.

    Explained variances far below 0, where returns hardly vary, count as -1: one would hide all others.
    """
    for name in WATCHED:
        value = told.get(name, math.nan)
        if math.isfinite(value):
            counters.add(f"{name}_sum", max(value, -1.0) if name == "explained_variance" else value)
            counters.add(f"{name}_told", 1)


def run_updater(
    config: Config,
    run_dir: Path,
    wait_for_spec: Callable[[], EnvSpec],
    connect: Connect,
    newest_checkpoint: Callable[[], Path | None],
    *,
    is_restart: bool,
) -> None:
    """Learn until the port says stop, then from what still waits; ends with a checkpoint.

    `wait_for_spec` gives the spec of the workers' environments: nobody makes one more to learn it.
    `connect` gives the port for so many parameters, records of these leaves, and these shared vectors.
    The first parameters are published as soon as they may be learned from. It resumes from the newest
    checkpoint, if there is one: where it `is_restart`, the run's counts stay, and a network that
    workers step in shared memory is taken as it is. Raises `StartError` if the network cannot be
    made, and `CheckpointError` if the checkpoint does not fit.
    """
    spec = wait_for_spec()
    updater, port = _begin(config, run_dir, spec, connect, newest_checkpoint, is_restart=is_restart)
    port.report(Report.READY)
    while port.beat():
        updater.take_and_learn()
        updater.save_if_due()
        updater.intake.pass_turn()
    while not config.deterministic and updater.take_and_learn():
        port.beat()
    updater.intake.drop_pending()
    port.report(Report.SAVED, path=str(updater.save_last()))
    updater.consumer.close()


def _begin(
    config: Config,
    run_dir: Path,
    spec: EnvSpec,
    connect: Connect,
    newest_checkpoint: Callable[[], Path | None],
    *,
    is_restart: bool,
) -> tuple[Updater, UpdaterPort]:
    """Make the policy, connect, and resume from the newest checkpoint."""
    torch.manual_seed(config.seed)
    policy = make_policy(config, spec)
    path = newest_checkpoint()
    saved = checkpoint.load_checkpoint(path) if path else None
    if saved is not None:
        checkpoint.load_network(saved, policy)
    params = FlatParameters(policy)
    mode = MODES[config.mode]
    leaves = mode.record_leaves(config, spec, params.num_params)
    shared = mode.shared_vectors(config, params)
    port = connect(params.num_params, leaves, shared)
    must_wait = (
        saved is not None or mode.workers_step
    )  # until the optimizer's state is in its place
    if not must_wait:
        port.publish(params.numpy)
    setup = UpdaterSetup(config, params, policy, leaves, port)
    updater = Updater(setup, spec, run_dir, newest_checkpoint)
    if not updater.consumer.is_running:
        if saved is not None:
            updater.restore(saved, with_counts=not is_restart)
        if must_wait:
            port.publish(params.numpy, after=saved.counts["policy_version"] if saved else 0)
        if port.counters.count("updates"):
            port.report(Report.RESUMED, path=str(path) if path else None)
    port.report(Report.PRECISION, chosen=policy.precision.name, reason=policy.precision.reason)
    if not is_restart:
        port.report(Report.IGNORED, options=without_effect(config, spec, policy))
    return updater, port
