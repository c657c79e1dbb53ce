from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from aa2c.config.config import Config
from aa2c.envs.game import make_game
from aa2c.envs.vector import env_spec
from aa2c.errors import StartError
from aa2c.learn import play as evaluate
from aa2c.learn.play import MAX_GAMES, games_for, play, play_on, protocol, summarise
from aa2c.policy.network import make_policy
from tests.envs.seeded_env import LONG, NUM_ACTIONS, SHORT, length_of

SEEDED = Config(env="tests.envs.seeded_env:Seeded-v0")
CARTPOLE = Config(env="CartPole-v1")
BREAKOUT = Config(env="ALE/Breakout-v5")
NOOP, RIGHT = 0, 2


def network_for(config: Config):
    torch.manual_seed(0)
    return make_policy(config, env_spec(config))


def fixed_policy(config: Config, logits):
    """A network that thinks the same of every observation."""
    network = network_for(config)
    last = network.policy[-1] if isinstance(network.policy, torch.nn.Sequential) else network.policy
    last.weight.data.zero_()
    last.bias.data.copy_(torch.tensor(logits))
    return network


def always(config: Config, action: int):
    num_actions = env_spec(config).actions.n
    return fixed_policy(config, [5.0 * (a == action) for a in range(num_actions)])


def played(config: Config, network=None, *, episodes=3, greedy=True, seed=0, max_steps=100):
    network = network or network_for(config)
    return play(config, network, episodes=episodes, greedy=greedy, seed=seed, max_steps=max_steps)


@pytest.fixture
def made(monkeypatch):
    """The games that a test made, and whether each was closed."""
    games = []

    def make(config):
        game = make_game(config)
        close = game.close
        games.append(game)
        game.is_closed = False

        def note():
            game.is_closed = True
            close()

        game.close = note
        return game

    monkeypatch.setattr(evaluate, "make_game", make)
    return games


@pytest.mark.parametrize(
    ("episodes", "games"), [(1, 1), (5, 5), (16, 16), (17, 9), (30, 15), (32, 16), (100, 15)]
)
def test_exactly_so_many_episodes_are_played_on_at_most_16_games(made, episodes, games):
    assert len(played(CARTPOLE, episodes=episodes, max_steps=4)) == episodes
    assert len(made) == games <= MAX_GAMES
    assert all(game.is_closed for game in made)


def test_who_trains_on_one_environment_plays_on_one(made):
    config = Config(env="CartPole-v1", workers=1, num_envs=1)
    assert len(played(config, episodes=3, max_steps=4)) == 3
    assert len(made) == 1


def test_each_game_that_was_made_is_a_sign_of_life(made):
    signs = []
    with games_for(CARTPOLE, 5, lambda: signs.append(len(made))):
        assert signs == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("episodes", [1, 10, 23, 50])
def test_short_episodes_count_no_more_often_than_long_ones(episodes):
    results = played(SEEDED, episodes=episodes, max_steps=LONG + 5)
    lengths = [min(length_of(seed), LONG + 5) for seed in range(episodes)]
    assert [episode.length for episode in results] == lengths
    assert [episode.is_capped for episode in results] == [n > LONG for n in lengths]
    assert {SHORT, LONG, LONG + 5} == set(lengths) or episodes == 1


def test_an_episode_that_ends_at_the_last_allowed_step_was_not_cut():
    for max_steps, capped in ((LONG - 1, True), (LONG, False), (LONG + 1, False)):
        episode = played(SEEDED, episodes=1, seed=1, max_steps=max_steps)[0]
        assert (episode.length, episode.is_capped) == (min(LONG, max_steps), capped)


def test_the_reward_of_every_step_counts_once_and_unclipped():
    config = Config(env=SEEDED.env, reward_clip=1.0)
    results = played(config, always(config, 3), episodes=9, max_steps=LONG)
    expected = [1000.0 * e + 3 * (min(length_of(e), LONG) - 1) for e in range(9)]
    assert [episode.episode_return for episode in results] == expected


def test_atari_returns_are_raw():
    config = Config(env="ALE/MsPacman-v5", reward_clip=1.0)
    results = played(config, always(config, 3), episodes=2, max_steps=100)
    returns = [episode.episode_return for episode in results]
    assert all(value >= 50 and value % 10 == 0 for value in returns)


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize(
    "config", [CARTPOLE, pytest.param(BREAKOUT, marks=pytest.mark.long)], ids=lambda c: c.env
)
def test_the_same_seed_gives_the_same_episodes(config, greedy):
    first, same = (played(config, episodes=4, seed=3, max_steps=60, greedy=greedy) for _ in "ab")
    assert first == same


def test_another_seed_gives_other_episodes():
    results = [played(CARTPOLE, episodes=8, seed=seed, greedy=False) for seed in (0, 100)]
    assert results[0] != results[1]
    assert len(set(results[0])) > 3


@pytest.mark.parametrize("greedy", [True, False])
def test_an_episode_is_the_same_whatever_is_played_beside_it(greedy):
    many = played(CARTPOLE, episodes=20, greedy=greedy)
    assert many[:3] == played(CARTPOLE, episodes=3, greedy=greedy)
    alone = [played(CARTPOLE, episodes=1, seed=e, greedy=greedy)[0] for e in range(20)]
    assert many == alone


