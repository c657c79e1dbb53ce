"""A memory evaluated as a whole sequence is the same memory taken step by step, through resets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aa2c.config.config import Config
from aa2c.envs.vector import make_envs
from aa2c.learn.batch import Sequences, join_records
from aa2c.learn.rollout import Rollout, collect
from aa2c.modes.mode import MODES
from aa2c.policy.memory import Memory, forget
from aa2c.policy.network import make_policy
from tests.envs.endless_env import Endless
from tests.modes.fake_port import SmallMode, assert_it_learns_and_resumes, forever

KINDS = ["lstm", "gru"]
NEAR = {"rtol": 1e-4, "atol": 1e-5}
COUNTER = "tests.envs.custom_env:Counter-v0"  # episodes of 5 and 7 steps: resets within a rollout


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_is_its_steps_through_resets_anywhere(kind):
    torch.manual_seed(0)
    memory = Memory(kind, 3, 8)
    features, is_first = torch.randn(12, 4, 3), torch.rand(12, 4) < 0.2
    assert is_first.any(1).sum() > 3
    state = tuple(torch.randn(4, 8) for _ in range(memory.num_states))
    outputs, after = memory(features, state, is_first)
    for t in range(12):
        output, state = memory(features[t : t + 1], state, is_first[t : t + 1])
        torch.testing.assert_close(outputs[t], output[0])
    for one, other in zip(after, state, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_before_a_reset_is_remembered(kind):
    torch.manual_seed(0)
    memory = Memory(kind, 3, 8)
    features = torch.randn(6, 2, 3)
    is_first = torch.zeros(6, 2, dtype=torch.bool)
    is_first[3, 0] = True
    outputs, _ = memory(features, memory.initial(2), is_first)
    changed = features.clone()
    changed[:3] += 1
    others, _ = memory(changed, memory.initial(2), is_first)
    torch.testing.assert_close(outputs[3:, 0], others[3:, 0])
    assert not torch.allclose(outputs[3:, 1], others[3:, 1])


def test_to_forget_is_to_be_zero_in_those_rows():
    state = (torch.ones(3, 2),)
    (kept,) = forget(state, torch.tensor([False, True, False]))
    assert kept.tolist() == [[1, 1], [0, 0], [1, 1]]
    (kept,) = forget((torch.tensor([[torch.nan], [torch.inf]]),), torch.tensor([True, True]))
    assert kept.tolist() == [[0], [0]]


@pytest.mark.parametrize("mode", MODES)
def test_one_observation_that_is_not_a_number_costs_its_record_and_not_the_memory(mode):
    """Nor one within an episode that has no end."""
    config = config_of("gru", env=Endless, mode=mode, num_steps=4)
    with SmallMode(config) as small:
        rollout, took = small.producer._rollout, []
        for spoilt in (True, False, False):
            if spoilt:
                rollout.now[0] = np.nan
            small.producer.produce(small.port)
            took.append(small.consumer.accepts(small.port.records[-1]))
        assert took == [False, True, True]


def config_of(kind, **options):
    base = {"env": COUNTER, "num_envs": 3, "num_steps": 20, "memory": kind, "memory_size": 8}
    return Config(**{**base, "hidden_sizes": (16,), **options})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [0, 4, 10])
def test_the_learner_s_sequences_give_what_the_actor_computed(kind, length):
    """Log-probs and values of each sequence, from its kept state, are those that were sent."""
    config = config_of(kind, mode="traj", sequence_length=length)
    with SmallMode(config) as small:
        for _ in range(3):
            small.producer.produce(small.port)
        records = small.port.records
        batch = join_records([record.arrays for record in records])
        policy, sequences = small.network, Sequences(batch, length or 20)
        assert batch["is_reset"].any(0).all()
        assert len(sequences) == 60 // (length or 20) * 3
        chosen = torch.randperm(len(sequences))
        rows = sequences.rows[:, chosen]
        obs = torch.from_numpy(batch["obs"])[:-1].flatten(0, 1)
        state, is_first = sequences.start(chosen)
        with torch.no_grad():
            distribution, values, _ = policy.evaluate(obs[rows.flatten()], state, is_first)
    flat = {n: torch.from_numpy(batch[n]).flatten(0, 1) for n in ("actions", "log_probs")}
    log_probs = distribution.log_prob(flat["actions"][rows.flatten()])
    torch.testing.assert_close(log_probs, flat["log_probs"][rows.flatten()], **NEAR)
    expected = torch.from_numpy(batch["values"][:-1].reshape(-1))[rows.flatten()]
    torch.testing.assert_close(values, expected, **NEAR)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollout_s_evaluation_from_its_start_is_what_acted(kind):
    config = config_of(kind)
    envs = make_envs(config, 3, 0)
    torch.manual_seed(0)
    policy = make_policy(config, envs.spec)
    rollout = Rollout(envs, config, policy.initial_state(3))
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        before = tuple(part.clone() for part in rollout.state)
        collect(envs, policy, rollout, generator)
        state, is_first = rollout.start()
        for one, other in zip(state, before, strict=True):
            assert torch.equal(one, other)
        _, _, after = policy.evaluate(
            torch.from_numpy(rollout["obs"])[:-1].flatten(0, 1), state, is_first
        )
        for one, other in zip(after, rollout.state, strict=True):
            torch.testing.assert_close(one.detach(), other, **NEAR)
    envs.close()


@pytest.mark.parametrize("advantage", ["gae", "recompute", "vtrace"])
@pytest.mark.parametrize("kind", KINDS)
def test_update_threads_share_sequences_and_change_nothing(kind, advantage):
    options = {"mode": "traj", "sequence_length": 5, "advantage": advantage, "workers": 2}
    learned = []
    for threads in (1, 3):
        torch.manual_seed(0)
        with SmallMode(config_of(kind, update_threads=threads, **options)) as small:
            for _ in range(2):
                small.producer.produce(small.port)
            outcome = small.consumer.consume(small.port.records, 1e-3, forever)
            assert outcome.nonfinite == 0
            learned.append(small.params.vector.clone())
    torch.testing.assert_close(learned[0], learned[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_learns_with_a_memory_and_its_producer_resumes(mode, kind):
    assert_it_learns_and_resumes(config_of(kind, mode=mode))


def test_a_memory_stands_behind_every_trunk():
    for network in ("nature", "a3c", "document", "impala", "tests.policy.trunks:make"):
        config = Config(
            env="ALE/Pong-v5", num_envs=2, memory="lstm", memory_size=7, network=network
        )
        envs = make_envs(config, 2, 0)
        policy = make_policy(config, envs.spec)
        policy.pack()
        obs, is_first = torch.from_numpy(np.array(envs.reset())), torch.ones(2, dtype=torch.bool)
        state = policy.initial_state(2)
        acted = policy.step(obs, state, is_first, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            _, values, after = policy.evaluate(obs, state, is_first.unsqueeze(0))
        torch.testing.assert_close(acted.values, values, rtol=0.05, atol=0.05)
        assert [part.shape for part in after] == [(2, 7), (2, 7)]
        envs.close()
