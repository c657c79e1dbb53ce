"""The evaluator process: test episodes on published parameters, during training.

Whole games, greedy and again sampled, on a copy of the parameters taken at the start of each
evaluation. It runs behind everyone else on the CPU, and nothing waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from aa2c.config.config import Config
from aa2c.envs.find import no_tick
from aa2c.envs.game import Game
from aa2c.failpoint import failpoint
from aa2c.learn.play import games_for, play_on
from aa2c.policy.flat import FlatParameters
from aa2c.policy.network import make_policy
from aa2c.ports import EvaluatorPort, Report

SEED_STEP = 1_000_003  # between evaluations; any odd number that no other seeds use


def run_evaluator(
    config: Config, connect: Callable[[], EvaluatorPort], tick: Callable[[], None] = no_tick
) -> None:
    """Evaluate every `eval_interval_s` until the port says stop.

    `tick` is called after each environment that was made.

    Raises `StartError` if the environment or its network cannot be made.
    """
    with games_for(config, config.eval_episodes, tick) as games:
        _evaluate_on(games, config, connect)


def _evaluate_on(
    games: Sequence[Game], config: Config, connect: Callable[[], EvaluatorPort]
) -> None:
    network = make_policy(config, games[0].spec)
    params = FlatParameters(network)
    port = connect()
    port.report(Report.READY)
    due = time.monotonic()
    while port.beat():
        now, interval_s = time.monotonic(), port.config_now().eval_interval_s
        due = min(due, now + interval_s)
        if now < due or not interval_s:
            port.wait()
            continue
        due = now + interval_s
        version = port.pull(params.numpy)
        env_steps = port.updater.count("env_steps")
        seed = config.seed + SEED_STEP * (1 + port.counters.count("records"))
        for policy in ("greedy", "sampled"):
            episodes = play_on(
                games,
                network,
                episodes=config.eval_episodes,
                greedy=policy == "greedy",
                seed=seed % 2**31,
                max_steps=config.eval_max_steps,
                keep_going=port.beat,
            )
            if episodes is None:
                return
            failpoint("evaluator.before_report")
            port.report(
                Report.EVALUATED,
                policy=policy,
                policy_version=version,
                env_steps=env_steps,
                episodes=[(e.episode_return, e.length) for e in episodes],
            )
        port.counters.add("records", 1)
