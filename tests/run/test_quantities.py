"""The table of a run's quantities, beside what a real run tells, keeps and reports."""

from __future__ import annotations

import collections
import itertools
import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from aa2c import Orchestrator
from aa2c.report.panels import LOSS_PANELS
from aa2c.report.reading import AXES, METRICS, read_runs
from aa2c.run.files import rows_of
from aa2c.run.history import Charts
from aa2c.run.quantities import QUANTITIES, Quantity, value_at
from aa2c.web.prometheus import RunCollector, exposition
from tests.conftest import until

UNITS = ("seconds", "nats", "ratio", "slots", "versions", "bytes")
OF_PPO = ("approx_kl", "ratio", "clip_fraction")  # which mode grad does not have
ENDED = ("updater_memory", "evaluator_memory", "worker_memory")  # of which nothing is left


@pytest.fixture
async def run(small):
    """A run that has ended, whose last row of metrics has every quantity but those of PPO."""
    config = small(total_env_steps=10**9, workers=2, eval_interval_s=0.2)
    async with Orchestrator(config) as run:
        await run.ready()
        await until(lambda: any(map(_is_complete, rows_of(run.dir / "metrics.jsonl"))))
        await run.stop()
        yield run


def _is_complete(row):
    values = [value_at(row, quantity.row_keys) for quantity in QUANTITIES if quantity.series]
    return values.count(None) == len(OF_PPO) and row["returns"]["test"]["sampled"]["count"]


def exported():
    return [quantity for quantity in QUANTITIES if quantity.gauge or quantity.counter]


@pytest.mark.parametrize("field", ["name", "tag", "panel"])
def test_names_are_unique(field):
    used = collections.Counter(getattr(quantity, field) for quantity in QUANTITIES)
    del used[""]
    assert used
    assert max(used.values()) == 1, used.most_common(1)


def test_every_quantity_is_shown_somewhere_and_is_of_one_type():
    for quantity in QUANTITIES:
        assert quantity.gauge or quantity.counter or quantity.tag or quantity.series, quantity
        assert not (quantity.gauge and quantity.counter), quantity


def test_every_prometheus_name_has_its_unit_and_a_help_text_of_a_sentence():
    names = [quantity.gauge or quantity.counter for quantity in exported()]
    assert len(set(names)) == len(names)
    for quantity, name in zip(exported(), names, strict=True):
        assert quantity.help[:1].isupper() or quantity.help[:1].isdigit(), name
        assert quantity.help.endswith("."), name
        assert not name.endswith("_total"), "the library adds it"
        if name.endswith(tuple(f"_{unit}" for unit in UNITS)) and name != "policy_versions":
            assert name.endswith(f"_{quantity.unit}"), name


def test_a_quantity_with_labels_has_a_sample_for_each_and_none_where_it_is_null():
    status = {"a": {"x": {"n": 1}, "y": {"n": None}}, "b": [{"d": {"r": 3}}, {"d": {"r": 4}}]}
    assert list(Quantity("q", "a.{kind}.n").samples(status)) == [(("x",), 1)]
    nested = Quantity("q", "b.{worker}.d.{reason}")
    assert nested.labels == ("worker", "reason")
    assert list(nested.samples(status)) == [(("0", "r"), 3), (("1", "r"), 4)]


@pytest.mark.parametrize("document", [None, 3, [], {"a": 1}, {"a": {"c": 2}}])
def test_a_damaged_document_has_no_value(document):
    assert value_at(document, ("a", "b")) is None


async def test_every_path_is_in_a_real_status_document(run):
    status = json.loads(json.dumps(run.status()))
    for quantity in QUANTITIES:
        samples = list(quantity.samples(status))  # a KeyError names a path that is not there
        if quantity.name in (*OF_PPO, *ENDED) or quantity.path.startswith(("hosts.", "engine.")):
            assert not samples, (
                "neither mode grad, nor a process that has ended, nor one host has any"
            )
        else:
            assert samples, quantity
        for labels, value in samples:
            assert len(labels) == len(quantity.labels)
            assert isinstance(value, int | float), quantity


async def test_a_scraper_reads_every_quantity_that_has_a_prometheus_name(run):
    collector = RunCollector(run.status, lambda: ([("+Inf", 0.0)], 0.0))
    _, body = exposition(collector, "text/plain")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    for quantity in exported():
        family = families[f"aa2c_{quantity.gauge or quantity.counter}"]
        assert family.documentation == quantity.help
        assert family.type == ("gauge" if quantity.gauge else "counter")
        found = {tuple(map(sample.labels.get, quantity.labels)) for sample in family.samples}
        assert found == {labels for labels, _ in quantity.samples(run.status())}, quantity


async def test_the_report_and_the_charts_find_their_series_in_a_real_history(run):
    charts = Charts()
    for row in rows_of(run.dir / "metrics.jsonl"):
        charts.add_row(row)
    columns = charts.document()["series"]
    assert list(columns) == [quantity.name for quantity in QUANTITIES if quantity.series]
    last = {name: column[-1] for name, column in columns.items()}
    assert tuple(name for name, value in last.items() if value is None) == OF_PPO
    report = read_runs([run.dir])[0].metrics
    assert set(itertools.chain(AXES, LOSS_PANELS)) == set(METRICS)
    for name in METRICS:
        shared = columns.get(name)
        assert shared is None or shared[-1] is None or report[name][-1] == shared[-1], name
