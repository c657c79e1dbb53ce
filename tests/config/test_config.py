from __future__ import annotations

import contextlib
import dataclasses
import tomllib
from datetime import date
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import aa2c
from aa2c.config.config import Config, flag
from aa2c.config.modes import FACTS
from aa2c.config.options import GROUPS
from aa2c.config.toml import load_config, preset_names, structure, to_toml
from aa2c.errors import ConfigError
from aa2c.modes.grad.worker import rollouts_per_pull, rollouts_per_push

OPTIONS = dataclasses.fields(Config)


@pytest.fixture
def document(tmp_path):
    """Write a TOML document; returns its path."""

    def write(text):
        path = tmp_path / "run.toml"
        path.write_text(text)
        return path

    return write


def refused(*words, **options):
    with pytest.raises(ConfigError) as caught:
        Config(**options)
    for word in words:
        assert word in str(caught.value)


def test_every_option_has_a_help_a_default_and_belongs_to_one_group():
    for item in OPTIONS:
        assert item.metadata["help"].strip()
        assert item.default is not dataclasses.MISSING
    names = [item.name for group in GROUPS for item in dataclasses.fields(group)]
    assert sorted(names) == sorted(item.name for item in OPTIONS)
    assert len(names) == len(set(names))


BOUNDS = [(i, b) for i in OPTIONS for b in ("minimum", "maximum") if i.metadata[b] is not None]


@pytest.mark.parametrize(("item", "bound"), BOUNDS, ids=lambda x: getattr(x, "name", x))
def test_a_bound_is_allowed_and_what_lies_beyond_it_is_refused_by_the_flags_name(item, bound):
    limit = item.metadata[bound]
    beyond = limit - 1 if bound == "minimum" else limit + 1

    def value(number):
        return (number,) if isinstance(item.default, tuple) else type(item.default)(number)

    kept = getattr(Config(**{item.name: value(limit)}, **fitting(item)), item.name)
    assert kept == value(limit) or (item.name, limit) == (
        "num_envs",
        0,
    )  # which is a number at once
    refused(flag(item.name), str(limit), **{item.name: value(beyond)})


def fitting(item):
    """A mode or engine that has the option, and what else it must have."""
    if item.name in ("workers", "workers_per_host"):
        return {"engine": "ray"}
    mode = {} if Config().uses(item.name) else {"mode": "traj"}
    steps = ("grad_sync_steps", "target_update_steps")
    return mode | ({"num_steps": 1} if item.name in steps else {})


@pytest.mark.parametrize("name", [i.name for i in OPTIONS if isinstance(i.default, float)])
def test_nan_is_refused(name):
    refused(flag(name), **{name: float("nan")})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ent_coef": (0.1, 0.2), "workers": 3}, ["--ent-coef", "2", "3", "--workers"]),
        ({"workers": 257}, ["--workers 257", "256 on one machine", "--engine ray"]),
        ({"address": "10.0.0.1:6379"}, ["--address needs --engine ray"]),
        ({"workers_per_host": 4}, ["--workers-per-host needs --engine ray"]),
        ({"ray_insecure": True}, ["--ray-insecure needs --engine ray"]),
        ({"ray_insecure": True, "engine": "ray"}, ["--ray-insecure needs --address"]),
        ({"engine": "ray", "mode": "model"}, ["--mode model needs --engine local"]),
        ({"engine": "ray", "deterministic": True}, ["--deterministic needs --engine local"]),
        ({"grad_sync_steps": 10}, ["--grad-sync-steps", "10", "--num-steps", "8"]),
        ({"target_update_steps": 4}, ["--target-update-steps", "4", "--num-steps", "8"]),
        ({"env": ""}, ["--env"]),
        ({"hidden_sizes": ()}, ["--hidden-sizes"]),
        ({"ent_coef": ()}, ["--ent-coef"]),
        ({"ent_coef": (0.1, -0.1), "workers": 2}, ["--ent-coef", "-0.1"]),
        ({"hidden_sizes": (64, 0)}, ["--hidden-sizes", "0"]),
        *(({"name": name}, ["--name"]) for name in ("a/b", "/a", "../a", ".", "..", "a/")),
    ],
    ids=str,
)
def test_contradictions_name_the_flags(options, words):
    refused(*words, **options)


