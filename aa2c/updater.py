"""The updater process: optimizer, published parameters, checkpoints, and 1 … N update threads.

One thread takes records, publishes and saves; the mode's consumer divides the arithmetic of an
update over the update threads (see the mode's file), which all stand still between two calls of
`consume`. So publishing and saving need no lock, and see no half-made update, in any order but
hogwild's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import torch

from aa2c import checkpoint
from aa2c.checkpoint_files import CheckpointError
from aa2c.config import Config
from aa2c.ipc.counters import LAG_BUCKETS, Counters
from aa2c.ipc.port import UpdaterPort
from aa2c.ipc.ring import Record
from aa2c.ipc.slot import ArraySpec
from aa2c.modes import MODES, Consumer
from aa2c.rl.envs import EnvSpec, env_spec, make_envs
from aa2c.rl.network import ActorCritic, FlatParameters, make_network
from aa2c.rl.rollout import observe_random_play

RECENT_LAGS = 256
LOSS_NAMES = ("policy", "value", "entropy", "grad_norm", "approx_kl", "learning_rate")
COUNT_NAMES = ("env_steps", "updates", "policy_version", "records")


class Learner:
    """The network that learns, with what is needed to step, publish and save it."""

    def __init__(
        self,
        config: Config,
        spec: EnvSpec,
        network: ActorCritic,
        params: FlatParameters,
        run_dir: Path,
        port: UpdaterPort,
    ) -> None:
        self._config = config
        self._spec = spec
        self._network = network
        self._params = params
        self._consumer: Consumer = MODES[config.mode].Consumer(config, params, network, port)
        self._directory = run_dir / "checkpoints"
        self._port = port
        self._counters = port.counters
        self._pending: list[Record] = []
        self._lags: deque[int] = deque(maxlen=RECENT_LAGS)
        self._saved_at = time.monotonic()
        self._checkpoints_asked = port.run.count("checkpoints_wanted")

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
        self._pending += self._admit(taken)
        wanted = self._consumer.records_per_update
        while len(self._pending) >= wanted:
            count = wanted if wanted > 1 else len(self._pending)
            records, self._pending = self._pending[:count], self._pending[count:]
            self._learn(records)
            self._port.release(records)
        return bool(taken)

    def _admit(self, records: Sequence[Record]) -> list[Record]:
        """Those that can be learned from; the others are counted and given back."""
        admitted = []
        oldest = self._counters.count("policy_version") - self._config.max_policy_lag
        for record in records:
            if not self._consumer.accepts(record):
                self._reject(record)
            elif self._config.max_policy_lag and record.header.policy_version < oldest:
                self._counters.add("stale", 1)
                self._port.release([record])
            else:
                admitted.append(record)
        return admitted

    def _learn(self, records: Sequence[Record]) -> None:
        """Update with these records, count them, and publish."""
        started = time.monotonic()
        learning_rate = self.learning_rate
        outcome = self._consumer.consume(records, learning_rate, self._port.beat)
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

    def _reject(self, record: Record) -> None:
        if not self._counters.count("rejected"):
            self._port.report("rejected", worker=record.header.worker)
        self._counters.add("rejected", 1)
        self._port.release([record])

    def _count(self, records: Sequence[Record]) -> None:
        counters = self._counters
        version = counters.count("policy_version")
        for record in records:
            header = record.header
            learned_at = int(header.values.get("learned_at", version))
            self._lags.append(max(0, learned_at - header.policy_version))
            count_lag(counters, self._lags[-1])
            counters.add("env_steps", header.values["env_steps"])
        counters.add("records", len(records))
        counters.set("lag_min", min(self._lags))
        counters.set("lag_max", max(self._lags))
        counters.set("lag_mean", sum(self._lags) / len(self._lags))

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Go on from a checkpoint: optimizer, counts and random numbers. Raises `CheckpointError`."""
        for name in COUNT_NAMES:
            self._counters.set(name, saved.counts[name])
        try:
            self._consumer.load_state(saved.optimizer, self.learning_rate)
            torch.set_rng_state(saved.optimizer["rng"])
        except (ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(f"{saved.path} does not fit this run: {error}") from None

    def save_if_due(self) -> None:
        """Write a checkpoint if the last one is old enough, or if one is asked for."""
        asked = self._port.run.count("checkpoints_wanted")
        if asked > self._checkpoints_asked:
            self._checkpoints_asked = asked
            self._port.report("checkpoint", path=str(self.save()))
        elif time.monotonic() - self._saved_at >= self._config.checkpoint_interval_s:
            self.save()

    def save(self) -> Path:
        """Write a checkpoint; returns its directory."""
        self._saved_at = time.monotonic()
        state = self._consumer.state()  # first: it may bring the parameters up to date
        counts = {name: self._counters.count(name) for name in COUNT_NAMES}
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
        )
        self._counters.set("checkpoint_time", time.time())
        return path

    def close(self) -> None:
        self._consumer.close()


def count_lag(counters: Counters, lag: int) -> None:
    """Count one policy lag in the cumulative histogram's bucket."""
    bucket = next((i for i, bound in enumerate(LAG_BUCKETS) if lag <= bound), len(LAG_BUCKETS))
    counters.add(f"lag_bucket_{bucket}", 1)
    counters.add("lag_sum", lag)


def run_updater(
    config: Config,
    run_dir: Path,
    connect: Callable[[int, list[ArraySpec], dict[str, int]], UpdaterPort],
    resume: Path | None = None,
) -> None:
    """Learn until the port says stop, then from what still waits; ends with a checkpoint.

    `connect` gives the port for so many parameters, records of these arrays, and these shared
    vectors. The first parameters are published as soon as they may be learned from. With `resume`
    it goes on from that checkpoint. Raises `StartError` if the environment or its network cannot
    be made, and `CheckpointError` if the checkpoint does not fit.
    """
    torch.manual_seed(config.seed)
    spec = env_spec(config)
    network = make_network(config, spec)
    saved = checkpoint.load_checkpoint(resume) if resume else None
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
    must_wait = saved is not None or bool(shared)  # until the optimizer's state is in its place
    if not must_wait:
        port.publish(params.numpy)
    learner = Learner(config, spec, network, params, run_dir, port)
    if saved is not None:
        learner.restore(saved)
    if must_wait:
        port.publish(params.numpy, after=saved.counts["policy_version"] if saved else 0)
    port.report("precision", chosen=network.precision.name, reason=network.precision.reason)
    port.report("ready")
    while port.beat():
        learner.take_and_learn()
        learner.save_if_due()
    while learner.take_and_learn():
        port.beat()
    learner.save()
    port.report("saved")
    learner.close()
