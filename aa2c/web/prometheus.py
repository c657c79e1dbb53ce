"""Prometheus metrics of a run, made from its status document at each scrape.

Runs in the orchestrator. Names and units follow Prometheus' practice: prefix, base units, `_total`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

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

from aa2c.engine import LagHistogram
from aa2c.run.quantities import CHILDREN, RUN, Quantity
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
        yield from _families(RUN, status)
        buckets, total = self._lag_histogram()
        yield HistogramMetricFamily(
            "aa2c_policy_lag_versions",
            "Policy versions published between acting and learning, per record.",
            buckets=buckets,
            sum_value=total,
        )
        yield _exits(status)
        yield from _families(CHILDREN, status)


def _run_metrics(status: Status) -> Iterable[Metric]:
    run = status["run"]
    yield InfoMetricFamily(
        "aa2c_run",
        "Labels that identify the run.",
        {k: str(run[k]) for k in ("id", "name", "mode", "env")},
    )
    yield InfoMetricFamily("aa2c_build", "Version of aa2c.", {"version": __version__})
    states = {state: state == run["state"] for state in RUN_STATES}
    yield StateSetMetricFamily("aa2c_run_state", "State of the run.", states)


def _exits(status: Status) -> Metric:
    """Unrequested exits of child processes, by how they ended."""
    exits = CounterMetricFamily(
        "aa2c_process_exits",
        "Unrequested exits of child processes.",
        labels=["process", "reason"],
    )
    children = {"updater": status["updater"], "evaluator": status["evaluator"]}
    children |= {"engine": status["engine"]} if status["engine"] else {}
    children |= {f"worker-{worker['id']}": worker for worker in status["workers"]}
    for process, child in children.items():
        for reason, count in child["exits"].items():
            exits.add_metric([process, reason], count)
    return exits


def _families(quantities: Iterable[Quantity], status: Status) -> Iterable[Metric]:
    """The table's families; one without a value yet has no sample."""
    for quantity in quantities:
        family: GaugeMetricFamily | CounterMetricFamily
        if quantity.gauge:
            family = GaugeMetricFamily(
                f"aa2c_{quantity.gauge}", quantity.help, labels=quantity.labels
            )
        elif quantity.counter:
            family = CounterMetricFamily(
                f"aa2c_{quantity.counter}", quantity.help, labels=quantity.labels
            )
        else:
            continue
        for labels, value in quantity.samples(status):
            family.add_metric(labels, value)
        yield family


def exposition(collector: Collector, accept: str) -> tuple[str, bytes]:
    """Content type and body for a scraper's Accept header: Prometheus text or OpenMetrics."""
    registry = CollectorRegistry()
    registry.register(collector)
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)
