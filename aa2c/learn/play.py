"""Test episodes: whole games of a policy that is not learning, counted raw.

Runs in the evaluator and the command line. Episodes are numbered, and which are played is settled
before the first one starts: taking those that finish first would favour short ones.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from aa2c.config.config import Config
from aa2c.envs.find import no_tick, plays_atari
from aa2c.envs.game import SEEDS, Game, make_game
from aa2c.policy.policy import Policy

MAX_GAMES = 16  # side by side
SEED_STEP = 1_000_003  # between evaluations; any odd number that no other seeds use

Actions = NDArray[Any]  # one environment's


class TestEpisode(NamedTuple):
    """A played episode: raw return, length in env steps, whether it was cut at `max_steps`."""

    episode_return: float
    length: int
    is_capped: bool


def always() -> bool:
    """Keep going to the end."""
    return True


def evaluation_seed(config: Config, env_steps: int) -> int:
    """The seed of an evaluation: the same parameters play the same games, whenever that is."""
    return (config.seed + SEED_STEP * (1 + env_steps)) % 2**31


def play(
    config: Config,
    policy: Policy,
    *,
    episodes: int,
    greedy: bool,
    seed: int,
    max_steps: int,
) -> list[TestEpisode]:
    """Play exactly `episodes` whole games, each as `play_on` says.

    Raises `StartError` for an environment that cannot be made.
    """
    with games_for(config, episodes) as games:
        played = play_on(
            games, policy, episodes=episodes, greedy=greedy, seed=seed, max_steps=max_steps
        )
    return played or []


@contextlib.contextmanager
def games_for(
    config: Config, episodes: int, tick: Callable[[], None] = no_tick
) -> Iterator[list[Game]]:
    """As many games as play so many episodes side by side, up to `MAX_GAMES`, evenly loaded.

    Whoever trains on a single environment may have no more of them. `tick` is called after each that
    was made.
    """
    most = 1 if config.workers * config.num_envs == 1 else MAX_GAMES
    rounds = math.ceil(episodes / most)
    games: list[Game] = []
    with contextlib.ExitStack() as stack:
        for _ in range(math.ceil(episodes / rounds)):
            games.append(stack.enter_context(contextlib.closing(make_game(config))))
            tick()
        yield games


def play_on(
    games: Sequence[Game],
    policy: Policy,
    *,
    episodes: int,
    greedy: bool,
    seed: int,
    max_steps: int,
    keep_going: Callable[[], bool] = always,
) -> list[TestEpisode] | None:
    """Play episodes 0 … episodes-1 on n games: game i plays episodes i, i+n, i+2n, …

    Actions are the most probable ones (`greedy`) or sampled. Episode e starts from seed + e and
    samples with a generator of that seed, so it is the same one whatever is played beside it. One
    that is longer than `max_steps` env steps is cut there and counts with its return so far.
    Returns the episodes in that order, or None as soon as `keep_going()`, which is asked before
    each step, is False.
    """
    finished: dict[int, TestEpisode] = {}
    with torch.inference_mode():
        running = [_Running(policy, game, i, seed) for i, game in enumerate(games[:episodes])]
        while running:
            if not keep_going():
                return None
            actions = _choose(policy, running, greedy=greedy)
            for episode, action in zip(running, actions, strict=True):
                episode.step(action)
            over = [e for e in running if e.is_over or e.length == max_steps]
            running = [e for e in running if not (e.is_over or e.length == max_steps)]
            for episode in over:
                finished[episode.number] = episode.result()
                following = episode.number + len(games)
                if following < episodes:
                    running.append(_Running(policy, episode.game, following, seed))
    return [finished[number] for number in range(episodes)]


class _Running:
    """An episode that is being played."""

    def __init__(self, policy: Policy, game: Game, number: int, seed: int) -> None:
        self.state = policy.initial_state(1)
        self.game = game
        self.number = number
        self.generator = torch.Generator().manual_seed(seed + number)
        self.obs: NDArray[Any] = game.start((seed + number) % SEEDS)
        self.episode_return = 0.0
        self.length = 0
        self.is_over = False

    def step(self, action: Actions) -> None:
        self.obs, reward, self.is_over = self.game.step(action)
        self.episode_return += reward
        self.length += 1

    def result(self) -> TestEpisode:
        return TestEpisode(self.episode_return, self.length, is_capped=not self.is_over)


def _choose(policy: Policy, running: Sequence[_Running], *, greedy: bool) -> list[Actions]:
    """One action for each episode's observation; what is remembered moves on."""
    obs = torch.from_numpy(np.stack([episode.obs for episode in running]))
    states = [episode.state for episode in running]
    state = tuple(torch.cat(parts) for parts in zip(*states, strict=True))
    masks = [legal for episode in running if (legal := episode.game.mask) is not None]
    mask = torch.from_numpy(np.stack(masks)) if masks else None
    outputs, _, state = policy.outputs(obs, state, torch.zeros(1, len(obs), dtype=torch.bool))
    for i, episode in enumerate(running):
        episode.state = tuple(part[i : i + 1] for part in state)
    if greedy:
        return list(policy.actions.distribution(outputs, mask).mode().numpy())
    return [
        policy.actions.distribution(outputs[i], None if mask is None else mask[i])
        .sample(episode.generator)
        .numpy()
        for i, episode in enumerate(running)
    ]


def protocol(config: Config, seed: int, max_steps: int) -> str:
    """How `play` plays, in one line: a score means little without it."""
    says = [f"whole episodes, raw returns, cut after {max_steps:,} env steps, seeds from {seed}"]
    if plays_atari(config):
        says += [
            f"frame skip {config.frame_skip}",
            f"up to {config.noop_max} no-ops",
            f"sticky actions {config.sticky_action_prob:g}",
            "FIRE at the start and after a lost life",
        ]
    return ", ".join(says)


def summarise(episodes: Sequence[TestEpisode]) -> str:
    """Mean, std and range of the returns, mean length, and how many were cut, in one line."""
    returns = np.array([episode.episode_return for episode in episodes])
    length = np.mean([episode.length for episode in episodes])
    cut = sum(episode.is_capped for episode in episodes)
    return (
        f"return {returns.mean():,.2f} ± {returns.std():,.2f} (mean ± std of {len(episodes)}), "
        f"from {returns.min():,g} to {returns.max():,g}; {length:,.0f} env steps on average"
        + (f"; {cut} cut" if cut else "")
    )
