from __future__ import annotations

import copy
import dataclasses
import enum
import fractions
import json
import pickle
import re
import tomllib
from pathlib import Path
from typing import get_args, get_origin

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, reject, settings
from hypothesis import strategies as st

from aa2c.cli.flags import Nothing, resolve
from aa2c.config.config import Config, flag, option_types
from aa2c.config.kwargs import Kwargs
from aa2c.config.options import LIVE_OPTIONS
from aa2c.config.toml import structure, to_toml
from aa2c.errors import ConfigError

OPTIONS = {item.name: item for item in dataclasses.fields(Config)}


class Word(enum.Enum):
    ADAM = "adam"


class Text(str, enum.Enum):  # noqa: UP042  # its str() is not its string
    ADAM = "adam"


class Number(enum.IntEnum):
    THREE = 3


class Hostile:
    def __repr__(self):
        raise RuntimeError("no")

    __float__ = __index__ = __fspath__ = tolist = __repr__


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def is_plain(value, hint):
    if get_origin(hint) is tuple:
        return type(value) is tuple and all(is_plain(item, get_args(hint)[0]) for item in value)
    return type(value) is (hint if hint in (int, float, bool, str, Kwargs) else str)


ACCEPTED = [
    ("total_env_steps", 1e6, 1_000_000),
    ("total_env_steps", "1e6", 1_000_000),
    ("total_env_steps", "10_000", 10_000),
    ("total_env_steps", np.float32(2e4), 20_000),
    ("workers", np.int64(3), 3),
    ("workers", np.array(3), 3),
    ("workers", torch.tensor(3), 3),
    ("workers", Number.THREE, 3),
    ("learning_rate", "1e-4", 1e-4),
    ("learning_rate", 1, 1.0),
    ("learning_rate", np.float64(1e-4), 1e-4),
    ("learning_rate", np.longdouble("0.25"), 0.25),
    ("learning_rate", fractions.Fraction(1, 4), 0.25),
    ("gamma", np.float32(0.5), 0.5),
    ("norm_adv", np.bool_(False), False),
    ("runs_dir", Path("a/b"), "a/b"),
    ("env", np.str_("CartPole-v1"), "CartPole-v1"),
    ("optimizer", Text.ADAM, "adam"),
    ("hidden_sizes", [64, 32.0], (64, 32)),
    ("hidden_sizes", range(1, 4), (1, 2, 3)),
    ("hidden_sizes", np.array([8, 8], np.uint8), (8, 8)),
    ("ent_coef", torch.tensor([0.5]), (0.5,)),
    ("ent_coef", "0.5", (0.5,)),
    ("track", "wandb", ("wandb",)),
    ("allowed_host", [], ()),
]


@pytest.mark.parametrize(("name", "value", "wanted"), ACCEPTED, ids=str)
def test_what_means_the_same_is_taken_and_kept_as_pythons_own_type(name, value, wanted):
    kept = getattr(Config(**{name: value}), name)
    assert kept == wanted
    assert is_plain(kept, option_types()[name])
    assert structure({name: value}, "document") == {name: kept}


REFUSED = [
    ("total_env_steps", 2.5, "2.5 is not an integer"),
    ("total_env_steps", None, "None is not an integer"),
    ("total_env_steps", 10**5000, ""),
    ("total_env_steps", float("inf"), "not an integer"),
    ("workers", True, "True is not an integer"),
    ("workers", np.array([3, 3]), "not an integer"),
    ("workers", 1j, "not an integer"),
    ("workers", b"3", "not an integer"),
    ("learning_rate", False, "False is not a number"),
    ("learning_rate", "fast", "'fast' is not a number"),
    ("learning_rate", "inf", "not a finite number"),
    ("learning_rate", 10**5000, "is not a number"),
    ("norm_adv", 1, "1 is not true or false"),
    ("norm_adv", "false", "'false' is not true or false"),
    ("env", None, "None is not a string"),
    ("env", "a\0b", "cannot be written"),
    ("env", "\ud800", "cannot be written"),
    ("env", "x" * 10**6, "longer than"),
    ("mode", "gradd", "is not one of grad, model, traj; did you mean grad?"),
    ("optimizer", "addam", "'addam' is not one of adam, rmsprop; did you mean adam?"),
    ("optimizer", Word.ADAM, "is not one of adam, rmsprop"),
    ("optimizer", "\ud800", "is not one of adam, rmsprop"),
    ("hidden_sizes", [[64]], "is not a list of integers"),
    ("hidden_sizes", nested(10_000), "is not a list of integers"),
    ("hidden_sizes", {64: 64}, "is not a list of integers"),
    ("hidden_sizes", [1] * 10**5, "is not a list of integers"),
    ("track", "tensorbord", "did you mean tensorboard?"),
    ("track", {"wandb"}, "is not a list of any of tensorboard, wandb"),
    ("track", ["wandbb"], "is not a list of any of tensorboard, wandb; did you mean wandb?"),
    ("name", "ü" * 150, "longer than"),
    ("obs_scale", 1e-300, "must be 0 or at least"),
    ("ent_coef", 1e308, "must be at most"),
    *((name, Hostile(), "is not") for name in ("workers", "gamma", "norm_adv", "env", "track")),
]


@pytest.mark.parametrize(("name", "value", "words"), REFUSED, ids=lambda it: repr(type(it)))
def test_all_else_is_refused_by_the_options_name_in_one_short_sentence(name, value, words):
    with pytest.raises(ConfigError) as caught:
        Config(**{name: value})
    message = str(caught.value)
    assert message.startswith(flag(name))
    assert words in message
    assert len(message) < 300
    message.encode()


