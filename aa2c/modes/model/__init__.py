"""Mode model, A3C on one network: workers step it themselves, in shared memory (arXiv:1602.01783).

Each worker acts on the shared network without a lock, and evaluates its rollout's loss on it. Then,
one worker at a time, it goes backward, clips, and steps. With `update_order` hogwild nobody waits for
anybody, as in the paper: optimizer and network are shared, updates may be lost, memory never is.

A record is a header: the counts and losses of one rollout that has been learned from already, and with
normalization the statistics of what it covers. The updater counts, merges statistics, sets the learning
rate, and saves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from aa2c.config.modes import BALANCED
from aa2c.modes.mode import Consumer, Mode, Producer, UpdaterSetup, WorkerSetup, register

if TYPE_CHECKING:
    from aa2c.config.config import Config
    from aa2c.envs.spec import EnvSpec, Leaf
    from aa2c.policy.flat import FlatParameters


class Model(Mode):
    """A3C on one shared network."""

    name = "model"
    about = "they step one shared network (A3C)"
    uses = frozenset({"act_on", "update_order", "stale_after"})
    update_orders = ("fifo", "hogwild")
    workers_step = True
    advice: ClassVar = {
        "balanced": BALANCED,
        "updater": "Workers wait {share:.0%} of their time for the lock: lower --workers, raise "
        "--num-envs or --num-steps, or try --update-order hogwild.",
    }

    def record_leaves(self, config: Config, spec: EnvSpec, num_params: int) -> list[Leaf]:
        from aa2c.learn.schema import statistics_leaves

        return statistics_leaves(spec, config, of_obs=True)

    def shared_vectors(self, config: Config, params: FlatParameters) -> dict[str, int]:
        from aa2c.learn.optimizer import optimizer_vectors
        from aa2c.shared_model import PARAMS, STATISTICS

        stepped = {PARAMS: params.num_params, **optimizer_vectors(config, params.num_params)}
        statistics = {STATISTICS: params.num_statistics} if params.num_statistics else {}
        return stepped | statistics

    def make_producer(self, setup: WorkerSetup) -> Producer:
        from aa2c.modes.model.worker import ModelProducer

        return ModelProducer(setup)

    def make_consumer(self, setup: UpdaterSetup) -> Consumer:
        from aa2c.modes.model.updater import ModelConsumer

        return ModelConsumer(setup)


register(Model())
