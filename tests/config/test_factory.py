"""Classes and functions as options: by their names everywhere but on the way to a run's processes."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import pickle
import tomllib

import pytest

from aa2c import Config, ConfigError
from aa2c.config.config import changed, check_same_learner, require_consent
from aa2c.config.factory import Factory, factory_of
from aa2c.config.toml import structure, to_toml


class Env:
    def __call__(self):
        """Make an environment that is itself."""
        return self


def make(size=3):
    return size


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Env, "Env()"),
        (make, "make()"),
        (functools.partial(make, 4), "make()"),
        (Env(), "Env()"),
        (lambda: 3, "<lambda>()"),
        (Env.__call__, "Env.__call__()"),
    ],
)
def test_a_class_or_function_is_shown_by_its_qualified_name(call, name):
    config = Config(env=call, network=call)
    assert config.env == config.network == name
    assert config.env.load() is call
    assert json.loads(json.dumps(dataclasses.asdict(config)))["env"] == name


def test_it_goes_through_copies_and_changes_and_comes_back_from_toml_as_its_name():
    config = changed(Config(env=Env, network=make), {"learning_rate": 0.5})
    assert config.env.load() is copy.deepcopy(config).env.load() is Env
    read = Config(**structure(tomllib.loads(to_toml(config)), "here"))
    assert read == config
    assert type(read.env) is str
    check_same_learner(read, config)
    with pytest.raises(ConfigError, match=r"--env Env\(\) differs from the make\(\) of the run"):
        check_same_learner(Config(env=make), config)
    with pytest.raises(ConfigError, match=r"pass it again in Python, as env=\.\.\."):
        factory_of("--env", read.env)


def test_it_can_be_pickled_by_whoever_starts_runs_in_other_processes():
    config = pickle.loads(pickle.dumps(Config(env=lambda: 7)))
    assert config.env.endswith("<locals>.<lambda>()")
    assert config.env.load()() == 7
    again = pickle.loads(pickle.dumps(config))
    assert again.env.load()() == 7


def test_what_is_packed_stays_as_it_was_while_the_original_does_not():
    size = [1]
    original = Factory.of(lambda: size[0])
    packed = pickle.loads(pickle.dumps(original.packed()))
    size[0] = 2
    assert packed.load()() == 1
    assert pickle.loads(pickle.dumps(original.packed())).load()() == 2


def test_code_that_is_passed_again_takes_the_place_of_its_name():
    saved = Config(env="Env()", network="somewhere:make")
    given = require_consent(saved, {"env": Env, "network": make}, "a run")
    assert given.env.load() is Env
    assert given.network.load() is make
    of_a_config = require_consent(saved, vars(given), "a run")
    assert of_a_config.env.load() is Env
    assert of_a_config.network.load() is make
    assert require_consent(Config(), {"env": Env, "network": ""}, "a run") == Config()


@pytest.mark.parametrize("value", [3, None, b"CartPole-v1", ["CartPole-v1"]])
@pytest.mark.parametrize("option", ["env", "network"])
def test_what_is_neither_a_name_nor_makes_anything_is_refused(option, value):
    with pytest.raises(ConfigError, match=f"--{option} .* is not a string, class or function that"):
        Config(**{option: value})