def test_an_unknown_option_is_refused_and_the_nearest_one_named():
    with pytest.raises(ConfigError, match=r"no option 'workerz'; did you mean workers\?"):
        Config(workerz=2)
    with pytest.raises(ConfigError, match=r"no option 'learning-rate'; did you mean learning_rate"):
        dataclasses.replace(Config(), **{"learning-rate": 1})


def test_minus_zero_is_zero():
    assert str(Config(reward_clip=-0.0).reward_clip) == "0.0"


def test_float_options_have_bounds_within_float32_and_live_options_all_do():
    bounded = [n for n in OPTIONS if option_types()[n] in (float, tuple[float, ...])]
    for name in {*bounded, *LIVE_OPTIONS}:
        assert OPTIONS[name].metadata["minimum"] >= 0
        assert OPTIONS[name].metadata["maximum"] <= 10**9


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--total-env-steps", "1e6"], {"total_env_steps": 1_000_000}),
        (["--workers", "2.0", "--learning-rate", "1e-4"], {"workers": 2, "learning_rate": 1e-4}),
        (["--hidden-sizes", "64.0", "3_2"], {"hidden_sizes": (64, 32)}),
        (
            ["--hidden-sizes", "64,32", "--ent-coef", "0.01, 1e-3,0"],
            {"hidden_sizes": (64, 32), "ent_coef": (0.01, 1e-3, 0.0)},
        ),
        (["--ent-coef", "1", "1e-2", "0"], {"ent_coef": (1.0, 0.01, 0.0)}),
        (["--no-norm-adv"], {"norm_adv": False}),
    ],
    ids=str,
)
def test_flags_take_what_config_takes(words, wanted):
    config = resolve("config", "", ["--preset", "none", *words], Nothing).config
    assert config == Config(**wanted)


@pytest.mark.parametrize("word", ["2.5", "x", "inf", "true"])
def test_a_flag_of_the_wrong_type_is_refused_by_its_name(word):
    with pytest.raises(ConfigError, match=f"^--total-env-steps '{word}' is not an integer.$"):
        resolve("config", "", ["--preset", "none", "--total-env-steps", word], Nothing)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--ent-coef", "0.1,x"], "--ent-coef ['0.1,x'] is not a number or a list of numbers."),
        (["--hidden-sizes", "64", "a"], "--hidden-sizes ['64', 'a'] is not a list of integers."),
    ],
)
def test_a_bad_element_of_a_flag_gets_the_sentence_that_it_gets_everywhere(words, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        resolve("config", "", words, Nothing)
    name, value = words[0][2:].replace("-", "_"), words[1:]
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        Config(**{name: value})


numbers = st.integers() | st.floats() | st.floats(width=32).map(np.float32)
scalars = st.one_of(numbers, st.booleans(), st.none(), st.text(max_size=9), st.binary(max_size=9))
anything = st.recursive(scalars, lambda it: st.lists(it, max_size=3), max_leaves=5)
SLOW_START = settings(suppress_health_check=[HealthCheck.too_slow])  # the first draw


@SLOW_START
@given(st.sampled_from(sorted(OPTIONS)), anything)
def test_any_value_is_taken_or_a_config_error(name, value):
    try:
        config = Config(**{name: value})
    except ConfigError:
        return
    assert is_plain(getattr(config, name), option_types()[name])


words = st.text("aö\n\"\\'#\x7f\u2028 =", max_size=9)
plain = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | words
    | st.just(np.float32(0.5)),
    lambda it: st.lists(it, max_size=3) | st.dictionaries(words, it, max_size=3),
    max_leaves=5,
)


def within_bounds(name):
    """Values that an option takes, in the clothes that numbers wear."""
    hint, item = option_types()[name], OPTIONS[name].metadata
    kind = get_args(hint)[0] if get_origin(hint) is tuple else hint
    if kind is Kwargs:
        return st.dictionaries(st.from_regex(r"[a-z_]{1,3}", fullmatch=True), plain, max_size=3)
    if name == "vector" or name == "wrapper":
        code = st.from_regex(r"[a-z]{1,3}(\.[a-z]{1,3})?:[A-Z][a-z]{0,3}", fullmatch=True)
        return code if kind is hint else st.lists(code, max_size=3)
    if kind is bool:
        return st.booleans() | st.booleans().map(np.bool_)
    if kind is str:
        return st.text("aö\n\"\\'#\x7f\u2028", min_size=1, max_size=9)
    if kind not in (int, float):
        return st.sampled_from(get_args(kind))
    least, most = item["minimum"], item["maximum"] or 10**6
    number = st.integers(least, most) if kind is int else st.floats(least, most)
    clothed = st.one_of(number, number.map(str), number.map(np.float64 if kind is float else int))
    return clothed if kind is hint else st.lists(clothed, min_size=1, max_size=3)


documents = st.sets(st.sampled_from(sorted(OPTIONS)), max_size=4).flatmap(
    lambda names: st.fixed_dictionaries({name: within_bounds(name) for name in sorted(names)})
)


@SLOW_START
@given(documents)
@example({"name": Path("x"), "ent_coef": np.array([0.5])})
@example({"learning_rate": 5e-324, "gamma": -0.0})
def test_what_is_accepted_can_be_written_read_copied_and_pickled(options):
    try:
        config = Config(**options)
    except ConfigError:
        reject()  # options that contradict each other
    assert Config(**structure(tomllib.loads(to_toml(config)), "document")) == config
    assert Config(**structure(json.loads(json.dumps(vars(config))), "state.json")) == config
    assert dataclasses.replace(config) == copy.deepcopy(config) == config
    assert all(pickle.loads(pickle.dumps(config, protocol)) == config for protocol in range(6))
