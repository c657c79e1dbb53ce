"""EnvPool's environments, which step in C++ threads: taken as any vector environment is."""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
import pytest

from aa2c.config.config import Config
from aa2c.envs.vector import make_envs
from tests.conftest import not_checked

if importlib.util.find_spec("envpool") is None:
    not_checked("environments of EnvPool", "envpool is not installed")


def make_vector(num_envs, seed, **options):
    import envpool

    warnings.filterwarnings("ignore", module="gymnasium")
    warnings.filterwarnings("ignore", "EnvPool seeds are fixed")
    return envpool.make_gymnasium("CartPole-v1", num_envs=num_envs, seed=seed, **options)


@pytest.mark.filterwarnings("ignore")  # its own
def test_episodes_are_whole_and_resets_are_marked():
    config = Config(vector=make_vector, env_kwargs={"max_episode_steps": 20})
    envs = make_envs(config, 3, 5)
    first = envs.reset()
    rng = np.random.default_rng(0)
    steps = [envs.step(rng.integers(0, 2, 3)) for _ in range(300)]
    ended = np.array([step.ended for step in steps])
    is_reset = np.array([step["is_reset"] for step in steps])
    rewards = np.array([step["rewards"] for step in steps])
    np.testing.assert_array_equal(is_reset[1:], ended[:-1])
    np.testing.assert_array_equal(rewards, ~is_reset)
    starts = np.array([step["obs"] for step in steps])[is_reset]
    assert np.abs(np.concatenate([first, starts])).max() <= 0.05
    assert any(step["truncated"].any() for step in steps)
    assert any(step["terminated"].any() for step in steps)
    episodes = [episode for step in steps for episode in step.episodes]
    assert all(total == length <= 20 for total, length in episodes)
    assert len(episodes) == is_reset.sum() > 30
    envs.close()
    other = make_envs(config, 3, 6)
    assert (other.reset() != first).any()
    other.close()
