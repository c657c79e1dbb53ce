"""Mode grad, A3C by gradients: workers differentiate, the updater steps (arXiv:1602.01783).

A record is the sum of the clipped gradients of `grad_sync_steps / num_steps` rollouts. The
gradient is zeroed between rollouts, so that each is clipped by itself. With normalization it also
carries the statistics of what it covers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from aa2c.config.modes import BALANCED
from aa2c.envs.spec import Leaf
from aa2c.modes.mode import Consumer, Mode, Producer, UpdaterSetup, WorkerSetup, register

if TYPE_CHECKING:
    from aa2c.config.config import Config
    from aa2c.envs.spec import EnvSpec


class Grad(Mode):
    """A3C by gradients."""

    name = "grad"
    about = "workers send gradients (A3C)"
    uses = frozenset(
        {
            "grad_sync_steps",
            "target_update_steps",
            "update_order",
            "stale_after",
            "update_threads",
            "max_policy_lag",
        }
    )
    update_orders = ("fifo", "sum", "hogwild")
    advice: ClassVar = {
        "balanced": BALANCED,
        "workers": "The updater waits {share:.0%} of its time for gradients: raise --workers or "
        "--num-envs, if there are idle cores, or give each of them less to do.",
        "updater": "Workers wait {share:.0%} of their time for the updater: raise --update-threads "
        "or --grad-sync-steps, or try --update-order sum.",
    }

    def record_leaves(self, config: Config, spec: EnvSpec, num_params: int) -> list[Leaf]:
        from aa2c.learn.schema import statistics_leaves

        statistics = statistics_leaves(spec, config, of_obs=True)
        return [Leaf("grad", "<f4", (num_params,)), *statistics]

    def make_producer(self, setup: WorkerSetup) -> Producer:
        from aa2c.modes.grad.worker import GradProducer

        return GradProducer(setup)

    def make_consumer(self, setup: UpdaterSetup) -> Consumer:
        from aa2c.modes.grad.updater import GradConsumer

        return GradConsumer(setup)


register(Grad())
