"""The ceiling, the bottleneck, and the advice that follows."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from aa2c.cli.bench.result import Result
from aa2c.config.config import Config

RATES = {
    "env": 2000.0, "act": 4000.0, "learn": 1000.0, "whole": 500.0,
    "act_8": 3000.0, "act_16": 4000.0, "act_32": 4100.0, "act_64": 4100.0, "act_128": 4100.0,
    "memcpy_record": 4.0, "ring": 2.0, "memcpy_parameters": 4.0, "board": 3.0, "cores": 2.0,
}  # fmt: skip


def result(config=None, other_precision="", **rates):
    config = config or Config(mode="traj", workers=2, update_threads=2, update_epochs=1)
    every_round = {name: [rate] for name, rate in (RATES | rates).items()}
    return Result(config, 2, "float32", "asked for", other_precision, every_round)


def test_the_link_to_a_host_is_told_where_it_was_measured():
    rates = {"link_calls": 900, "link_records": 600, "link_parameters": 500.4}
    rates |= {"link_call_here_us": 900, "link_call_there_us": 1000}
    rates |= {"link_record_here_us": 1100, "link_record_there_us": 1200}
    rates |= {"link_parameters_here_us": 1300, "link_parameters_there_us": 1400}
    it = result(**rates)
    assert "link to a host: 900 calls/s, 600 MB/s of records, 500 MB/s of parameters" in it.text()
    assert "900 and 1,000 us empty, 1,100 and 1,200 us with a record, 1,300 and" in it.text()
    assert "link to a host" not in result().text()


def test_it_is_told_when_other_programs_use_the_cores():
    assert "other programs" not in result().text()
    assert "other programs leave 0.5 of 2 cores" in result(cores=0.5).text()


def test_the_ceiling_is_that_of_stages_which_take_turns():
    it = result()
    assert it.ceiling == pytest.approx(1 / (1 / 2000 + 1 / 4000 + 1 / 1000))
    assert it.ratio == pytest.approx(500 / it.ceiling)
    assert sum(it.shares.values()) == pytest.approx(1)
    assert it.shares["learn"] == pytest.approx(4 / 7)
    assert it.binds == "learn"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "nothing"),
        ({"workers": 1}, "--workers 2"),
        ({"workers": 5}, "--workers 2"),
        ({"update_threads": 1}, "--update-threads 2"),
        ({"update_epochs": 4}, "--update-epochs 3"),
        ({"update_threads": 8}, "--update-threads 2"),
    ],
)
def test_advice_names_the_option_that_is_amiss(options, expected):
    usual = {"mode": "traj", "workers": 2, "update_threads": 2, "update_epochs": 1}
    (line,) = result(Config(**(usual | options))).advice
    assert line.startswith(expected)


def test_a_larger_batch_is_advised_only_where_it_is_worth_it():
    fast = {"act_32": 7000.0, "act_64": 7100.0}
    (line,) = result(**fast).advice
    assert line.startswith("--num-envs 32: inference on larger batches is faster, 7% overall")
    config = Config(mode="traj", workers=2, update_threads=2, update_epochs=1, num_envs=32)
    assert result(config, **fast).advice[0].startswith("nothing")


def test_the_other_precision_is_advised_where_it_was_measured_to_be_faster():
    it = result(other_precision="bfloat16", other_act=9000.0, other_learn=3000.0)
    assert it.advice == ["--precision bfloat16: 85% faster overall, as measured"]
    assert it.recommended["precision"] == "bfloat16"
    assert "in bfloat16: inference 9,000, learning 3,000" in it.text()
    slower = result(other_precision="bfloat16", other_act=400.0, other_learn=300.0)
    assert slower.recommended["precision"] == "float32"


def test_the_spread_of_the_rounds_is_told():
    it = result()
    rounds = {name: rates * 2 for name, rates in it.every_round.items()}
    it = replace(it, every_round=rounds | {"whole": [400.0, 600.0]})
    assert "400 to 600" in it.text()
    assert "medians of 2 rounds" in it.text()


def test_everything_is_in_the_document_and_the_main_things_in_the_text():
    it = result()
    document = json.loads(json.dumps(it.document()))
    assert document["medians"] == RATES
    assert document["every_round"]["ring"] == [2.0]
    assert document["binds"] == "learn"
    assert document["config"]["mode"] == "traj"
    for words in (
        "bottleneck: learning",
        f"{it.ratio:.2f} of the ceiling",
        "ring: 2 MB/s, 0.50 of a memcpy",
        "nothing: these options suit",
        "for this machine: --workers 2 --update-threads 2 --precision float32 --num-envs 16",
    ):
        assert words in it.text()
