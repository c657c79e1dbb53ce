"""What a run resumes from, by files alone; runs that are resumed are in `tests/test_resume.py`."""

from __future__ import annotations

import dataclasses

import pytest

from aa2c import ConfigError
from aa2c.checkpoints.files import CheckpointError, last_sequence
from aa2c.checkpoints.resume import config_to_resume, differences, newest_after, read_to_resume
from aa2c.config.toml import to_toml
from tests.checkpoints.written import CONFIG, replace, write


@pytest.fixture
def run_dir(tmp_path):
    """A run with two checkpoints."""
    for env_steps in (100, 200):
        write(tmp_path / "run/checkpoints", env_steps)
    (tmp_path / "run/config.toml").write_text(to_toml(CONFIG))
    return tmp_path / "run"


def edit(run_dir, **options):
    (run_dir / "config.toml").write_text(to_toml(dataclasses.replace(CONFIG, **options)))


def make_foreign(checkpoint):
    """Let it be of another environment, with a manifest that agrees."""
    state = (checkpoint / "state.json").read_bytes()
    replace(checkpoint, "state.json", state.replace(b"CartPole-v1", b"Acrobot-v1"))
    return checkpoint


def test_a_checkpoint_of_another_environment_is_passed_over_and_told(run_dir):
    good = run_dir / "checkpoints/step-000000000200"
    foreign = make_foreign(write(run_dir / "checkpoints", 9000))
    saved = read_to_resume(run_dir)
    assert saved.path == good
    (why,) = saved.passed_over
    assert why == (
        f"{foreign.name}: it is not of this run: it has --env Acrobot-v1, config.toml CartPole-v1"
    )
    assert newest_after(run_dir, CONFIG, 0, None) == good
    with pytest.raises(CheckpointError, match="it is not of this run"):
        read_to_resume(foreign)


def test_what_is_damaged_is_told_with_what_is_taken_instead(run_dir):
    (run_dir / "checkpoints/step-000000000200/model.safetensors").write_bytes(b"x")
    saved = read_to_resume(run_dir)
    assert saved.path.name == "step-000000000100"
    assert "step-000000000200: model.safetensors has not the size" in saved.passed_over[0]


def test_an_edited_config_toml_is_followed_but_for_what_can_be_set_live(run_dir):
    edit(run_dir, total_env_steps=12345, seed=9, ent_coef=0.7, learning_rate=0.5)
    for path in (run_dir, run_dir / "checkpoints", run_dir / "checkpoints/step-000000000100"):
        expected = dataclasses.replace(CONFIG, total_env_steps=12345, seed=9)
        assert config_to_resume(path) == expected
    assert differences(run_dir, expected) == {
        "ent_coef": "(0.7,), now (0.1, 0.2)",
        "learning_rate": f"0.5, now {CONFIG.learning_rate}",
    }
    (run_dir / "config.toml").unlink()
    assert config_to_resume(run_dir) == CONFIG


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no_such_option = 1", "unknown option 'no_such_option'"),
        ("total_env_steps =", "is not TOML"),
        ('num_envs = "three"', "num_envs = 'three' is not an integer"),
        ("workers = 0", "--workers 0 must be"),
    ],
)
def test_a_config_toml_that_is_damaged_is_refused(run_dir, text, said):
    (run_dir / "config.toml").write_text(text)
    for read in (read_to_resume, config_to_resume):
        with pytest.raises(ConfigError, match=said):
            read(run_dir)


def test_what_lies_beside_a_run_is_not_taken_for_its_config_toml(run_dir):
    (run_dir.parent / "config.toml").write_text("mine = 1")
    (run_dir / "config.toml").unlink()
    assert config_to_resume(run_dir) == CONFIG


def test_sequence_numbers_that_are_none_count_as_the_lowest(run_dir):
    for wrong in ('"x"', "-7", "1" + "0" * 400, "NaN", "[]"):
        checkpoint = write(run_dir / "checkpoints", 300)
        before = b'"sequence": %d' % last_sequence(run_dir / "checkpoints")
        state = (checkpoint / "state.json").read_bytes()
        replace(checkpoint, "state.json", state.replace(before, f'"sequence": {wrong}'.encode()))
        assert read_to_resume(run_dir).path.name == "step-000000000200"
        assert last_sequence(run_dir / "checkpoints") == 2
