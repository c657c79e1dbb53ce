"""What the page tells of a run beyond its numbers: options, commands, log."""

from __future__ import annotations

import json
import shlex

import pytest

from aa2c.config.config import Config
from aa2c.config.toml import load_config
from aa2c.run.about import LOG_LINES, about, log_tail
from aa2c.run.files import TAIL_BYTES
from aa2c.run.quantities import QUANTITIES


def test_options_stand_beside_those_of_the_recipe_and_those_that_differ_are_marked(tmp_path):
    config = load_config(preset="grad/atari", flags={"learning_rate": 0.125, "seed": 7})
    told = about(config, tmp_path)
    assert told["recipe"] == "grad/atari"
    marked = {it["name"]: (it["value"], it["recipe"]) for it in told["options"] if it["recipe"]}
    assert marked == {"learning_rate": ("0.125", "0.0005"), "seed": ("7", "0")}
    assert all(config.uses(option["name"]) for option in told["options"])


def test_the_defaults_are_a_recipe_of_each_mode():
    for mode in ("grad", "traj", "model"):
        assert about(load_config(preset=f"{mode}/vector"), "runs/a")["recipe"] == f"{mode}/vector"


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_what_follows_from_the_number_of_workers_does_not_differ_from_the_recipe(workers):
    told = about(load_config(preset="grad/vector", flags={"workers": workers}), "runs/a")
    differing = [option["name"] for option in told["options"] if option["recipe"]]
    assert differing == (["workers"] if workers != 3 else [])


def test_every_quantity_of_learning_that_is_charted_says_how_it_is_read(tmp_path):
    readings = about(Config(), tmp_path)["readings"]
    charted = {q.name for q in QUANTITIES if q.series and q.path.startswith("losses.")}
    assert readings.keys() >= charted - {"learning_rate"}
    assert all(text.endswith(".") and len(text) > 60 for text in readings.values())


def test_commands_can_be_pasted_into_a_shell(tmp_path):
    run_dir = tmp_path / "my run; it's $HOME"
    for command in about(Config(), run_dir)["commands"].values():
        assert shlex.split(command)[-1] == str(run_dir)


def test_the_log_has_the_newest_lines_of_all_levels_and_skips_what_is_damaged(tmp_path):
    assert log_tail(tmp_path) == {"lines": []}
    line = {"timestamp": "2026-01-01T00:00:00Z", "level": "info", "process": "updater"}
    lines = [json.dumps(line | {"event": f"event {i}", "x": 1}) for i in range(2000)]
    assert sum(map(len, lines)) > TAIL_BYTES
    text = "\n".join([*lines, "[1]", '{"level": "info"}', '{"cut o'])
    (tmp_path / "log.jsonl").write_text(text)
    told = log_tail(tmp_path)["lines"]
    assert len(told) == LOG_LINES
    assert told[-1] == {
        "time": line["timestamp"], "level": "info", "process": "updater", "text": "event 1999 x=1",
    }  # fmt: skip
