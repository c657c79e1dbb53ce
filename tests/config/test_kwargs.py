"""Keyword arguments, wrappers and vectors: from every source, and what is no such thing."""

from __future__ import annotations

import dataclasses
import json
import tomllib

import numpy as np
import pytest

from aa2c import Config, ConfigError
from aa2c.cli.flags import Nothing, resolve, take_apart
from aa2c.cli.own_flags import Evaluation
from aa2c.config.config import check_same_learner, require_consent
from aa2c.config.kwargs import read_kwargs
from aa2c.config.toml import load_config, structure, to_toml

FLATTEN = "gymnasium.wrappers:FlattenObservation"


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("true", True), ("True", True), ("false", False), ("False", False),
        ("1", 1), ("-5", -5), ("0x10", 16), ("1_000", 1000),
        ("1.5", 1.5), ("1e3", 1000.0),
        ("text", "text"), ('"true"', "true"), ("'7'", "7"), ("a b = c", "a b = c"), ("", ""),
        ("2024-01-01", "2024-01-01"), ("./path.xml", "./path.xml"),
        ("[1, 2.5, 'x']", [1, 2.5, "x"]), ("{a = [true]}", {"a": [True]}), ('{"a": {}}', {"a": {}}),
    ],
)  # fmt: skip
def test_a_word_is_read_as_a_literal_or_else_as_text_and_written_so(word, value):
    kwargs = read_kwargs(f"name={word}")
    assert kwargs == {"name": value}
    assert type(kwargs["name"]) is type(value)
    assert read_kwargs(kwargs.words()) == kwargs


@pytest.mark.parametrize("text", ["None", "null", "True", "true", "1", " 1", "[x", "'", "ö=\n"])
def test_text_that_looks_like_something_else_keeps_being_text(text):
    assert read_kwargs(read_kwargs({"name": text}).words()) == {"name": text}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("continuous", "'continuous' is not name=value"),
        (["a=1", 2], "2 is not name=value"),
        (3, "no table"),
        ("a=None", "a cannot be None: leave it out"),
        ("two words=1", "'two words' is no name"),
        ({"a": None}, "a must be text, a finite number"),
        ({"a": [float("nan")]}, "a must be"),
        ({"a": {1: 2}}, "a must be"),
        ({"a": 2**63}, "a must be"),
        ({"a": "\0"}, "a must be"),
        ({"a": "\ud800"}, "a .*surrogates"),
        ({"a": object()}, "a must be .* a function that makes the environment"),
        ({"a": "x" * 70000}, "longer than 65536"),
    ],
)
def test_what_no_file_could_hold_is_refused_by_its_name(given, words):
    with pytest.raises(ConfigError, match=f"^--env-kwargs .*{words}"):
        Config(env_kwargs=given)


def test_too_deep_a_table_is_refused():
    table = {}
    for _ in range(99):
        table = {"a": table}
    with pytest.raises(ConfigError, match="--env-kwargs a must be"):
        Config(env_kwargs=table)


def test_they_come_from_a_toml_table_and_python_and_flags_alike(tmp_path):
    wanted = Config(
        env_kwargs={"a": np.int64(1), "b": (True, "x"), "c": {"d e": 0.5}}, wrapper=(FLATTEN, "m:f")
    )
    file = tmp_path / "run.toml"
    file.write_text(
        f'wrapper = ["{FLATTEN}", "m:f"]\n[env_kwargs]\na = 1\nb = [true, "x"]\n[env_kwargs.c]\n"d e" = 0.5\n'
    )
    assert load_config(file=file) == wanted
    words = ["--env-kwargs", "a=1", 'b=[true, "x"]', "--wrapper", FLATTEN, "--num-envs", "16"]
    words += ["--env-kwargs", "c={'d e' = 0.5}", "--wrapper=m:f", "--preset", "none"]
    assert resolve("config", "", words, Nothing).config == wanted
    assert Config(**structure(tomllib.loads(to_toml(wanted)), "it")) == wanted
    saved = json.loads(json.dumps(dataclasses.asdict(wanted)))
    assert Config(**structure(saved, "it")) == wanted


