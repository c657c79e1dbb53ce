"""Exported policies, beside the policies that they come from."""

from __future__ import annotations

import subprocess
import sys

import gymnasium as gym
import numpy as np
import onnxruntime
import pytest
import torch

from aa2c import Config, train
from aa2c.cli import export
from aa2c.cli import main as cli
from aa2c.cli.export import export_policy
from aa2c.envs.find import no_tick
from aa2c.envs.game import GymnasiumGame
from aa2c.envs.masks import masked
from aa2c.envs.plain import PlainVector
from aa2c.errors import ConfigError, RunFailed
from aa2c.policy import exported
from tests.checkpoints.spaces import ACTIONS, LEGAL, OBSERVATIONS, SCREEN, VECTOR, Task, trained

KINDS = {
    "discrete": {},
    "masked": {"action_mask": "info"},
    "multi-discrete": {"actions": ACTIONS[2]},
    "box": {"actions": ACTIONS[3]},
    "squashed tuple": {"actions": ACTIONS[4], "action_bounds": "tanh"},
    "dict": {"actions": ACTIONS[5], "norm_obs": True},
    "lstm": {"memory": "lstm"},
    "gru": {"memory": "gru", "actions": ACTIONS[1]},
    "image and vector": {"obs": OBSERVATIONS[-1]},
    "screen": {"obs": SCREEN, "network": "impala", "norm_obs": True, "precision": "float32"},
}


@pytest.fixture
def made(monkeypatch):
    def make(obs=VECTOR, actions=ACTIONS[0], action_mask="none", **options):
        env = masked(Task(obs, actions), "task", action_mask)
        policy = trained(obs, actions, action_mask=action_mask, **options)
        obs.seed(0)
        if policy.network.obs_rms is not None:
            policy.network.observe(torch.from_numpy(np.stack([obs.sample() for _ in range(40)])))
        envs = PlainVector("task", lambda: env, 1, no_tick)
        monkeypatch.setattr(export, "make_game", lambda config: GymnasiumGame(envs, "task"))
        return policy

    return make


def several(policy, obs, rows):
    obs.seed(1)
    seen = np.stack([policy.rows(obs.sample())[0][0] for _ in range(rows)])
    state = policy.network.initial_state(rows)
    masks = [torch.from_numpy(np.tile(LEGAL > 0, (rows, 1)))] * policy.checkpoint.spec.has_mask
    return [torch.from_numpy(seen), *masks, *(part + 0.1 for part in state)]


def as_rows(space, parts, rows):
    """Actions of each row, from one array of each part."""
    if isinstance(space, gym.spaces.Tuple):
        columns = [as_rows(part, parts, rows) for part in space]
        return list(zip(*columns, strict=True))
    if isinstance(space, gym.spaces.Dict):
        columns = [as_rows(part, parts, rows) for part in space.values()]
        return [dict(zip(space, row, strict=True)) for row in zip(*columns, strict=True)]
    return list(parts.pop(0))


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [pytest.param(kind, ".pt2", marks=[pytest.mark.long] * (kind != "dict")) for kind in KINDS]
    + [pytest.param(kind, ".onnx", marks=pytest.mark.long) for kind in ("dict", "lstm", "screen")],
)
def test_a_file_gives_the_policys_own_actions_and_state(tmp_path, made, kind, suffix):
    options = KINDS[kind]
    policy = made(**options)
    path = tmp_path / "out" / f"policy{suffix}"
    told = export_policy(policy, path)
    assert f"{path}: from obs (" in told
    assert list(path.parent.iterdir()) == [path]
    space, rows = options.get("actions", ACTIONS[0]), 7
    obs = options.get("obs", VECTOR)
    given = several(policy, obs, rows)
    if suffix == ".pt2":
        outputs = [each.numpy() for each in torch.export.load(path).module()(*given)]
    else:
        session = onnxruntime.InferenceSession(path)
        names = [each.name for each in session.get_inputs()]
        assert names == ["obs", "state_h", "state_c"][: len(given)]
        outputs = session.run(None, {n: x.numpy() for n, x in zip(names, given, strict=True)})
    masks = [each.numpy() for each in given[1 : 1 + policy.checkpoint.spec.has_mask]]
    state = tuple(given[1 + len(masks) :])
    obs.seed(1)
    seen = [obs.sample() for _ in range(rows)]
    expected, after = policy.predict(seen, state, True, *masks)
    for part in reversed(after):
        np.testing.assert_allclose(outputs.pop(), part, atol=1e-5)
    assert outputs.pop().shape == (rows,)
    for one, other in zip(as_rows(space, outputs, rows), expected, strict=True):
        assert space.contains(one)
        for a, b in zip(
            gym.spaces.flatten(space, one), gym.spaces.flatten(space, other), strict=True
        ):
            assert a == pytest.approx(b, abs=1e-5)


def test_images_beside_numbers_are_not_for_onnx(tmp_path, made):
    with pytest.raises(ConfigError, match=r"export to \.pt2"):
        export_policy(made(OBSERVATIONS[-1]), tmp_path / "policy.onnx")


@pytest.mark.parametrize("name", ["policy", "policy.pt", "policy.pt2/x.pt2"])
def test_what_cannot_be_written_is_refused(tmp_path, made, name):
    (tmp_path / "policy.pt2").touch()
    with pytest.raises(
        ConfigError, match=r"policy.* (must end in .pt2 or .onnx|cannot be written)"
    ):
        export_policy(made(), tmp_path / name)


def test_a_file_that_differs_is_not_kept(tmp_path, made, monkeypatch):
    monkeypatch.setattr(
        exported, "in_space", lambda spec, actions: (actions + torch.compiler.is_exporting(),)
    )
    with pytest.raises(RunFailed, match="differs from the policy by"):
        export_policy(made(), tmp_path / "policy.pt2")
    assert not list(tmp_path.iterdir())


class Untraceable(torch.nn.Module):
    """A trunk that asks for the values of its inputs."""

    def forward(self, obs):
        return obs * 2 if obs.sum().item() > 0 else obs


def test_a_network_that_cannot_be_traced_is_named_in_one_sentence(tmp_path, made):
    policy = made(network=lambda shape: Untraceable())
    with pytest.raises(ConfigError, match=r"torch.export cannot trace the network: .+"):
        export_policy(policy, tmp_path / "policy.pt2")


@pytest.mark.long
def test_the_command_exports_a_run_for_a_program_without_aa2c(tmp_path, capsys):
    run = train(Config(workers=1, total_env_steps=2000, runs_dir=str(tmp_path), port=0))
    path = tmp_path / "policy.pt2"
    assert cli.main(["export", run["run"]["dir"], str(path)]) == 0
    assert "from obs (4,) to action, value, for any number of rows" in capsys.readouterr().out
    code = (
        "import sys, torch\n"
        f"policy = torch.export.load({str(path)!r}).module()\n"
        "print(policy(torch.zeros(3, 4))[0].tolist(), 'aa2c' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.endswith("False\n")
    assert cli.main(["export", run["run"]["dir"], str(tmp_path / "policy.zip")]) == 2
    assert "must end in .pt2 or .onnx" in capsys.readouterr().err
