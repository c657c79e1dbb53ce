"""The quantities of a run: the one table from which /metrics, /history, trackers and reports derive.

Each entry names a value of the status document by its path. A new metric is one entry here, plus the
code that counts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Keys = tuple[str, ...]


@dataclass(frozen=True)
class Quantity:
    """A number, or one number per combination of the labels, which stand in braces in `path`.

    `gauge` or `counter` is its Prometheus name without the prefix, `tag` its name in trackers. A
    `series` is a column of /history, `panel` the title of its panel in the report's loss.png.
    `reading` says what a practitioner makes of it, after `help`, which says what it is.
    """

    name: str
    path: str
    help: str = ""
    unit: str = ""
    gauge: str = ""
    counter: str = ""
    tag: str = ""
    panel: str = ""
    series: bool = False
    row: str = ""  # its path in metrics.jsonl, where that differs
    reading: str = ""
    number: Callable[[Any], float | None] = lambda value: value

    @property
    def keys(self) -> Keys:
        return tuple(self.path.split("."))

    @property
    def row_keys(self) -> Keys:
        return tuple((self.row or self.path).split("."))

    @property
    def labels(self) -> Keys:
        return tuple(key.strip("{}") for key in self.keys if _is_label(key))

    def samples(self, status: dict[str, Any]) -> Iterator[tuple[Keys, float]]:
        """The values in a status document, each with the values of its labels; nulls are skipped."""
        for labels, value in _find(status, self.keys):
            number = self.number(value)
            if number is not None:
                yield labels, number


def value_at(document: Any, keys: Keys) -> Any:
    """The value at a path; None if there is none."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def _find(document: Any, keys: Keys) -> Iterator[tuple[Keys, Any]]:
    if not keys:
        yield (), document
    elif document is None:
        return
    elif not _is_label(keys[0]):
        yield from _find(document[keys[0]], keys[1:])
    else:
        parts = document.items() if isinstance(document, dict) else enumerate(document)
        for i, part in parts:
            label = part.get("id", part.get("worker", i)) if isinstance(part, dict) else i
            for labels, value in _find(part, keys[1:]):
                yield (str(label), *labels), value


def _is_label(key: str) -> bool:
    return key.startswith("{")


