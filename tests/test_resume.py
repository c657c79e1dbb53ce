"""A run that goes on from its checkpoint: what it takes along, and what is refused."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from aa2c import Config, ConfigError, Orchestrator
from aa2c import train as train_to_the_end
from aa2c.checkpoints.files import CheckpointError
from aa2c.checkpoints.tensors import load_checkpoint
from aa2c.modes.mode import MODES
from tests.cli.test_main import FAST, aa2c
from tests.conftest import SMALL, until

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    """The configuration and directory of a short run, which many tests take a copy of."""
    config = Config(**SMALL, total_env_steps=2000, runs_dir=str(tmp_path_factory.mktemp("runs")))
    return config, Path(train_to_the_end(config)["run"]["dir"])


@pytest.fixture
def trained(trained_once, tmp_path):
    config, run_dir = trained_once
    return config, Path(shutil.copytree(run_dir, tmp_path / "copy"))


async def train(config, resume=None):
    async with Orchestrator(config, resume=resume) as run:
        return await run.wait()


def longer_by(config: Config, run_dir: Path, env_steps: int, **options: float) -> Config:
    """A budget beyond what the run has used, which may be twice what it was given."""
    used = load_checkpoint(run_dir).counts["env_steps"]
    return dataclasses.replace(config, total_env_steps=used + env_steps, **options)


def rows_of(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("mode", MODES)
async def test_a_resumed_run_goes_on_with_network_optimizer_and_counters(small, mode):
    options = {"norm_obs": True, "norm_rewards": True, "norm_returns": mode == "traj"}
    config = small(mode=mode, total_env_steps=4000, **options)
    first = await train(config)
    run_dir = Path(first["run"]["dir"])
    saved = load_checkpoint(run_dir)
    longer = longer_by(config, run_dir, 4000)

    async with Orchestrator(longer, resume=run_dir) as run:
        assert run.dir == run_dir
        assert run.status()["progress"]["env_steps"] == saved.counts["env_steps"]
        assert run.status()["progress"]["episodes"] == saved.counts["episodes"] > 0
        assert run.status()["run"]["uptime_s"] >= rows_of(run_dir)[-1]["time_s"]
        await run.ready()
        progress = run.status()["progress"]
        assert progress["updates"] >= saved.counts["updates"]
        assert progress["policy_version"] > saved.counts["policy_version"]
        second = await run.wait()
    assert second["progress"]["env_steps"] >= longer.total_env_steps
    assert second["progress"]["updates"] > saved.counts["updates"]
    resumed = load_checkpoint(run_dir)
    assert resumed.counts["env_steps"] > saved.counts["env_steps"]
    assert resumed.optimizer["step"] >= saved.optimizer["step"] + 1
    assert resumed.optimizer["step"] == resumed.counts["updates"]
    for rms in ("obs_rms", "reward_rms"):
        seen_before, seen = (it.model[f"{rms}.count"] for it in (saved, resumed))
        assert seen > seen_before > 0

    times = [row["time_s"] for row in rows_of(run_dir)]
    assert times == sorted(times)
    with (run_dir / "episodes.csv").open(newline="") as file:
        episodes = list(csv.DictReader(file))
    assert len(episodes) == second["progress"]["episodes"]


async def test_what_is_published_first_is_what_was_saved(small):
    """With a step size of 0 nothing moves, so that parameters come through unchanged.

    In mode model, whose workers step what they find as soon as it is there.
    """
    config = small(mode="model", total_env_steps=2000)
    run_dir = Path((await train(config))["run"]["dir"])
    saved = load_checkpoint(run_dir)
    still = longer_by(config, run_dir, 2000, learning_rate=0.0)
    await train(still, resume=run_dir)
    resumed = load_checkpoint(run_dir)
    assert resumed.path != saved.path
    assert all(torch.equal(resumed.model[name], saved.model[name]) for name in saved.model)
    assert not torch.equal(resumed.optimizer["exp_avg"], saved.optimizer["exp_avg"])


async def test_annealing_goes_on_where_it_was(trained):
    config, run_dir = trained
    saved = load_checkpoint(run_dir).counts["env_steps"]
    longer = dataclasses.replace(config, total_env_steps=10 * saved)
    async with Orchestrator(longer, resume=run_dir) as run:
        await until(lambda: run.status()["losses"]["learning_rate"])
        rate = run.status()["losses"]["learning_rate"]
    assert 0.5 < rate / config.learning_rate <= 0.9


async def test_an_older_checkpoint_of_a_run_can_be_named(small):
    config = small(total_env_steps=10**9, checkpoint_interval_s=1.0)
    async with Orchestrator(config) as run:
        await run.ready()
        await until(lambda: len(list(run.dir.glob("checkpoints/step-*"))) >= 2)
        await run.stop()
    oldest = min(run.dir.glob("checkpoints/step-*"))
    async with Orchestrator(config, resume=oldest) as resumed:
        assert resumed.dir == run.dir
        assert resumed.status()["progress"]["env_steps"] == int(oldest.name.removeprefix("step-"))


async def test_a_run_that_is_being_trained_cannot_be_resumed(small):
    config = small(total_env_steps=10**9, checkpoint_interval_s=1.0)
    async with Orchestrator(config) as run:
        await until(lambda: list(run.dir.glob("checkpoints/step-*")))
        with pytest.raises(ConfigError, match="is already being trained"):
            await Orchestrator(config, resume=run.dir).start()
        assert run.status()["run"]["state"] == "running"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mode": "traj"}, "--mode traj differs from the grad"),
        ({"env": "Acrobot-v1"}, "--env Acrobot-v1 differs"),
        ({"hidden_sizes": (8, 8)}, "--hidden-sizes"),
        ({"optimizer": "rmsprop"}, "--optimizer rmsprop differs from the adam"),
        ({"total_env_steps": 1000}, "give it more with --total-env-steps"),
    ],
)
async def test_what_does_not_fit_is_refused_before_anything_starts(trained, change, said):
    config, run_dir = trained
    files = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=said):
        await Orchestrator(dataclasses.replace(config, **change), resume=run_dir).start()
    assert files == {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


async def test_no_checkpoint_and_a_damaged_one_are_told(trained, tmp_path):
    config, run_dir = trained
    with pytest.raises(CheckpointError, match="holds no checkpoint that verifies"):
        await Orchestrator(config, resume=tmp_path / "nothing").start()
    (checkpoint,) = run_dir.glob("checkpoints/step-*")
    (checkpoint / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError, match=r"model\.safetensors has not the size"):
        await Orchestrator(config, resume=run_dir).start()


async def test_a_checkpoint_outside_of_a_run_cannot_be_resumed(trained, tmp_path):
    config, run_dir = trained
    (checkpoint,) = run_dir.glob("checkpoints/step-*")
    moved = checkpoint.rename(tmp_path / checkpoint.name)
    longer = longer_by(config, moved, 2000)
    with pytest.raises(CheckpointError, match="does not lie in the directory of a run"):
        await Orchestrator(longer, resume=moved).start()
    assert load_checkpoint(moved).counts["env_steps"] > 0


async def test_a_line_that_a_kill_cut_off_does_not_spoil_the_next(trained):
    config, run_dir = trained
    for name in ("metrics.jsonl", "episodes.csv"):
        path = run_dir / name
        path.write_bytes(path.read_bytes()[:-5])
    longer = longer_by(config, run_dir, 2000)
    await train(longer, resume=run_dir)
    whole, damaged = [], 0
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        try:
            whole.append(json.loads(line))
        except ValueError:
            damaged += 1
    assert damaged == 1
    assert whole[-1]["progress"]["env_steps"] >= longer.total_env_steps


async def test_the_best_checkpoint_is_kept_with_its_score(small):
    config = small(total_env_steps=60_000, checkpoint_interval_s=1.0, checkpoints_kept=1)
    status = await train(config)
    run_dir = Path(status["run"]["dir"])
    best = load_checkpoint(run_dir, best=True)
    assert best.score is not None
    assert len(list(run_dir.glob("checkpoints/step-*"))) <= 2
    newest = load_checkpoint(run_dir)
    assert newest.score is None or best.score >= newest.score


def test_serve_resume_takes_the_runs_own_options(tmp_path):
    options = (*FAST, "--total-env-steps", "2000", "--name", "r", "--seed", "5")
    assert aa2c("serve", *options, "--eval-interval-s", "0", cwd=tmp_path).returncode == 0
    again = aa2c("serve", "--resume", "runs/r", "--total-env-steps", "1000", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (2, "")
    assert "the run has had its" in again.stderr
    more = aa2c("serve", "--resume", "runs/r", "--total-env-steps", "4000", cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    assert "1 workers x 4 environments, 4,000 env steps, preset of the run, seed 5" in more.stdout
    assert "config.toml" not in more.stderr
    assert load_checkpoint(tmp_path / "runs/r").counts["env_steps"] >= 3000


def test_serve_resume_follows_an_edited_config_toml_and_says_what_it_does_not_follow(trained):
    _, run_dir = trained
    path = run_dir / "config.toml"
    used = load_checkpoint(run_dir).counts["env_steps"]
    text = path.read_text().replace(
        "\ntotal_env_steps = 2000\n", f"\ntotal_env_steps = {used + 500}\n"
    )
    text = text.replace("\nclip_coef = 0.2\n", "\nclip_coef = 0.2\nent_coef = [0.5]\n")
    path.write_text(text.replace("\nent_coef = [0.0]\n", "\n"))
    more = aa2c("serve", "--resume", str(run_dir), "--port", "0", cwd=run_dir)
    assert more.returncode == 0, more.stderr
    assert f"{used + 500:,} env steps, preset of the run" in more.stdout
    assert "ent_coef = (0.5,), now (0.0,)" in more.stdout + more.stderr
    path.write_text("no_such = 1")
    refused = aa2c("serve", "--resume", str(run_dir), cwd=run_dir)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"aa2c: {path}: unknown option 'no_such'")
    assert path.read_text() == "no_such = 1"


async def test_an_updater_that_is_killed_before_any_checkpoint_says_that_it_begins_anew(small):
    config = small(total_env_steps=10**9, checkpoint_interval_s=3600.0)
    async with Orchestrator(config) as run:
        await run.ready()
        await until(lambda: run.status()["progress"]["updates"] > 10)
        os.kill(run.status()["updater"]["pid"], signal.SIGKILL)
        await until(lambda: "learns from the beginning" in str(run.status()["log"]))
        await run.controls.checkpoint()
        os.kill(run.status()["updater"]["pid"], signal.SIGKILL)
        await until(lambda: "resumes from a checkpoint" in (run.dir / "log.jsonl").read_text())
    assert str(run.status()["log"]).count("from the beginning") == 1


def test_serve_resume_with_a_preset_or_nothing_to_resume_is_refused_in_a_sentence(tmp_path):
    refused = aa2c("serve", "--resume", "runs/r", "--preset", "grad/atari", cwd=tmp_path)
    assert refused.returncode == 2
    assert "it excludes --preset and --config" in refused.stderr
    (tmp_path / "runs/empty").mkdir(parents=True)
    for run, exit_code, says in (
        ("runs/r", 2, "aa2c: --resume runs/r does not exist"),
        ("runs/empty", 3, "aa2c: runs/empty holds no checkpoint"),
    ):
        missing = aa2c("serve", "--resume", run, cwd=tmp_path)
        assert missing.returncode == exit_code
        assert missing.stderr.startswith(says)
        assert "Traceback" not in missing.stderr
