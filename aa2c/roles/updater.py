"""The updater process: optimizer, published parameters, checkpoints, and 1 … N update threads.

One thread takes records, publishes and saves; the mode's consumer divides the arithmetic of an
update over the update threads (see the mode's file), which all stand still between two calls of
`consume`. So publishing and saving need no lock, and see no half-made update, in any order but
hogwild's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import MappingProxyType

import torch

from aa2c.checkpoints import tensors as checkpoint
from aa2c.checkpoints.files import KEPT_COUNTS, CheckpointError
from aa2c.config.config import Config
from aa2c.envs.vector import EnvSpec, env_spec, make_envs
from aa2c.failpoint import failpoint
from aa2c.learn.rollout import observe_random_play
from aa2c.modes import MODES, Consumer
from aa2c.policy.flat import FlatParameters
from aa2c.policy.network import make_policy
from aa2c.policy.policy import Policy
from aa2c.ports import Record, UpdaterPort
from aa2c.shm.slot import ArraySpec

RECENT_LAGS = 256
LOSS_NAMES = ("policy", "value", "entropy", "grad_norm", "approx_kl", "learning_rate")
MOST_ROLLBACKS = 10


class Learner:
    """The network that learns, with what is needed to step, publish and save it."""

    def __init__(
        self,
        config: Config,
        spec: EnvSpec,
        network: Policy,
        params: FlatParameters,
        run_dir: Path,
        port: UpdaterPort,
        newest_checkpoint: Callable[[], Path | None],
    ) -> None:
        self._config = config
        self._spec = spec
        self._network = network
        self._params = params
        self._consumer: Consumer = MODES[config.mode].Consumer(config, params, network, port)
        self._is_shared = bool(MODES[config.mode].shared_vectors(config, params.num_params))
        self._directory = run_dir / "checkpoints"
        self._port = port
        self._counters = port.counters
        self._pending: list[Record] = []
        self._lags: deque[int] = deque(maxlen=RECENT_LAGS)
        self._saved_at = time.monotonic()
        self._newest_checkpoint = newest_checkpoint
        self._refused_in_a_row = self._failed_in_a_row = 0  # records; updates
        self._has_given_up = False
        wanted = self._consumer.records_per_update
        self._round = max(wanted, config.workers) if config.deterministic else 0  # in records
        self._taken = self._untold = 0
        self._is_saved = False

    @property
    def learning_rate(self) -> float:
        """The step size now, annealed over the env steps that were learned from."""
        config = self._port.config_now()
        if not config.anneal_learning_rate:
            return config.learning_rate
        left = 1 - self._counters.count("env_steps") / config.total_env_steps
        return config.learning_rate * max(0.0, left)

    def take_and_learn(self) -> bool:
        """Take what waits, and update as often as it suffices for; False if nothing waited."""
        taken = self._port.take(self._config.workers * self._config.ring_slots)
        failpoint("updater.after_take")
        self._taken += len(taken)
        self._untold += len(taken)
        self._admit(taken)
        while count := self._next_batch():
            records, self._pending = self._pending[:count], self._pending[count:]
            self._learn(records)
            failpoint("updater.before_release")
            self._port.release(records)
        return bool(taken)

    def _next_batch(self) -> int:
        """How many of the pending records are to be learned from now; in lock-step a round's."""
        self._drop_stale()
        if self._round:
            return len(self._pending) if self._taken % self._round == 0 else 0
        wanted = self._consumer.records_per_update or len(self._pending)
        return wanted if wanted <= len(self._pending) else 0

    def _admit(self, records: Sequence[Record]) -> None:
        """Keep what can be learned from; the others are counted and given back."""
        for record in records:
            if self._consumer.accepts(record):
                self._refused_in_a_row = 0
                self._pending.append(record)
            else:
                self._reject(record)

    def _drop_stale(self) -> None:
        """Count and give back what lags too far by now, though it may not have when it was taken."""
        if not self._config.max_policy_lag:
            return
        oldest = self._counters.count("policy_version") - self._config.max_policy_lag
        stale = [record for record in self._pending if record.header.policy_version < oldest]
        self._pending = [
            record for record in self._pending if record.header.policy_version >= oldest
        ]
        self._counters.add("stale", len(stale))
        self._port.release(stale)

    def _learn(self, records: Sequence[Record]) -> None:
        """Update with these records, count them, and publish."""
        started = time.monotonic()
        if self._is_shared:  # these were learned from already: the step size is for the next
            self._count(records)
        learning_rate = self.learning_rate
        outcome = self._consumer.consume(records, learning_rate, self._port.beat)
        failpoint("updater.mid_update")
        if not self._is_shared:
            self._count(records)
        for name, loss in ({"learning_rate": learning_rate} | dict(outcome.losses)).items():
            if name in LOSS_NAMES:
                self._counters.set(name, loss)
        self._counters.add("updates", outcome.updates)
        if outcome.policy_version is None:
            self._port.publish(self._params.numpy)
        else:
            self._counters.set("policy_version", outcome.policy_version)
        self._counters.add("update_s", time.monotonic() - started)
        if outcome.nonfinite:
            self._counters.add("nonfinite", outcome.nonfinite)
            for record in records:
                self._port.set_aside(record.arrays, record.header.values)
            self._failed_in_a_row += 1
            self._end_row_of(self._failed_in_a_row)
        else:
            self._failed_in_a_row = 0

    def _reject(self, record: Record) -> None:
        if not self._counters.count("rejected"):
            self._port.report("rejected", worker=record.header.worker)
        self._counters.add("rejected", 1)
        if record.arrays:
            self._port.set_aside(record.arrays, record.header.values)
        self._port.release([record])
        self._refused_in_a_row += 1
        self._end_row_of(self._refused_in_a_row)

    def _end_row_of(self, bad: int) -> None:
        """After too many in a row, go back to the newest checkpoint, or let the run end."""
        limit = self._config.nonfinite_limit
        if not limit or bad < limit or self._has_given_up:
            return
        self._refused_in_a_row = self._failed_in_a_row = 0
        rollbacks = self._counters.count("rollbacks")
        saved = self._newest_checkpoint() if self._config.nonfinite_action == "rollback" else None
        if saved is not None and rollbacks < MOST_ROLLBACKS:
            self._roll_back(saved)
            return
        self._has_given_up = True
        remedy = f"went back {rollbacks} times" if rollbacks else "stops, and keeps what it has"
        self._port.report(
            "fatal",
            message=f"losses or gradients of {limit} records in a row were not finite "
            f"(--nonfinite-limit); the run {remedy}: see its set_aside/.",
        )

    def _roll_back(self, path: Path) -> None:
        """Be what the checkpoint was; what waits was made with what is given up, and goes, too."""
        self._port.release(self._pending)
        self._pending = []
        saved = checkpoint.load_checkpoint(path)
        checkpoint.load_network(saved, self._network)
        self.restore(saved, with_counts=False)
        if not self._is_shared:
            self._port.publish(self._params.numpy)
        self._counters.add("rollbacks", 1)
        self._port.report("rolled_back", path=str(path))

    def _count(self, records: Sequence[Record]) -> None:
        counters = self._counters
        version = counters.count("policy_version")
        for record in records:
            header = record.header
            learned_at = int(header.values.get("learned_at", version))
            self._lags.append(max(0, learned_at - header.policy_version))
            self._port.count_lag(self._lags[-1])
            counters.add("env_steps", header.values["env_steps"])
        counters.add("records", len(records))
        counters.set("lag_min", min(self._lags))
        counters.set("lag_max", max(self._lags))
        counters.set("lag_mean", sum(self._lags) / len(self._lags))

    def restore(self, saved: checkpoint.Checkpoint, *, with_counts: bool) -> None:
        """Go on from a checkpoint: optimizer, random numbers, and counts where they are a run's own.

        Counts of a run that goes on never go back. Raises `CheckpointError`.
        """
        if with_counts:
            for name in KEPT_COUNTS:
                self._counters.set(name, saved.counts[name])
        try:
            self._consumer.load_state(saved.optimizer, self.learning_rate)
            torch.set_rng_state(saved.optimizer["rng"])
        except (ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(f"{saved.path} does not fit this run: {error}") from None

    @property
    def _is_done(self) -> bool:
        return self._counters.count("env_steps") >= self._config.total_env_steps

    def pass_turn(self) -> None:
        """In lock-step: let the workers begin their next records, unless the budget is used up."""
        if self._untold and not self._is_done:
            self._port.pass_turn(self._untold)
            self._untold = 0

    def save_if_due(self) -> None:
        """Write a checkpoint if the last one is old enough, or if one is asked for.

        In lock-step only between two rounds, while all workers wait for their turn.
        """
        if self._round and (not self._untold or self._taken % self._round):
            return
        asked = self._port.run.count("checkpoints_wanted")
        if asked > self._counters.count("checkpoints_made"):
            path = self._try_to_save()
            self._counters.set("checkpoints_made", asked)
            if path:
                self._port.report("checkpoint", path=str(path))
        elif time.monotonic() - self._saved_at >= self._config.checkpoint_interval_s:
            self._try_to_save()

    def save_last(self) -> None:
        """At the end. In lock-step a round that was cut off is not saved: the last whole one is."""
        if not (self._round and self._is_saved):
            self.save()

    def _try_to_save(self) -> Path | None:
        """A full disk costs a checkpoint, not the run."""
        states = self._port.worker_states() if self._round else {}
        try:
            return self.save(states) if states is not None else None
        except OSError as error:
            self._port.report("unsaved", reason=str(error))
            return None

    def save(self, worker_states: Mapping[int, bytes] = MappingProxyType({})) -> Path:
        """Write a checkpoint; returns its directory."""
        self._saved_at = time.monotonic()
        state = self._consumer.state()  # first: it may bring the parameters up to date
        counts = {name: self._counters.count(name) for name in KEPT_COUNTS}
        score = self._port.run.value("train_return_mean")
        path = checkpoint.save(
            self._directory,
            network=self._network,
            optimizer=state,
            config=self._port.config_now(),
            spec=self._spec,
            counts=counts | {"episodes": self._port.run.count("episodes")},
            rng=torch.get_rng_state(),
            score=score if self._port.run.count("episodes_in_mean") else None,
            keep=self._config.checkpoints_kept,
            worker_states=worker_states,
        )
        self._is_saved = True
        self._counters.set("checkpoint_time", time.time())
        return path

    def close(self) -> None:
        self._consumer.close()


def run_updater(
    config: Config,
    run_dir: Path,
    connect: Callable[[int, list[ArraySpec], dict[str, int]], UpdaterPort],
    newest_checkpoint: Callable[[], Path | None],
    *,
    is_restart: bool,
) -> None:
    """Learn until the port says stop, then from what still waits; ends with a checkpoint.

    `connect` gives the port for so many parameters, records of these arrays, and these shared
    vectors. The first parameters are published as soon as they may be learned from. It goes on from
    the newest checkpoint, if there is one: where it `is_restart`, the run's counts stay, and a network
    that workers step in shared memory is taken as it is. Raises `StartError` if the environment or
    its network cannot be made, and `CheckpointError` if the checkpoint does not fit.
    """
    learner, port = _begin(config, run_dir, connect, newest_checkpoint, is_restart=is_restart)
    port.report("ready")
    while port.beat():
        learner.take_and_learn()
        learner.save_if_due()
        learner.pass_turn()
    while not config.deterministic and learner.take_and_learn():
        port.beat()
    learner.save_last()
    port.report("saved")
    learner.close()


def _begin(
    config: Config,
    run_dir: Path,
    connect: Callable[[int, list[ArraySpec], dict[str, int]], UpdaterPort],
    newest_checkpoint: Callable[[], Path | None],
    *,
    is_restart: bool,
) -> tuple[Learner, UpdaterPort]:
    """Make the network, connect, and go on from the newest checkpoint."""
    torch.manual_seed(config.seed)
    spec = env_spec(config)
    network = make_policy(config, spec)
    path = newest_checkpoint()
    saved = checkpoint.load_checkpoint(path) if path else None
    if saved is not None:
        checkpoint.load_network(saved, network)
    elif config.norm_obs:
        with closing(make_envs(config, config.num_envs, config.seed)) as envs:
            observe_random_play(envs, network, config.seed)
    params = FlatParameters(network)
    mode = MODES[config.mode]
    arrays = mode.record_arrays(config, spec, params.num_params)
    shared = mode.shared_vectors(config, params.num_params)
    port = connect(params.num_params, arrays, shared)
    lives_on = is_restart and bool(shared) and port.shared_model().version > 0
    must_wait = saved is not None or bool(shared)  # until the optimizer's state is in its place
    if not must_wait:
        port.publish(params.numpy)
    learner = Learner(config, spec, network, params, run_dir, port, newest_checkpoint)
    if saved is not None and not lives_on:
        learner.restore(saved, with_counts=not is_restart)
    if must_wait and not lives_on:
        port.publish(params.numpy, after=saved.counts["policy_version"] if saved else 0)
    port.report("precision", chosen=network.precision.name, reason=network.precision.reason)
    return learner, port