# In the order of /metrics, of /history's columns and of the report's panels. Tags are CleanRL's where
# CleanRL has one; Prometheus names have base units.
# fmt: off
RUN = (
    Quantity("stalled", "run.stall", "1 while the run is stalled: no env steps or no updates.",
             gauge="run_stalled", number=lambda stall: stall is not None),
    Quantity("warnings", "warnings", "Number of warnings about learning that hold now.",
             gauge="learning_warnings", number=len),
    Quantity("time_s", "run.uptime_s", "Training time, over all starts of the run.", "seconds",
             gauge="run_uptime_seconds", row="time_s", series=True),
    Quantity("env_steps", "progress.env_steps", "Environment steps taken by workers.",
             counter="env_steps", series=True),
    Quantity("total_env_steps", "progress.total_env_steps", "Budget of environment steps.",
             gauge="env_steps_budget"),
    Quantity("updates", "progress.updates", "Optimizer steps.", counter="updates"),
    Quantity("episodes", "progress.episodes", "Training episodes finished.", counter="episodes"),
    Quantity("policy_version", "progress.policy_version", "Policy version: how often parameters were published.",
             counter="policy_versions"),
    Quantity("train_return_mean", "returns.train.mean", "Mean raw return, last 100 episodes.",
             gauge="episode_return_mean", tag="charts/episodic_return_mean", series=True),
    Quantity("train_return_std", "returns.train.std", "Std of raw returns, last 100 episodes.",
             gauge="episode_return_std", series=True),
    Quantity("test_return_mean", "returns.test.{policy}.mean", "Mean raw return, last evaluation.",
             gauge="test_return_mean"),
    Quantity("test_return_std", "returns.test.{policy}.std", "Std of raw returns, last evaluation.",
             gauge="test_return_std"),
    Quantity("test_env_steps", "returns.test.{policy}.env_steps",
             "Env steps after which the parameters of the last evaluation were published.",
             gauge="test_env_steps"),
    Quantity("test_episodes", "returns.test.{policy}.count", "Test episodes played.",
             counter="test_episodes"),
    Quantity("policy", "losses.policy", "Policy loss, latest update.",
             gauge="loss_policy", tag="losses/policy_loss", panel="policy loss", series=True,
             reading="Hovers around 0 and says little by itself: it is no measure of how good the policy is."),
    Quantity("value", "losses.value", "Value loss, latest update.",
             gauge="loss_value", tag="losses/value_loss", panel="value loss", series=True,
             reading="In squared value units. Rises while returns rise; one that explodes calls for norm_rewards or a "
             "lower learning rate."),
    Quantity("explained_variance", "losses.explained_variance",
             "Explained variance of the returns by the values: 1 - Var(returns - values) / Var(returns), latest batch.",
             "ratio", gauge="explained_variance_ratio", tag="losses/explained_variance",
             panel="explained variance", series=True,
             reading="1: the values predict the returns; 0: no better than a constant; below 0: worse. Near 0 at first "
             "and where returns hardly vary; otherwise a value function that does not learn."),
    Quantity("value_unit", "losses.value_unit",
             "Value unit: the rewards (as they are clipped) that make 1 in the value loss, latest update.",
             gauge="value_unit", tag="losses/value_unit", panel="value unit", series=True,
             reading="1, or with norm_rewards and norm_returns the running std of returns, which follows the policy; "
             "value losses before and after it has moved are not comparable."),
    Quantity("entropy", "losses.entropy", "Entropy of the policy, latest update.", "nats",
             gauge="loss_entropy", tag="losses/entropy", panel="entropy", series=True,
             reading="Falls from that of random play (the logarithm of the number of actions) as the policy makes up its "
             "mind. Near 0 it no longer explores; if returns are poor then, raise ent_coef."),
    Quantity("grad_norm", "losses.grad_norm", "Gradient norm before clipping, latest update.",
             gauge="grad_norm", tag="losses/grad_norm", panel="gradient norm", series=True,
             reading="Compare it with max_grad_norm. Spikes are what clipping is for; steady growth is not."),
    Quantity("grad_share", "losses.grad_share",
             "Share of the gradient that clipping left: min(1, max_grad_norm / norm), mean of the latest update.",
             "ratio", gauge="grad_share_ratio", tag="losses/grad_share",
             panel="share of the gradient left by clipping", series=True,
             reading="1: nothing is clipped. Steadily below 0.1 every step has the same length, whatever the data say: "
             "raise max_grad_norm, or scale rewards (norm_rewards)."),
    Quantity("approx_kl", "losses.approx_kl", "Approximate KL divergence, latest update.", "nats",
             gauge="approx_kl_nats", tag="losses/approx_kl", panel="approx_kl", series=True,
             reading="From the policy that acted to the one that learns. 0.001 to 0.03 is usual; above, updates are too "
             "large or records too old: lower learning_rate, update_epochs or the policy lag."),
    Quantity("ratio", "losses.ratio",
             "Mean probability ratio of the policy that learns to the one that acted, latest update.",
             gauge="probability_ratio_mean", tag="losses/ratio", panel="probability ratio", series=True,
             reading="Close to 1. Away from it by some percent the data are off-policy: see the policy lag."),
    Quantity("clip_fraction", "losses.clip_fraction",
             "Clip fraction: share of probability ratios outside 1 ± clip_coef, latest update.",
             "ratio", gauge="clip_fraction_ratio", tag="losses/clipfrac", panel="clip fraction", series=True,
             reading="0.02 to 0.3 is usual. 0: updates are tiny, or nothing is learned; above: most samples no longer "
             "count, lower learning_rate or update_epochs."),
    Quantity("learning_rate", "losses.learning_rate", "The optimizer's current learning rate.",
             gauge="learning_rate", tag="charts/learning_rate", panel="learning rate", series=True),
    Quantity("env_steps_per_s", "throughput.env_steps_per_s", tag="charts/SPS", series=True),
    Quantity("updates_per_s", "throughput.updates_per_s", tag="charts/UPS", series=True),
    Quantity("policy_lag_mean", "policy_lag.mean", unit="versions",
             tag="charts/policy_lag", panel="policy lag, mean", series=True),
    Quantity("updater_wait_share", "throughput.updater_wait_share",
             "Share of its time the updater waited for records, last 10 s.", "ratio",
             gauge="updater_wait_ratio"),
    Quantity("worker_wait_share", "throughput.worker_wait_share",
             "Share of their time workers waited for the updater or the lock, last 10 s.",
             "ratio", gauge="worker_wait_ratio"),
    Quantity("updater_wait", "updater.wait_s", "Time the updater waited for records.", "seconds",
             counter="updater_wait_seconds"),
    Quantity("updater_update", "updater.update_s", "Time the updater spent on updates.", "seconds",
             counter="updater_update_seconds"),
    Quantity("updater_restarts", "updater.restarts", "Restarts of the updater.",
             counter="updater_restarts"),
    Quantity("rejected", "updater.rejected", "Records rejected by the mode because of their contents.",
             counter="records_rejected"),
    Quantity("nonfinite", "updater.nonfinite",
             "Optimizer steps skipped because the loss or gradient was not finite.",
             counter="nonfinite_steps"),
    Quantity("rollbacks", "updater.rollbacks", "Rollbacks to a checkpoint after non-finite losses or gradients.",
             counter="rollbacks"),
    Quantity("stale", "updater.stale", "Records dropped because they lagged more than max_policy_lag.",
             counter="records_stale"),
    Quantity("discarded", "updater.discarded", "Records discarded by rollbacks.",
             counter="records_discarded"),
    Quantity("torn_steps", "updater.torn_steps", "Steps of the shared network torn by a kill.",
             counter="model_torn_steps"),
    Quantity("checkpoint_at", "updater.checkpoint_at", "Unix time of the newest checkpoint.",
             "seconds", gauge="checkpoint_timestamp_seconds"),
)