def test_flags_override_a_files_and_defaults_stay(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(f'env_kwargs = {{a = 1, b = "two words"}}\nwrapper = "{FLATTEN}"')
    base = ["--config", str(file), "--preset", "none"]
    kept = resolve("config", "", base, Nothing).config
    assert kept.env_kwargs == {"a": 1, "b": "two words"}
    assert kept.wrapper == (FLATTEN,)
    other = resolve(
        "config", "", [*base, "--env-kwargs", "b=3", "--wrapper", "m:f"], Nothing
    ).config
    assert other.env_kwargs == {"b": 3}
    assert other.wrapper == ("m:f",)


def test_repeated_flags_are_one_and_other_words_stay_what_they_are():
    words = ["run", "--wrapper", "a", "b", "--greedy", "--wrapper=c", "--env", "x"]
    given = take_apart("eval", words, (Evaluation,)).values
    assert given == {"run": "run", "wrapper": ["a", "b", "c"], "greedy": True, "env": "x"}
    repeated = ["--env-kwargs", "a=1", "--env_kwargs=b=2"]
    assert resolve("config", "", repeated, Nothing).config.env_kwargs == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"wrapper": "FlattenObservation"},
            "--wrapper 'FlattenObservation' is no package.module:name",
        ),
        ({"wrapper": ["a:b", "a:b.c"]}, "--wrapper 'a:b.c' is no"),
        ({"wrapper": 3}, "--wrapper 3 is not a string, class or function"),
        ({"vector": "make"}, "--vector 'make' is no package.module:name"),
        ({"vector": "a:b", "env": "Acrobot-v1"}, "--vector a:b .* excludes --env Acrobot-v1"),
        ({"vector": "a:b", "wrapper": ["c:d", "e:f"]}, "excludes --wrapper c:d e:f"),
        ({"vector": "a:b", "vectorization": "async"}, "excludes --vectorization async"),
        ({"deterministic": True, "vectorization": "async"}, "needs --vectorization sync"),
    ],
)
def test_what_does_not_go_together_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        Config(**options)


def test_a_checkpoint_does_not_choose_wrappers_or_vectors_but_gymnasiums_own():
    def made(env):
        return env

    ours = Config(wrapper=[FLATTEN])
    assert require_consent(ours, {}, "a run") == ours
    theirs = Config(wrapper=[FLATTEN, "evil:wrap"])
    for repeated in ({}, {"wrapper": (FLATTEN,)}, {"wrapper": ("evil:other", FLATTEN)}):
        with pytest.raises(
            ConfigError, match=rf"would import evil: .* repeat --wrapper {FLATTEN} evil:wrap\."
        ):
            require_consent(theirs, repeated, "a run")
    assert require_consent(theirs, {"wrapper": ["evil:wrap"]}, "a run") == theirs
    with pytest.raises(ConfigError, match=r"repeat --wrapper gymnasium\.other:f"):
        require_consent(Config(wrapper="gymnasium.other:f"), {}, "a run")
    with pytest.raises(ConfigError, match="repeat --vector evil:make"):
        require_consent(Config(vector="evil:make"), {"vector": ""}, "a run")
    saved = Config(**structure(json.loads(json.dumps(vars(Config(wrapper=made)))), "it"))
    (again,) = require_consent(saved, {"wrapper": [made]}, "a run").wrapper
    assert again.load() is made


def test_a_run_is_not_resumed_with_other_wrappers():
    saved = Config(wrapper=[FLATTEN, "m:f"])
    check_same_learner(saved, saved)
    for wrapper, words in (("m:f", "m:f differs"), ((), "none differs")):
        with pytest.raises(
            ConfigError, match=f"--wrapper {words} from the {FLATTEN} m:f of the run"
        ):
            check_same_learner(saved, Config(wrapper=wrapper))
    with pytest.raises(ConfigError, match="--vector m:g differs from the m:f of the run"):
        check_same_learner(Config(vector="m:f"), Config(vector="m:g"))