@pytest.mark.parametrize("config", [BREAKOUT, CARTPOLE], ids=lambda c: c.env)
def test_a_cut_episode_leaves_nothing_to_the_next_one_on_its_game(config):
    network, max_steps = network_for(config), 45
    game = make_game(config)
    options = {"greedy": False, "max_steps": max_steps}
    in_turn = play_on([game], network, episodes=4, seed=7, **options)
    game.close()
    alone = [played(config, network, episodes=1, seed=7 + e, **options)[0] for e in range(4)]
    assert in_turn == alone
    if config is BREAKOUT:
        assert all(episode.is_capped and episode.length == max_steps for episode in in_turn)


def test_a_lost_life_ends_no_breakout_game_and_fire_is_pressed_after_it():
    """A policy that never presses anything would else wait for ever after its first life."""
    results = played(BREAKOUT, always(BREAKOUT, NOOP), episodes=3, max_steps=400)
    assert not any(episode.is_capped for episode in results)
    assert all(60 < episode.length < 300 for episode in results)
    stuck = make_game(BREAKOUT)
    stuck._fire = None
    network = always(BREAKOUT, NOOP)
    [episode] = play_on([stuck], network, episodes=1, greedy=True, seed=0, max_steps=400)
    assert (episode.length, episode.is_capped) == (400, True)
    stuck.close()


def test_pong_is_lost_by_21_points_by_doing_nothing():
    config = Config(env="ALE/Pong-v5", frame_skip=20)
    [episode] = played(config, always(config, NOOP), episodes=1, max_steps=400)
    assert episode.episode_return == -21
    assert not episode.is_capped


def test_greedy_takes_the_most_probable_action_and_sampling_all_as_often_as_they_are():
    probabilities = np.array([0.1, 0.2, 0.3, 0.4])
    assert len(probabilities) == NUM_ACTIONS
    network = fixed_policy(SEEDED, np.log(probabilities).tolist())

    def mean_action(**options):
        results = played(SEEDED, network, episodes=200, max_steps=LONG, **options)
        rewards = sum(e.episode_return - 1000 * i for i, e in enumerate(results))
        return rewards / sum(e.length - 1 for e in results)

    assert mean_action(greedy=True) == 3
    assert mean_action(greedy=False) == pytest.approx(2.0, abs=0.06)


@pytest.mark.parametrize("asked", [0, 1, 4])
def test_it_stops_at_once_and_gives_nothing_when_it_shall_not_go_on(made, asked):
    answers = itertools.chain([True] * asked, [False] * 1000)
    steps = []
    network = network_for(CARTPOLE)
    network.trunk.register_forward_pre_hook(lambda *_: steps.append(0))
    with games_for(CARTPOLE, 5) as games:
        ended = play_on(
            games, network, episodes=5, greedy=True, seed=0, max_steps=100,
            keep_going=lambda: next(answers),
        )  # fmt: skip
    assert ended is None
    assert len(steps) == asked
    assert len(made) == 5
    assert all(game.is_closed for game in made)


def test_games_are_closed_when_the_network_fails(made):
    network = network_for(BREAKOUT)
    with pytest.raises(RuntimeError):
        played(CARTPOLE, network)
    assert made
    assert all(game.is_closed for game in made)


def test_playing_leaves_the_network_as_it_was():
    config = Config(env="CartPole-v1", mode="traj", norm_obs=True, norm_returns=True)
    network = network_for(config)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    played(config, network)
    assert before
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_seeds_may_be_larger_than_environments_take():
    assert len(played(BREAKOUT, episodes=1, seed=2**40 + 2**31 - 1, max_steps=3)) == 1


def test_an_environment_that_cannot_be_made_is_a_start_error():
    with pytest.raises(StartError, match="--env NoSuchGame-v0"):
        played(Config(env="NoSuchGame-v0"), network_for(CARTPOLE))


def test_the_protocol_says_what_a_score_depends_on():
    atari = Config(env="ALE/Pong-v5", frame_skip=3, noop_max=7, sticky_action_prob=0.25)
    text = protocol(atari, 12, 27_000)
    for words in ("27,000 env steps", "seeds from 12", "frame skip 3", "7 no-ops", "actions 0.25"):
        assert words in text
    assert "\n" not in text
    assert "no-ops" not in protocol(CARTPOLE, 0, 500)


def test_the_summary_gives_mean_deviation_range_length_and_how_many_were_cut():
    episodes = played(SEEDED, always(SEEDED, 0), episodes=5, max_steps=60)
    assert summarise(episodes) == (
        "return 2,000.00 ± 1,414.21 (mean ± std of 5), from 0 to 4,000; "
        "29 env steps on average; 1 cut"
    )
    assert summarise(episodes[:1]) == (
        "return 0.00 ± 0.00 (mean ± std of 1), from 0 to 0; 2 env steps on average"
    )


@pytest.mark.parametrize("greedy", [True, False])
def test_illegal_actions_are_not_played(greedy):
    env = "tests.envs.masked_env:Masked-info-tuple-v0"
    config = Config(env=env, action_mask="info", hidden_sizes=(8,))
    policy = make_policy(config, env_spec(config))
    episodes = play(config, policy, episodes=20, greedy=greedy, seed=1, max_steps=100)
    assert {episode.length for episode in episodes} == {9}  # an illegal action would raise