def _usage_of(name: str, path: str, words: str) -> tuple[Quantity, Quantity]:
    """CPU time and memory of a process."""
    return (
        Quantity(f"{name}_cpu", f"{path}.cpu_s", f"CPU time of {words}.", "seconds",
                 counter=f"{name}_cpu_seconds"),
        Quantity(f"{name}_memory", f"{path}.rss_bytes",
                 f"Resident memory of {words}; pages shared by processes count in each.", "bytes",
                 gauge=f"{name}_resident_memory_bytes"),
    )  # fmt: skip


CHILDREN = (
    *_usage_of("orchestrator", "orchestrator", "the program that runs the orchestrator"),
    *_usage_of("updater", "updater", "the updater"),
    *_usage_of("evaluator", "evaluator", "the evaluator"),
    Quantity("evaluations", "evaluator.evaluations", "Evaluations finished.",
             counter="evaluations"),
    Quantity("evaluator_restarts", "evaluator.restarts", "Restarts of the evaluator.",
             counter="evaluator_restarts"),
    Quantity("worker_up", "workers.{worker}.state", "1 while the process is running.",
             gauge="worker_up", number=lambda state: state == "running"),
    Quantity("worker_generation", "workers.{worker}.generation", "Generation of the worker.",
             gauge="worker_generation"),
    Quantity("worker_env_steps", "workers.{worker}.env_steps", "Environment steps taken by the worker.",
             counter="worker_env_steps"),
    Quantity("worker_wait", "workers.{worker}.wait_s", "Time the worker waited for a free slot or the lock.",
             "seconds", counter="worker_wait_seconds"),
    Quantity("worker_policy_lag", "workers.{worker}.policy_lag",
             "Mean policy lag of the worker's records, last 10 s.", "versions",
             gauge="worker_policy_lag_versions"),
    *_usage_of("worker", "workers.{worker}", "the worker"),
    Quantity("worker_restarts", "workers.{worker}.restarts", "Restarts of the worker.",
             counter="worker_restarts"),
    *_usage_of("engine", "engine", "the process that talks to hosts"),
    Quantity("engine_restarts", "engine.restarts", "Restarts of the process that talks to hosts.",
             counter="engine_restarts"),
    Quantity("host_up", "hosts.{host}.state", "1 while the host of a share of the workers answers.",
             gauge="host_up", number=lambda state: state == "running"),
    Quantity("host_workers", "hosts.{host}.workers", "Workers that the host has.", "workers",
             gauge="host_workers"),
    Quantity("host_env_steps", "hosts.{host}.env_steps", "Environment steps taken by its share of the workers.",
             counter="host_env_steps"),
    Quantity("host_exchanges", "hosts.{host}.exchanges_per_s", "Exchanges with the host per second.",
             gauge="host_exchanges_per_second"),
    Quantity("host_bytes", "hosts.{host}.bytes_per_s", "Bytes of records from the host per second.", "bytes",
             gauge="host_bytes_per_second"),
    Quantity("host_round_trip", "hosts.{host}.round_trip_ms", "Round trip to the host, latest.", "seconds",
             gauge="host_round_trip_seconds", number=lambda ms: ms / 1000),
    Quantity("host_restarts", "hosts.{host}.restarts", "Times the host was lost, since the engine was started.",
             counter="host_restarts"),
    Quantity("ring_used", "rings.{worker}.used", "Slots in use.", "slots",
             gauge="ring_used_slots"),
    Quantity("ring_capacity", "rings.{worker}.capacity", "Slots of the ring.", "slots",
             gauge="ring_capacity_slots"),
    Quantity("ring_committed", "rings.{worker}.committed", "Records sent.",
             counter="ring_committed"),
    Quantity("ring_dropped", "rings.{worker}.dropped.{reason}", "Records the updater did not learn from.",
             counter="ring_dropped"),
    Quantity("ring_untold", "rings.{worker}.untold",
             "Records that lost hosts may have made and not told of, at most; no part of those dropped.",
             counter="ring_untold"),
)
# fmt: on
QUANTITIES = (*RUN, *CHILDREN)