def test_rollouts_of_a_push_and_a_pull_follow_from_the_steps():
    config = Config(num_steps=5, grad_sync_steps=15, target_update_steps=20)
    assert (rollouts_per_push(config), rollouts_per_pull(config)) == (3, 4)
    assert (rollouts_per_push(Config()), rollouts_per_pull(Config())) == (1, 1)
    assert [Config(workers=2, ent_coef=(0.1, 0.2)).worker_ent_coef(i) for i in (0, 1)] == [0.1, 0.2]
    assert [Config(ent_coef=(0.3,)).worker_ent_coef(i) for i in (0, 2)] == [0.3, 0.3]


def test_flags_go_before_the_file_the_file_before_the_preset_and_the_preset_before_defaults(
    document,
):
    defaults, preset = Config(), load_config(preset="grad/atari")
    assert load_config() == defaults
    assert preset.num_steps != defaults.num_steps
    assert preset.learning_rate != defaults.learning_rate
    file = document("num_steps = 32\nnum_envs = 5\n")
    config = load_config(preset="grad/atari", file=file, flags={"num_envs": 7})
    assert config.num_envs == 7
    assert config.num_steps == 32
    assert config.learning_rate == preset.learning_rate
    assert config.ring_slots == preset.ring_slots != defaults.ring_slots
    assert config.gamma == defaults.gamma
    assert load_config(file=file).learning_rate == defaults.learning_rate


@pytest.mark.parametrize(("workers", "num_envs"), [(1, 8), (3, 8), (4, 6), (8, 3), (100, 1)])
def test_many_workers_share_environments_if_their_number_is_left_open(workers, num_envs):
    assert Config(workers=workers, num_envs=0).num_envs == num_envs
    assert aa2c.recipe("CartPole-v1", mode="grad", workers=workers).num_envs == num_envs
    assert aa2c.recipe("CartPole-v1", mode="grad", workers=workers, num_envs=5).num_envs == 5


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("learning_rat", "learning_rate"), ("num-steps", "num_steps"), ("worker", "workers")],
)
def test_an_unknown_option_is_refused_and_the_nearest_one_named(document, key, nearest):
    with pytest.raises(ConfigError) as caught:
        load_config(file=document(f"{key} = 1\n"))
    for word in (key, f"did you mean {nearest}?", "run.toml"):
        assert word in str(caught.value)


def test_an_unknown_preset_and_an_unreadable_file_are_refused(document, tmp_path):
    with pytest.raises(ConfigError, match="did you mean grad/atari"):
        load_config(preset="grad/atary")
    with pytest.raises(ConfigError, match=r"nowhere\.toml cannot be read"):
        load_config(file=tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(file=tmp_path)
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(file=document("num_steps = = 3"))
    (tmp_path / "bytes.toml").write_bytes(b'name = "\xff\xfe"')
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(file=tmp_path / "bytes.toml")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("num_steps = true", "an integer"),
        ('num_steps = "1.5"', "an integer"),
        ('num_steps = "inf"', "an integer"),
        ("num_steps = 1.5", "an integer"),
        ("num_steps = [3]", "an integer"),
        ("num_steps = 1979-05-27", "an integer"),
        ("num_steps = {a = 1}", "an integer"),
        ('gamma = "0,9"', "a number"),
        ("gamma = true", "a number"),
        ("norm_adv = 1", "true or false"),
        ('norm_adv = "true"', "true or false"),
        ("env = 3", "a string"),
        ("name = false", "a string"),
        ("hidden_sizes = [1.5]", "a list of integers"),
        ("hidden_sizes = [true]", "a list of integers"),
        ('hidden_sizes = "64; 64"', "a list of integers"),
        ('ent_coef = ["x"]', "a number or a list of numbers"),
        ("ent_coef = [[0.1]]", "a number or a list of numbers"),
        ('optimizer = "sgd"', "one of adam, rmsprop"),
        ("optimizer = 1", "one of adam, rmsprop"),
        ("optimizer = [1]", "one of adam, rmsprop"),
        ('mode = "gradd"', "one of"),
        ('track = ["mlflow"]', "a list of any of tensorboard, wandb"),
        ("allowed_host = [1]", "a string or a list of strings"),
    ],
)
def test_an_ill_typed_value_is_refused_and_the_type_it_must_have_is_named(document, line, words):
    with pytest.raises(ConfigError) as caught:
        load_config(file=document(line))
    assert words in str(caught.value)
    assert line.split(" = ")[0] in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        f"gamma = {'9' * 400}",
        f"ent_coef = 0x{'f' * 400}",
        f"num_steps = {'9' * 5000}",
        f"seed = 0x{'f' * 5000}",
        f"port = 0x{'f' * 5000}",
        f"name = {'[' * 5000}",
    ],
    ids=lambda line: line[:20],
)
def test_numbers_and_nesting_beyond_all_bounds_are_config_errors(document, line):
    with pytest.raises(ConfigError):
        load_config(file=document(line))


