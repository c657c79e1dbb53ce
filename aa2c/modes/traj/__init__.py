"""Mode traj, APPO: workers send trajectories, the updater learns from them with PPO's loss.

A record is one rollout, with the log-probs and values of the policy that acted. The updater takes a
batch of records, in order of arrival and of any workers, and makes `update_epochs` passes over its
shuffled transitions in `minibatches` parts (arXiv:1707.06347; asynchronous as in arXiv:1802.01561).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from aa2c.config.modes import BALANCED
from aa2c.errors import ConfigError
from aa2c.modes.mode import Consumer, Mode, Producer, UpdaterSetup, WorkerSetup, register

if TYPE_CHECKING:
    from aa2c.config.config import Config
    from aa2c.envs.spec import EnvSpec, Leaf

SIZE_OF_MINIBATCH = 128  # transitions, unless --minibatches says how many there are


class Traj(Mode):
    """APPO."""

    name = "traj"
    about = "they send trajectories (APPO)"
    uses = frozenset(
        {
            "batch_steps",
            "sequence_length",
            "update_epochs",
            "minibatches",
            "clip_coef",
            "clip_vloss",
            "target_kl",
            "adaptive_kl",
            "norm_returns",
            "advantage",
            "max_policy_lag",
            "update_threads",
        }
    )
    loss_in = "updater"
    losses = (*Mode.losses, "approx_kl")
    diagnostics = (*Mode.diagnostics, "ratio", "clip_fraction")
    advice: ClassVar = {
        "balanced": BALANCED,
        "workers": "The updater waits {share:.0%} of its time for trajectories: raise --workers or "
        "--num-envs, if there are idle cores, or give each of them less to do.",
        "updater": "Workers wait {share:.0%} of their time for the updater: raise --update-threads, "
        "lower --update-epochs, or use fewer workers.",
    }

    def check(self, config: Config) -> None:
        batch, room = rollouts_per_batch(config), config.workers * config.ring_slots
        if batch > room:
            raise ConfigError(
                f"--batch-steps {config.batch_steps} needs {batch} trajectories, and the rings hold "
                f"{room}: raise --ring-slots."
            )
        if config.deterministic and batch % config.workers:
            raise ConfigError(
                f"--batch-steps {config.batch_steps} makes batches of {batch} trajectories: "
                f"--deterministic needs a multiple of --workers {config.workers}."
            )

    def least_workers(self, config: Config) -> int:
        """The rings of fewer could not hold the trajectories of one batch."""
        return -(-rollouts_per_batch(config) // config.ring_slots)

    def record_leaves(self, config: Config, spec: EnvSpec, num_params: int) -> list[Leaf]:
        from aa2c.learn.schema import record_leaves

        return record_leaves(spec, config)

    def make_producer(self, setup: WorkerSetup) -> Producer:
        from aa2c.modes.traj.worker import TrajProducer

        return TrajProducer(setup)

    def make_consumer(self, setup: UpdaterSetup) -> Consumer:
        from aa2c.modes.traj.updater import TrajConsumer

        return TrajConsumer(setup)


def rollouts_per_batch(config: Config) -> int:
    """Trajectories, of any workers, that make one batch."""
    return config.batch_steps // config.num_steps or config.workers


def minibatches_per_pass(config: Config) -> int:
    """Optimizer steps of one pass, where a batch has so many transitions or sequences."""
    transitions = rollouts_per_batch(config) * config.num_steps * config.num_envs
    return config.minibatches or max(1, round(transitions / SIZE_OF_MINIBATCH))


register(Traj())
