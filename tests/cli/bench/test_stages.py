"""Every stage of every mode works for every kind of task; how fast is not a matter of tests."""

from __future__ import annotations

import functools

import pytest
import torch

from aa2c import Config
from aa2c.cli.bench.stages import Stages, describe
from aa2c.modes.mode import MODES
from tests.checkpoints.spaces import ACTIONS, OBSERVATIONS, Task

TASKS = {
    "plain": ("none", OBSERVATIONS[0], ACTIONS[0]),
    "Box": ("none", OBSERVATIONS[2], ACTIONS[3]),
    "MultiBinary": ("gru", OBSERVATIONS[1], ACTIONS[1]),
    "MultiDiscrete": ("lstm", OBSERVATIONS[3], ACTIONS[2]),
    "Tuple": ("none", OBSERVATIONS[6], ACTIONS[4]),
    "Dict": ("lstm", OBSERVATIONS[7], ACTIONS[5]),
}


@pytest.fixture(autouse=True)
def _keep_the_number_of_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", TASKS)
def test_each_stage_works_for_every_kind_of_task(mode, task):
    memory, *spaces = TASKS[task]
    env = functools.partial(Task, *spaces)
    config = Config(mode=mode, env=env, memory=memory, num_envs=3, num_steps=8, workers=2)
    stages = Stages(config, seed=1)
    parameters = [p.clone() for p in stages.learning.parameters()]
    assert stages.work("env", 3, "")() == 3
    assert stages.work("act", 5, "float32")() == 5 * 8
    learned = stages.work("learn", 3, "")()
    assert learned == (2 * 3 * 8 if mode == "traj" else 3 * 8)
    now = list(stages.learning.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(parameters, now, strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_a_description_has_the_bytes_of_a_record_and_of_the_parameters(mode):
    env = functools.partial(Task, OBSERVATIONS[0], ACTIONS[0])
    config = Config(mode=mode, env=env, hidden_sizes=(4,), num_envs=1, num_steps=1)
    record, params, precision, other = describe(config)
    assert params == 4 * 64  # 57 numbers, and what fills up the last cache line
    sent = {"grad": params, "model": 0}
    # obs, action, reward, three flags, log-prob, values
    assert record == sent.get(mode, 2 * 3 * 4 + 8 + 4 + 3 + 4 + 2 * 4)
    assert (precision.name, other) == ("float32", "")
