"""Prometheus metrics of a run, made from its status document at each scrape.

Runs in the orchestrator. Names and units follow Prometheus' practice: prefix, base units, `_total`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    StateSetMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from aa2c.ports import LagHistogram
from aa2c.run.status import RUN_STATES, Status
from aa2c.version import __version__


class RunCollector(Collector):
    """Prometheus metrics of a run, made from its status document at each scrape."""

    def __init__(
        self, status: Callable[[], Status], lag_histogram: Callable[[], LagHistogram]
    ) -> None:
        self._status = status
        self._lag_histogram = lag_histogram

    def collect(self) -> Iterable[Metric]:
        status = self._status()
        yield from _run_metrics(status)
        yield from _learning_metrics(status)
        buckets, total = self._lag_histogram()
        yield HistogramMetricFamily(
            "aa2c_policy_lag_versions",
            "Policy versions published between acting and learning, per record.",
            buckets=buckets,
            sum_value=total,
        )
        yield _exits(status)
        yield from _evaluator_metrics(status["evaluator"])
        yield from _worker_metrics(status["workers"])
        yield from _ring_metrics(status["rings"])


def _run_metrics(status: Status) -> Iterable[Metric]:
    run, progress = status["run"], status["progress"]
    yield InfoMetricFamily(
        "aa2c_run", "The run.", {k: str(run[k]) for k in ("id", "name", "mode", "env")}
    )
    yield InfoMetricFamily("aa2c_build", "The program.", {"version": __version__})
    states = {state: state == run["state"] for state in RUN_STATES}
    yield StateSetMetricFamily("aa2c_run_state", "State of the run.", states)
    stalled = float(run["stall"] is not None)
    yield _gauge("run_stalled", "1 while env steps or updates stand still for long.", stalled)
    yield _gauge("run_uptime_seconds", "Time since the start of the run.", run["uptime_s"])
    yield _counter("env_steps", "Environment steps taken by workers.", progress["env_steps"])
    yield _gauge("env_steps_budget", "Environment steps to take.", progress["total_env_steps"])
    yield _counter("updates", "Optimizer steps.", progress["updates"])
    yield _counter("episodes", "Training episodes finished.", progress["episodes"])
    yield _counter("policy_versions", "Parameters published.", progress["policy_version"])


def _learning_metrics(status: Status) -> Iterable[Metric]:
    train = status["returns"]["train"]
    yield _gauge("episode_return_mean", "Mean raw return, last 100 episodes.", train["mean"])
    yield _gauge("episode_return_std", "Deviation of it, last 100 episodes.", train["std"])
    yield from _test_metrics(status["returns"]["test"])
    losses = status["losses"]
    for name in ("policy", "value", "entropy"):
        yield _gauge(f"loss_{name}", f"Latest {name} part of the loss.", losses[name])
    yield _gauge("grad_norm", "Latest gradient norm before clipping.", losses["grad_norm"])
    yield _gauge("approx_kl_nats", "Latest approximate KL divergence.", losses["approx_kl"])
    yield _gauge("learning_rate", "Step size of the optimizer now.", losses["learning_rate"])
    throughput = status["throughput"]
    yield _gauge(
        "updater_wait_ratio",
        "Share of its time that the updater waited for records, last 10 s.",
        throughput["updater_wait_share"],
    )
    yield _gauge(
        "worker_wait_ratio",
        "Share of their time that workers waited for the updater or the lock, last 10 s.",
        throughput["worker_wait_share"],
    )
    yield from _updater_metrics(status["updater"])


def _test_metrics(tests: Status) -> Iterable[Metric]:
    mean = GaugeMetricFamily(
        "aa2c_test_return_mean", "Mean raw return, last evaluation.", labels=["policy"]
    )
    std = GaugeMetricFamily(
        "aa2c_test_return_std", "Deviation of it, last evaluation.", labels=["policy"]
    )
    count = CounterMetricFamily("aa2c_test_episodes", "Test episodes.", labels=["policy"])
    for policy, test in tests.items():
        for family, value in ((mean, test["mean"]), (std, test["std"])):
            if value is not None:
                family.add_metric([policy], value)
        count.add_metric([policy], test["count"])
    yield from (mean, std, count)


def _updater_metrics(updater: Status) -> Iterable[Metric]:
    yield _counter("updater_wait_seconds", "Time waited for records.", updater["wait_s"])
    yield _counter("updater_update_seconds", "Time spent on updates.", updater["update_s"])
    yield _counter("updater_restarts", "Restarts of the updater.", updater["restarts"])
    yield _counter(
        "records_rejected", "Records whose contents the mode refused.", updater["rejected"]
    )
    yield _counter(
        "nonfinite_steps",
        "Optimizer steps not made because loss or gradient was not finite.",
        updater["nonfinite"],
    )
    yield _counter("rollbacks", "Returns to a checkpoint because of that.", updater["rollbacks"])
    yield _counter("records_stale", "Records older than max_policy_lag.", updater["stale"])
    yield _counter(
        "model_torn_steps", "Steps of the shared model cut off by a kill.", updater["torn_steps"]
    )
    yield _gauge(
        "checkpoint_timestamp_seconds",
        "Unix time of the newest checkpoint.",
        updater["checkpoint_at"],
    )


def _exits(status: Status) -> Metric:
    """Ends of processes that were not asked for, by how they ended."""
    exits = CounterMetricFamily(
        "aa2c_process_exits",
        "Ends of child processes that nobody asked for.",
        labels=["process", "reason"],
    )
    children = {"updater": status["updater"], "evaluator": status["evaluator"]}
    children |= {f"worker-{worker['id']}": worker for worker in status["workers"]}
    for process, child in children.items():
        for reason, count in child["exits"].items():
            exits.add_metric([process, reason], count)
    return exits


def _evaluator_metrics(evaluator: Status) -> Iterable[Metric]:
    yield _counter("evaluations", "Evaluations finished.", evaluator["evaluations"])
    yield _counter("evaluator_restarts", "Restarts of the evaluator.", evaluator["restarts"])


def _worker_metrics(workers: Sequence[Status]) -> Iterable[Metric]:
    rows: tuple[tuple[type[CounterMetricFamily | GaugeMetricFamily], str, str, str], ...] = (
        (GaugeMetricFamily, "up", "1 while the process is running.", "is_up"),
        (GaugeMetricFamily, "generation", "Incarnation of the worker.", "generation"),
        (CounterMetricFamily, "env_steps", "Environment steps.", "env_steps"),
        (CounterMetricFamily, "wait_seconds", "Time waited for a free slot or the lock.", "wait_s"),
        (CounterMetricFamily, "restarts", "Restarts of the process.", "restarts"),
    )
    for family, name, text, key in rows:
        metric = family(f"aa2c_worker_{name}", text, labels=["worker"])
        for worker in workers:
            value = worker["state"] == "running" if key == "is_up" else worker[key]
            metric.add_metric([str(worker["id"])], value)
        yield metric


def _ring_metrics(rings: Sequence[Status]) -> Iterable[Metric]:
    used = GaugeMetricFamily("aa2c_ring_used_slots", "Slots that wait.", labels=["worker"])
    capacity = GaugeMetricFamily("aa2c_ring_capacity_slots", "Slots.", labels=["worker"])
    committed = CounterMetricFamily("aa2c_ring_committed", "Records sent.", labels=["worker"])
    dropped = CounterMetricFamily(
        "aa2c_ring_dropped", "Records refused by the reader.", labels=["worker", "reason"]
    )
    for ring in rings:
        worker = str(ring["worker"])
        used.add_metric([worker], ring["used"])
        capacity.add_metric([worker], ring["capacity"])
        committed.add_metric([worker], ring["committed"])
        for reason, count in ring["dropped"].items():
            dropped.add_metric([worker, reason], count)
    yield from (used, capacity, committed, dropped)


def _gauge(name: str, text: str, value: float | None) -> GaugeMetricFamily:
    """Without a sample where there is no value yet."""
    return GaugeMetricFamily(f"aa2c_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"aa2c_{name}", text, value=value)


def exposition(collector: Collector, accept: str) -> tuple[str, bytes]:
    """Content type and body for a scraper that accepts this: Prometheus text or OpenMetrics."""
    registry = CollectorRegistry()
    registry.register(collector)
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)
