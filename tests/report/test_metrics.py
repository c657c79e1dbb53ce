"""A run's numbers, for a program."""

from __future__ import annotations

import json
import sys

import numpy as np
import pandas
import pytest

import aa2c
from aa2c import ConfigError
from aa2c.report.metrics import COLUMNS
from tests.report.written_run import metrics_row, write_run


@pytest.fixture
def run(tmp_path):
    rows = [json.loads(metrics_row(float(t), t * 100, policy=t / 2)) for t in range(4)]
    rows[2]["returns"] = {"train": {"mean": 9.5}, "test": {"greedy": {"mean": 20.0}}}
    return write_run(tmp_path / "run", metrics=[json.dumps(row) + "\n" for row in rows])


def test_a_frame_has_a_row_for_each_second_and_the_names_of_history(run):
    frame = aa2c.load_metrics(run)
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(COLUMNS)
    assert list(frame["env_steps"]) == [0, 100, 200, 300]
    assert list(frame["policy"]) == [0, 0.5, 1, 1.5]
    assert frame["train_return_mean"][2] == 9.5
    assert frame["greedy_test_return_mean"].dropna().to_dict() == {2: 20.0}


def test_arrays_are_the_same_columns(run):
    arrays, frame = aa2c.load_metrics(str(run), as_frame=False), aa2c.load_metrics(run)
    assert set(arrays) == set(frame)
    for name, column in arrays.items():
        np.testing.assert_array_equal(column, frame[name])


def test_without_pandas_there_are_arrays_and_a_frame_names_the_extra(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert isinstance(aa2c.load_metrics(run), dict)
    with pytest.raises(ConfigError, match=r"pip install 'aa2c\[pandas\]'"):
        aa2c.load_metrics(run, as_frame=True)


def test_what_a_resume_undid_and_damaged_lines_are_left_out(tmp_path):
    rows = [metrics_row(0.0, 0), metrics_row(1.0, 500), "{broken\n", metrics_row(2.0, 200)]
    frame = aa2c.load_metrics(write_run(tmp_path / "run", metrics=rows))
    assert list(frame["env_steps"]) == [0, 200]


def test_what_is_no_run_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere is not a run: metrics.jsonl: No such file"):
        aa2c.load_metrics(tmp_path / "nowhere")
