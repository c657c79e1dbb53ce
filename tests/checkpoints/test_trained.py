"""Trained policies in a user's program, for every kind of space, single and batched."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, iterate

from aa2c.checkpoints.trained import TrainedPolicy
from aa2c.errors import StartError
from tests.checkpoints.spaces import ACTIONS, OBSERVATIONS, SCREEN, trained


@pytest.mark.parametrize("space", OBSERVATIONS, ids=str)
def test_single_and_batched_observations_give_the_same_actions(space):
    policy = trained(space)
    several = batch_space(space, 5)
    several.seed(0)
    batch = several.sample()
    actions, state = policy.predict(batch, deterministic=True)
    assert actions.shape == (5,)
    assert state == ()
    singles = list(iterate(several, batch))
    for one, action in zip(singles, actions, strict=True):
        assert policy.predict(one, deterministic=True)[0] == action
    np.testing.assert_array_equal(policy.predict(singles, deterministic=True)[0], actions)
    np.testing.assert_array_equal(policy(batch), actions)


@pytest.mark.parametrize("space", ACTIONS, ids=str)
def test_actions_are_members_of_the_environments_space(space):
    policy = trained(actions=space)
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    for deterministic in (False, True):
        chosen, _ = policy.predict(rows, deterministic=deterministic)
        assert len(chosen) == 40
        assert all(space.contains(action) for action in chosen)
        assert space.contains(policy.predict(rows[0], deterministic=deterministic)[0])


def test_sampling_is_of_the_policys_probabilities_and_follows_torchs_seed():
    policy = trained(actions=spaces.Discrete(3))
    obs = np.float32([0.3, -0.2, 0.1])
    with torch.no_grad():
        logits = policy.network(torch.from_numpy(obs)[None])[0][0]
    torch.manual_seed(5)
    first = policy.predict(np.tile(obs, (4000, 1)))[0]
    torch.manual_seed(5)
    np.testing.assert_array_equal(policy.predict(np.tile(obs, (4000, 1)))[0], first)
    frequencies = np.bincount(first, minlength=3) / 4000
    np.testing.assert_allclose(frequencies, logits.softmax(0), atol=0.04)


def test_masked_actions_are_never_taken():
    policy = trained(actions=spaces.MultiDiscrete([3, 2]))
    rows = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    mask = np.array([0, 1, 0, 1, 1], np.int8)
    for deterministic in (False, True):
        masks = np.tile(mask, (300, 1))
        actions, _ = policy.predict(rows, deterministic=deterministic, action_mask=masks)
        assert set(actions[:, 0]) == {1}
        assert set(actions[:, 1]) == {0, 1}
        assert policy.predict(rows[0], None, deterministic, mask)[0][0] == 1
        apart = mask[:3], mask[3:]
        assert policy.predict(rows[0], None, deterministic, apart)[0][0] == 1
        batch = np.tile(apart[0], (300, 1)), np.tile(apart[1], (300, 1))
        actions, _ = policy.predict(rows, deterministic=deterministic, action_mask=batch)
        assert set(actions[:, 0]) == {1}


def test_masks_of_a_batch_may_be_nested_as_the_space_is():
    choice = spaces.Discrete(2)
    policy = trained(actions=spaces.Dict(a=spaces.Tuple([choice, choice]), b=choice))
    masks = {"a": (np.array([[1, 0]] * 3), np.array([[0, 1]] * 3)), "b": np.array([[1, 0]] * 3)}
    actions, _ = policy.predict(np.zeros((3, 3)), action_mask=masks)
    assert actions == [{"a": (0, 1), "b": 0}] * 3


def test_masks_within_observations_are_found_there():
    policy = trained(actions=spaces.Discrete(4), action_mask="obs")
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    masks = np.tile(np.array([0, 0, 1, 0], np.int8), (50, 1))
    batch = {"action_mask": masks, "place": rows}
    singles = [{"action_mask": mask, "place": row} for mask, row in zip(masks, rows, strict=True)]
    for deterministic in (False, True):
        for obs in (batch, singles):
            assert set(policy.predict(obs, deterministic=deterministic)[0]) == {2}
        assert policy.predict(singles[0], deterministic=deterministic)[0] == 2
        others = 1 - masks
        assert 2 not in policy.predict(rows, None, deterministic, others)[0]
        assert 2 not in policy.predict(batch, None, deterministic, others)[0]
    assert set(policy(batch)) == {2}


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (None, "was trained with action masks: give action_mask"),
        ([[1, 0, 1]] * 2, r"\[1, 0, 1\] of shape \(3,\).*needs \(4,\)"),
        ([[1, 0, 2, 1]] * 2, "give 1 for each legal action and 0 for the others"),
        ([[1, 0, 0, 1], [0, 0, 0, 0]], "leaves no legal action"),
        ([[1, 1, 1, 1]], "1 action masks for 2 observations"),
    ],
)
def test_masks_that_are_none_or_missing_are_refused(mask, says):
    policy = trained(actions=spaces.Discrete(4), action_mask="info")
    with pytest.raises(ValueError, match=says):
        policy.predict(np.zeros((2, 3)), action_mask=mask)


@pytest.mark.parametrize("memory", ["lstm", "gru"])
def test_a_memory_is_handed_on_and_forgotten_at_an_episodes_start(memory):
    policy = trained(memory=memory)
    rows = np.random.default_rng(1).normal(size=(3, 2, 3)).astype(np.float32)
    state, after = None, []
    for row in rows:
        _, state = policy.predict(row, state, deterministic=True)
        after.append(state)
    _, fresh = policy.predict(rows[0], deterministic=True)
    _, again = policy.predict(rows[0], state, episode_start=[True, False])
    assert torch.equal(again[0][0], fresh[0][0])
    assert not torch.equal(again[0][1], fresh[0][1])
    _, alone = policy.predict(rows[0, 0])
    torch.testing.assert_close(alone[0][0], after[0][0][0])
    with pytest.raises(ValueError, match="has a memory"):
        policy(rows[0])


@pytest.mark.parametrize(
    ("obs", "more", "says"),
    [
        (np.zeros(4), {}, r"of shape \(3,\)"),
        (np.zeros((0, 3)), {}, r"of shape \(3,\)"),
        (np.zeros((2, 3)), {"action_mask": np.ones(4)}, "4 action masks for 2 observations"),
    ],
)
def test_what_does_not_fit_is_refused(obs, more, says):
    with pytest.raises(ValueError, match=says):
        trained().predict(obs, **more)
    with pytest.raises(ValueError, match="cannot be masked"):
        trained(actions=ACTIONS[3]).predict(np.zeros(3), action_mask=np.ones(2))


@pytest.mark.parametrize(
    "obs",
    [
        {"a": np.zeros(3)},
        {"b": np.zeros(2)},
        {"a": np.zeros((2, 3))},
        {"a": np.zeros(3), "b": np.zeros(5)},
        None,
        np.zeros(5),
        {"a": np.full(3, np.nan), "b": np.zeros(2)},
    ],
    ids=str,
)
def test_observations_that_are_not_the_environments_are_refused(obs):
    policy = trained(spaces.Dict(a=spaces.Box(-1, 1, (3,)), b=spaces.Box(-1, 1, (2,))))
    with pytest.raises(ValueError, match=r"observation|numbers"):
        policy.predict(obs)


def test_a_state_of_another_number_of_rows_is_refused_and_one_of_arrays_is_taken():
    policy = trained(memory="lstm")
    _, state = policy.predict(np.zeros((2, 3)))
    one, _ = policy.predict(np.ones((2, 3)), state, deterministic=True)
    arrays = tuple(part.numpy() for part in state)
    other, _ = policy.predict(np.ones((2, 3)), arrays, deterministic=True)
    np.testing.assert_array_equal(one, other)
    for wrong in ((state[0],), tuple(part[:1] for part in state)):
        with pytest.raises(ValueError, match="a state of 2 observations"):
            policy.predict(np.ones((2, 3)), wrong)


def test_pixels_that_are_no_bytes_are_refused():
    """Frames of [0, 1] cast to bytes would all be black, and every action the same."""
    policy = trained(spaces.Box(0, 255, (84, 84, 3), np.uint8))
    frame = np.random.default_rng(0).integers(0, 256, (84, 84, 3))
    assert policy(frame) == policy(frame.astype(np.uint8)) == policy(frame.astype(np.float32))
    for wrong in (frame / 255, frame - 1.0, frame + 256, np.full((84, 84, 3), np.nan)):
        with pytest.raises(ValueError, match="observations are of dtype uint8"):
            policy(wrong)


def test_the_environment_it_was_trained_on():
    env = trained(env="CartPole-v1").make_env(render_mode="rgb_array")
    assert isinstance(env, gym.Env)
    assert env.observation_space.contains(env.reset(seed=1)[0])
    assert env.unwrapped.render_mode == "rgb_array"
    env.close()


def test_an_atari_game_is_cut_where_training_cuts_it():
    actions = spaces.Discrete(6)
    kwargs = {"max_num_frames_per_episode": 40}
    env = trained(SCREEN, actions, env="ALE/Pong-v5", env_kwargs=kwargs).make_env()
    for _ in range(2):
        env.reset(seed=0)
        ends = [env.step(0)[2:4] for _ in range(10)]
        assert ends == [(False, False)] * 9 + [(False, True)]
    env.close()


def test_an_atari_game_is_stacked_whole_and_can_be_drawn():
    actions = spaces.Discrete(6)
    policy = trained(SCREEN, actions, env="ALE/Pong-v5")
    for mode in (None, "rgb_array"):
        env = policy.make_env(render_mode=mode)
        obs, _ = env.reset(seed=3)
        assert env.observation_space.contains(obs)
        assert env.action_space == actions
        for _ in range(20):
            action, _ = policy.predict(obs)
            obs, reward, terminated, truncated, info = env.step(action)
            assert (type(reward), terminated, truncated, info) == (float, False, False, {})
        assert env.observation_space.contains(obs)
        picture = env.render()
        assert picture is None if mode is None else picture.shape == (210, 160, 3)
        np.testing.assert_array_equal(env.reset(seed=4)[0], env.reset(seed=4)[0])
        env.close()
    with pytest.raises(StartError, match="render_mode 'human'"):
        policy.make_env(render_mode="human")


def test_observations_are_given_raw_and_normalized_by_the_checkpoints_statistics_which_stay():
    plain, normalizing = trained(), trained(norm_obs=True, norm_rewards=True).checkpoint
    statistics = {
        "obs_rms.mean": torch.full((3,), 5.0),
        "obs_rms.variance": torch.full((3,), 4.0),
        "obs_rms.count": torch.full((1,), 100.0),
    }
    model = normalizing.model | plain.checkpoint.model | statistics
    policy = TrainedPolicy(replace(normalizing, model=model))
    rows = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    expected = plain.predict(rows, deterministic=True)[0]
    assert (expected != plain.predict(2 * rows + 5, deterministic=True)[0]).any()
    for _ in range(2):
        actions, _ = policy.predict(2 * rows + 5, deterministic=True)
        np.testing.assert_array_equal(actions, expected)
    after = policy.network.state_dict()
    assert all(torch.equal(after[name], model[name]) for name in model)
