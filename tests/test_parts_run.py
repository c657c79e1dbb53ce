"""A whole run on observations of an image and a vector, and the policy that it leaves."""

from __future__ import annotations

import numpy as np
import pytest

from aa2c import Config, load_policy, train
from tests.envs.signal_env import STEPS, Signal

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

ENV = "tests.envs.signal_env:Signal-v0"
SEEN = 200


def test_a_run_learns_from_image_and_vector_and_its_policy_acts_on_dictionaries(tmp_path):
    config = Config(
        env=ENV, mode="traj", workers=2, total_env_steps=12_000, learning_rate=3e-3,
        eval_interval_s=0.0, port=0, runs_dir=str(tmp_path),
    )  # fmt: skip
    status = train(config)
    assert status["returns"]["train"]["mean"] > 0.9 * STEPS
    policy, env = load_policy(status["run"]["dir"], env=ENV), Signal()
    env.reset(seed=0)
    right = 0
    for _ in range(SEEN):
        obs = env._look()
        right += int(policy(obs) == env._side ^ env._switch)
    assert right > 0.95 * SEEN
    batch = [env._look() for _ in range(3)]
    assert np.asarray(policy(batch)).shape == (3,)
