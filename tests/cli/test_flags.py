"""What a person types: help, names of other libraries, slips, completion."""

from __future__ import annotations

import subprocess

import pytest

from aa2c import Config, ConfigError
from aa2c.cli.completion import choices, flags_of, script
from aa2c.cli.flags import Nothing, resolve
from aa2c.cli.main import COMMANDS
from aa2c.cli.own_flags import FLAGS
from aa2c.config import peers
from aa2c.config.config import flag, option_types
from aa2c.config.toml import load_config


def test_the_short_help_has_what_is_needed_often_and_help_all_has_every_option(command):
    short, all_of_it = command("serve", "--help"), command("serve", "--help-all")
    assert (short.returncode, all_of_it.returncode) == (0, 0)
    for name in ("--workers", "--learning-rate", "--resume", "--help-all"):
        assert f"  {name}" in short.stdout
    assert "--stall-timeout-s" not in short.stdout
    assert [n for n in option_types() if f"  {flag(n)}" not in all_of_it.stdout] == []
    assert "The workers:" in short.stdout


def help_on(text, name):
    """What a page of help says of a flag, in one line."""
    said = text.partition(f"  {name} ")[2].partition("\n  --")[0]
    return " ".join(said.split())


@pytest.mark.parametrize(
    ("words", "preset"),
    [
        ((), "grad/vector"),
        (("--mode", "traj"), "traj/vector"),
        (("--mode", "traj", "--env", "ALE/Pong-v5"), "traj/atari"),
        (("--preset", "traj/pong"), "traj/pong"),
    ],
)
def test_the_defaults_in_help_are_those_that_the_recipe_gives(command, words, preset):
    text = command("serve", *words, "--help-all").stdout
    config = load_config(preset=preset)
    assert f"--preset {preset}" in " ".join(text.split())
    for name in ("num_steps", "learning_rate", "total_env_steps"):
        assert f"(default: {getattr(config, name)})" in help_on(text, flag(name))


def test_help_tells_which_options_are_of_other_modes_and_needs_no_correct_line(command):
    text = command("serve", "--help-all", "--no-such-flag").stdout
    assert "only --mode traj" in help_on(text, "--clip-coef")
    assert "--minibatches" not in command("serve", "-h").stdout
    assert "--minibatches" in command("serve", "-h", "--mode", "traj").stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--lr", "3"], "there is no --lr: aa2c calls it --learning-rate."),
        (["--n-envs=4"], "there is no --n-envs: aa2c calls it --num-envs."),
        (["--num_workers", "4"], "there is no --num-workers: aa2c calls it --workers."),
        (["--timesteps", "1e6"], "there is no --timesteps: aa2c calls it --total-env-steps."),
        (["--ent-weight", "0"], "there is no --ent-weight: aa2c calls it --ent-coef."),
        (["--gpu"], "there is no --gpu: aa2c trains on CPUs only."),
        (["--batch-size", "3"], "there is no --batch-size: in mode traj a batch has --batch-steps"),
        (["--hlep"], "there is no --hlep; did you mean --help?"),
        (["--wrokers", "3"], "there is no --wrokers; did you mean --workers?"),
        (["--xyzzy"], "there is no --xyzzy: python -m aa2c config --help-all lists what there is."),
        (["--workers"], "--workers needs a value."),
        (["--norm-obs=true"], "--norm-obs takes no value: --no-norm-obs turns it off."),
        (["--norm-obs", "true"], "config does not take 'true': options begin with --"),
    ],
    ids=lambda it: it[0] if isinstance(it, list) else "",
)
def test_a_slip_gets_one_sentence(command, words, says):
    done = command("config", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"aa2c: {says}")
    assert done.stderr.count("\n") == 1


def test_names_of_other_libraries_lead_to_options_and_are_none_themselves():
    assert set(peers.NAMES.values()) <= set(option_types())
    assert not set(option_types()) & (set(peers.NAMES) | set(peers.ELSEWHERE))
    with pytest.raises(ConfigError, match="'lr': aa2c calls it learning_rate"):
        Config(lr=1e-3)  # type: ignore[call-arg]


def test_flags_beat_the_preset_and_a_recipe_of_another_mode_is_not_taken():
    words = ["--mode", "traj", "--total-env-steps", "1e6", "--no-norm-adv", "--ent-coef", "0.01"]
    resolved = resolve("config", "", words, Nothing)
    assert resolved.preset == "traj/vector"
    config = resolved.config
    assert (config.total_env_steps, config.norm_adv, config.ent_coef) == (10**6, False, (0.01,))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["report"], "report needs a run, or several"),
        (["eval"], "eval needs a run"),
        (["export", "."], "export needs a file to write"),
        (["eval", ".", "--video", "x.gif"], "--video x.gif must end in .mp4."),
        (["runs", "nowhere"], "there is no directory nowhere"),
        (["completion"], "completion needs a shell"),
        (["top", "."], ". is not being served"),
        (["top", "nowhere"], "nowhere is neither a run's directory nor an address"),
    ],
    ids=lambda it: " ".join(it) if isinstance(it, list) else "",
)
def test_what_is_missing_is_said_at_once(command, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    done = command(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"aa2c: {says}")
    assert list(tmp_path.iterdir()) == []


def test_alone_it_says_what_to_try(command):
    said = command().stdout
    assert said.count("\n  python -m aa2c ") == 3
    assert command("--hlep").stderr == "aa2c: there is no command '--hlep'; did you mean --help?\n"


def completed(*words: str) -> list[str]:
    """What bash offers for the last word."""
    line = " ".join(f"'{word}'" for word in words)
    ask = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _aa2c; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script('bash')}\n{ask}"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_bash_completes_commands_flags_and_choices():
    assert completed("aa2c", "e") == ["eval", "export"]
    assert completed("aa2c", "serve", "--learn") == ["--learning-rate"]
    assert completed("aa2c", "serve", "--mode", "") == ["grad", "model", "traj"]
    assert completed("aa2c", "eval", "--epi") == ["--episodes"]
    assert completed("aa2c", "eval", "--help-a") == []


def test_every_command_has_its_flags_and_every_shell_a_script():
    assert set(COMMANDS) == set(FLAGS)
    for name in COMMANDS:
        assert "--help" in flags_of(name)
    assert "traj/pong" in choices()["--preset"]
    assert "-l learning-rate" in script("fish")
    assert "bashcompinit" in script("zsh")
