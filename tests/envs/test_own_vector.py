"""Vector environments in each autoreset mode: one log by hand, and what is learned from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aa2c.config.config import Config
from aa2c.envs.game import make_game
from aa2c.envs.single import make_single
from aa2c.envs.vector import make_envs
from aa2c.errors import ConfigError, RunFailed, StartError
from aa2c.learn.returns import gae, vtrace
from aa2c.learn.rollout import Rollout, collect
from aa2c.learn.schema import begins_episode, empty_arrays, next_values, record_leaves
from aa2c.policy.policy import Acted

HERE = "tests.envs.asked_env"
AT_ONCE = ["SAME_STEP", "DISABLED"]
GAMMA = 0.5

# Of one environment: an episode truncated after 3 steps, one terminated after 2, the next one's start.
REWARDS = [1, 2, 3, 1, 2, 1, 2]
SHOWN = [[0, 1], [1, 1], [2, 1], [0, 2], [1, 2], [0, 3], [1, 3], [2, 3]]  # steps, episode
WITH_RESETS = [0, 1, 2, None, 3, 4, None]  # the rows of the above under NEXT_STEP

# With V(steps, episode) = steps + 10 * episode: r + V' / 2 - V, with V' = V(3, 1) = 13 in the third row
# and none in the fifth, and half of what follows within the episode.
ADVANTAGES = [-5.625, -4.25, -2.5, -18, -19, -20, -13]


class Knowing:
    """A policy whose value of an observation is known, and what it was told of episodes' beginnings."""

    def __init__(self):
        self.beginnings = []

    def pack(self): ...

    def step(self, obs, state, is_first, mask=None, *, generator):
        self.beginnings.append(is_first.tolist())
        rows = len(obs)
        memory = (torch.where(is_first, 0.0, state[0][:, 0])[:, None] + 1,) if state else ()
        return Acted(torch.zeros(rows, dtype=torch.long), torch.zeros(rows, 2), value(obs), memory)

    def bootstrap(self, obs, state, is_first):
        self.state_at_last = state
        return value(obs)

    def log_probs(self, steps, actions, masks):
        return torch.zeros(actions.shape)


def value(obs):
    return obs[:, 0] + 10 * obs[:, 1]


def collected(mode: str, num_envs: int = 2, policy=None, **options):
    """A record of 7 steps, and the episodes that ended."""
    config = Config(
        mode="traj", vector=f"{HERE}:make_vector", env_kwargs={"mode": mode}, num_envs=num_envs,
        num_steps=len(REWARDS), **options,
    )  # fmt: skip
    envs = make_envs(config, num_envs, 0)
    state = (torch.zeros(num_envs, 1),) if config.memory != "none" else ()
    rollout = Rollout(envs, config, state, in_records=True)
    arrays = empty_arrays(envs.spec, record_leaves(envs.spec, config))
    arrays.get("final_values", np.zeros(0))[:] = np.nan  # what a slot held before
    rollout.write_into(arrays)
    episodes = collect(envs, policy or Knowing(), rollout, torch.Generator())
    envs.close()
    return rollout, [tuple(episode) for episode in episodes]


def learned(arrays):
    """Advantages of GAE and V-trace, with the log-probs and values of the policy that acted."""
    values = arrays["values"]
    cuts = arrays["terminated"], arrays["truncated"]
    seen = arrays["rewards"], values[:-1], next_values(arrays, values)
    discount = {"gamma": GAMMA, "gae_lambda": 1.0}
    of_gae = gae(*seen, *cuts, **discount)
    _, of_vtrace = vtrace(*seen, np.zeros_like(seen[0]), *cuts, **discount)
    np.testing.assert_allclose(of_vtrace, of_gae, rtol=1e-6)
    return of_gae


@pytest.mark.parametrize("mode", AT_ONCE)
def test_a_log_by_hand_of_environments_that_are_reset_at_once(mode):
    rollout, episodes = collected(mode)
    assert episodes == [(6.0, 3), (6.0, 3), (3.0, 2), (3.0, 2)]
    assert rollout.env_steps == 2 * len(REWARDS)
    for b in range(2):
        assert rollout["obs"][:, b].tolist() == SHOWN
        assert rollout["rewards"][:, b].tolist() == REWARDS
        assert np.flatnonzero(rollout["truncated"][:, b]).tolist() == [2]
        assert np.flatnonzero(rollout["terminated"][:, b]).tolist() == [4]
        assert rollout["final_values"][:, b].tolist() == [0, 0, 13, 0, 0, 0, 0]
        assert learned(rollout.arrays)[:, b].tolist() == ADVANTAGES
    assert not rollout["is_reset"].any()


def test_the_same_log_of_environments_whose_next_step_resets():
    rollout, episodes = collected("NEXT_STEP")
    assert episodes == [(6.0, 3), (6.0, 3), (3.0, 2), (3.0, 2)]
    assert rollout.env_steps == 10
    assert "final_values" not in rollout.arrays
    advantages = learned(rollout.arrays)
    for t, row in enumerate(WITH_RESETS):
        assert (rollout["is_reset"][t] == (row is None)).all()
        if row is not None:
            assert (rollout["rewards"][t] == REWARDS[row]).all()
            assert (advantages[t] == ADVANTAGES[row]).all()