def test_one_number_stands_for_a_list_of_one(document):
    config = load_config(file=document("ent_coef = 0.25\nhidden_sizes = 32\n"))
    assert (config.ent_coef, config.hidden_sizes) == ((0.25,), (32,))
    assert load_config(file=document("ent_coef = 1\n")).ent_coef == (1.0,)


@pytest.mark.parametrize("preset", ["none", *preset_names()])
def test_to_toml_of_a_preset_reads_back_the_same_and_shows_every_option(document, preset):
    config = load_config(preset=preset)
    text = to_toml(config)
    assert load_config(file=document(text)) == config
    assert tomllib.loads(text).keys() == {item.name for item in OPTIONS}


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": 1e-05, "optimizer_eps": 1e-12, "stall_timeout_s": 1e6},
        {"max_grad_norm": 1e-300, "gamma": 0.1 + 0.2, "learning_rate": 1},
        {"ent_coef": (0.0, 1e-9), "workers": 2, "hidden_sizes": (1, 2, 3)},
        {"total_env_steps": 2**53, "norm_adv": False, "host": "::1"},
        *(
            {"name": name, "runs_dir": f"/tmp/{name}"}
            for name in ("q\"uo'te", "back\\slash", "ünïcödé 🚀", "a = 1 # no", "'''", '"""')
        ),
        *({"name": f"a{c}b"} for c in "\n\t\r\x01\x1b\x7f\x85\u2028"),
    ],
    ids=ascii,
)
def test_to_toml_of_odd_values_reads_back_the_same(document, options):
    config = Config(**options)
    assert load_config(file=document(to_toml(config))) == config


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(env=text.filter(bool), name=text.filter(lambda s: Path(s).name == s), runs_dir=text)
@example(env="\r\n", name="x", runs_dir="\\u0000")
def test_strings_survive_to_toml(env, name, runs_dir):
    try:
        config = Config(env=env, name=name, runs_dir=runs_dir)
    except ConfigError:
        return  # a stricter check of what a name may be is fine
    assert Config(**structure(tomllib.loads(to_toml(config)), "document")) == config


scalars = st.one_of(
    st.booleans(), st.integers(), st.floats(), text, st.dates(), st.integers(10**300, 10**400)
)
toml = st.recursive(
    scalars, lambda x: st.lists(x, max_size=3) | st.dictionaries(text, x, max_size=3), max_leaves=5
)
keys = st.sampled_from([item.name for item in OPTIONS]) | text


@given(st.dictionaries(keys, toml, max_size=4))
@example({"optimizer": []})
@example({"optimizer": {"adam": 1}})
@example({"seed": date(2020, 1, 1)})
@example({"gamma": 10**400})
@example({"": 1})
def test_any_document_is_a_configuration_or_a_config_error(raw):
    with contextlib.suppress(ConfigError):
        Config(**structure(raw, "document"))


@pytest.mark.parametrize("mode", FACTS)
@pytest.mark.parametrize("name", [item.name for item in OPTIONS])
def test_each_option_is_used_by_a_mode_or_refused_by_name_even_at_its_default(name, mode):
    """Every option in every mode, as a flag; only the mode's own facts decide."""
    default = next(item.default for item in OPTIONS if item.name == name)
    value = mode if name == "mode" else default
    users = {other for other, facts in FACTS.items() if name in facts.uses}
    if not users or mode in users:
        assert getattr(load_config(flags={"mode": mode, name: value}), name) == value
        return
    with pytest.raises(ConfigError) as told:
        load_config(flags={"mode": mode, name: value})
    assert f"{flag(name)} needs --mode " in str(told.value)
    assert all(user in str(told.value) for user in users)


def test_an_option_of_another_mode_is_refused_for_that_and_not_for_its_value():
    refused("--grad-sync-steps", "--mode grad", mode="traj", num_steps=32, grad_sync_steps=16)
