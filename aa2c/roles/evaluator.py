"""The evaluator process: test episodes on published parameters, during training and at its end.

Whole games, greedy and again sampled, on a copy of the parameters taken at the start of each
evaluation. It runs behind everyone else on the CPU, and no training waits for it. It records a video when
asked to. Its last act is to evaluate the run's last checkpoint, as it was saved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from aa2c.checkpoints.files import add_to_state
from aa2c.checkpoints.tensors import load_checkpoint, load_network
from aa2c.config.config import Config
from aa2c.envs.find import no_tick
from aa2c.envs.game import Game
from aa2c.failpoint import failpoint
from aa2c.learn.play import evaluation_seed, games_for, play_on
from aa2c.policy.flat import FlatParameters
from aa2c.policy.network import make_policy
from aa2c.ports import EvaluatorPort, Report
from aa2c.roles.recorder import Recorder


def run_evaluator(
    config: Config,
    run_dir: Path,
    connect: Callable[[], EvaluatorPort],
    tick: Callable[[], None] = no_tick,
) -> None:
    """Evaluate every `eval_interval_s` until the port says stop, or has the last checkpoint.

    `tick` is called after each environment that was made.

    Raises `StartError` if the environment or its network cannot be made.
    """
    with games_for(config, config.eval_episodes, tick) as games:
        evaluator = Evaluator(config, run_dir, games, connect)
        evaluator.run()


class Evaluator:
    """Plays with a policy of its own, into which it pulls or loads the parameters."""

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        games: Sequence[Game],
        connect: Callable[[], EvaluatorPort],
    ) -> None:
        self._config = config
        self._games = games
        self._policy = make_policy(config, games[0].spec)
        self._params = FlatParameters(self._policy)
        self._port = connect()
        self._recorder = Recorder(config, games[0].spec, self._port, run_dir)

    def run(self) -> None:
        """Evaluate until there is no more to evaluate."""
        port = self._port
        port.report(Report.READY)
        due, evaluated = time.monotonic(), 0
        while port.beat():
            if port.last_checkpoint is not None:
                self._evaluate_last(port.last_checkpoint)
                return
            self._recorder.record_if_wanted()
            now, interval_s = time.monotonic(), port.config_now().eval_interval_s
            due = min(due, now + interval_s)
            if now < due or not interval_s:
                port.wait()
                continue
            due = now + interval_s
            version = port.pull(self._params.numpy)
            env_steps = port.updater.count("env_steps")
            if version != evaluated and self._evaluate(version, env_steps, self._is_wanted):
                evaluated = version

    def _is_wanted(self) -> bool:
        """Whether to continue an evaluation of parameters that are not the last."""
        self._recorder.record_if_wanted()
        return self._port.beat() and self._port.last_checkpoint is None

    def _evaluate_last(self, path: Path) -> None:
        """Evaluate what was saved, and note the returns beside it."""
        saved = load_checkpoint(path)
        load_network(saved, self._policy)
        version, env_steps = (saved.counts[name] for name in ("policy_version", "env_steps"))
        returns = self._evaluate(version, env_steps, self._port.beat, is_last=True)
        if returns:
            try:
                add_to_state(path, {"test_returns": returns})
            except OSError as error:
                self._port.report(Report.UNSAVED, reason=str(error))

    def _evaluate(
        self, version: int, env_steps: int, keep_going: Callable[[], bool], *, is_last: bool = False
    ) -> dict[str, list[float]] | None:
        """Play and report, greedy and sampled; the raw returns, or None if it was cut short."""
        config, returns = self._config, {}
        for policy in ("greedy", "sampled"):
            episodes = play_on(
                self._games,
                self._policy,
                episodes=config.eval_episodes,
                greedy=policy == "greedy",
                seed=evaluation_seed(config, env_steps),
                max_steps=config.eval_max_steps,
                keep_going=keep_going,
            )
            if episodes is None:
                return None
            failpoint("evaluator.before_report")
            self._port.report(
                Report.EVALUATED,
                policy=policy,
                policy_version=version,
                env_steps=env_steps,
                episodes=[(e.episode_return, e.length) for e in episodes],
                is_last=is_last,
            )
            returns[policy] = [e.episode_return for e in episodes]
        self._port.counters.add("records", 1)
        return returns