@pytest.mark.parametrize("mode", AT_ONCE)
def test_a_memory_is_forgotten_with_the_episode_and_not_before_its_last_observation(mode):
    policy = Knowing()
    rollout, _ = collected(mode, 1, policy, memory="gru", memory_size=1)
    begins = [[True], [False], [False], [True], [False], [True], [False]]
    assert policy.beginnings == begins
    assert begins_episode(rollout.arrays)[1:].tolist() == [*begins[1:], [False]]
    assert rollout.state[0].tolist() == [[2.0]], "two steps into the third episode"


def test_the_last_observation_is_valued_with_what_is_remembered_then():
    states = []

    class Asked(Knowing):
        def bootstrap(self, obs, state, is_first):
            assert not is_first.any() or len(states)  # the second time is the rollout's end
            states.append(state[0].tolist())
            return value(obs)

    collected("SAME_STEP", 1, Asked(), memory="gru", memory_size=1)
    assert states == [[[3.0]], [[2.0]]]


@pytest.mark.parametrize("mode", ["NEXT_STEP", *AT_ONCE])
@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_parts_of_observations_are_taken_out_of_their_batches(mode, kind):
    kwargs = {"mode": mode, "kind": kind}
    envs = make_envs(Config(vector=f"{HERE}:make_vector", env_kwargs=kwargs), 2, 0)
    assert envs.reset().tolist() == [[0, 1, 1, 0]] * 2
    steps = [envs.step(np.zeros(2, np.int64)) for _ in range(3)]
    assert [step["obs"][0].tolist() for step in steps[:2]] == [[1, 1, 0, 1], [2, 1, 1, 0]]
    if mode == "NEXT_STEP":
        assert steps[2]["obs"].tolist() == [[3, 1, 0, 1]] * 2
    else:
        assert steps[2]["obs"].tolist() == [[0, 2, 1, 0]] * 2
        assert steps[2].final_obs.tolist() == [[3, 1, 0, 1]] * 2
    envs.close()


def test_a_function_that_takes_a_seed_gets_the_workers():
    envs = make_envs(Config(vector=f"{HERE}:make_seeded"), 2, 2)
    envs.reset()
    assert [envs.step(np.zeros(2, np.int64)).ended.all() for _ in range(4)] == [False, True] * 2
    envs.close()


def test_last_observations_under_their_old_name_are_found():
    envs = make_envs(Config(vector=f"{HERE}:Odd"), 2, 0)
    envs.reset()
    assert envs.step(np.zeros(2, np.int64)).final_obs.tolist() == [[0.5, 0.5]] * 2


@pytest.mark.parametrize("mode", ["NEXT_STEP", *AT_ONCE])
def test_a_game_is_one_episode_whatever_resets(mode):
    game = make_game(Config(vector=f"{HERE}:make_vector", env_kwargs={"mode": mode}))
    game.start(0)
    steps = [game.step(np.array(0)) for _ in range(3)]
    assert [(step.reward, step.is_over) for step in steps] == [(1, False), (2, False), (3, True)]
    game.close()


@pytest.mark.parametrize(
    ("vector", "words"),
    [
        ("Odd fault=untold", "does not tell its autoreset: .* NEXT_STEP, SAME_STEP, DISABLED"),
        ("Odd fault=more", "made 3 environments, and was asked for 2"),
        ("make_number", "returned 2 without num_envs, single_observation_space"),
        ("make_vector no=1", r"--env-kwargs no=1 cannot be made: TypeError: .*'no'"),
        ("absent", "cannot be made: AttributeError: .*absent"),
    ],
)
def test_what_is_no_vector_of_environments_is_one_sentence(vector, words):
    name, *kwargs = vector.split()
    config = Config(vector=f"{HERE}:{name}", env_kwargs=kwargs)
    with pytest.raises(StartError, match=f"^--vector {HERE}:{name}.*{words}"):
        make_envs(config, 2, 0)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raises", r"step\(\) raised ValueError: not today \(.*asked_env.py:\d+, in step\)"),
        ("unseen", r"step\(\) truncated an episode without its last observation"),
        ("rewards", r"step\(\) gave rewards of shape \(3,\)"),
        ("bytes", r"reset\(\) gave the observation .*uint8 of its observation_space cannot hold"),
        ("shape", r"reset\(\) gave observations of shape \(2, 3\)"),
    ],
)
def test_what_a_vector_does_wrong_is_one_sentence_with_the_place(fault, words):
    envs = make_envs(Config(vector=f"{HERE}:Odd", env_kwargs={"fault": fault}), 2, 0)
    with pytest.raises(RunFailed, match=f"^--vector {HERE}:Odd: {words}"):
        envs.step(np.zeros(2, np.int64) + 0 * envs.reset()[:, 0].astype(int))


def test_a_vector_is_neither_drawn_nor_stepped_alone():
    config = Config(vector=f"{HERE}:make_vector")
    with pytest.raises(ConfigError, match=r"--video: .*make_vector cannot be drawn"):
        make_game(config, with_pictures=True)
    with pytest.raises(StartError, match="makes vector environments only"):
        make_single(config)
