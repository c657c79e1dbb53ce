"""Diagnosis: plain warnings about how learning goes, where a practitioner would want one.

Runs in the orchestrator, once a second. What is judged are means over all updates of a window of env
steps, whose sums the updater keeps, so that a warning depends neither on when it is looked at nor on the
machine's speed. Each begins beyond one threshold and ends at another, so that none flickers.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from aa2c.config.modes import WATCHED
from aa2c.engine import Engine

WINDOW_SHARE = 0.05  # of the budget
SHORTEST_WINDOW = 50_000  # env steps, in which values may well explain nothing yet
LONGEST_WINDOW = 1_000_000  # env steps, for budgets that are not meant to be used up
FEWEST_BATCHES = 20  # of a window; more than that tell a mean
LEAST_RATE = 0.1  # of the configured learning rate; below it a policy is meant to change little


class TrainReturns(NamedTuple):
    """Means of 100 training episodes: the first such, the highest, and now; the larger std of these two."""

    first: float
    best: float
    best_at: int  # env steps
    now: float
    std: float

    @property
    def lost(self) -> float:
        """The share of what was gained since the first episodes that is lost; 0 where it is noise.

        By differences alone, so that returns may be negative.
        """
        gained, fell = self.best - self.first, self.best - self.now
        return fell / gained if gained > 0 and fell > self.std else 0.0

    @property
    def are_poor(self) -> bool:
        """No better than the first ones, as far as their spread tells, or nearer to them than the best."""
        return self.now <= self.first + max((self.best - self.first) / 2, self.std)


class Seen(NamedTuple):
    """What is judged: `means` over the window (see `WATCHED`), of which some are missing."""

    returns: TrainReturns | None
    means: Mapping[str, float]
    rate_share: float  # of the configured learning rate
    most_entropy: float  # nats; NaN where actions are continuous

    def mean(self, name: str) -> float:
        """NaN, which no comparison finds small or large, where there is none."""
        return self.means.get(name, math.nan)

    @property
    def is_poor(self) -> bool:
        return self.returns is not None and self.returns.are_poor


@dataclass(frozen=True)
class Rule:
    """A warning: what it says and advises, and the conditions under which it begins and stays.

    `when` is the first of these in words.
    """

    name: str
    when: str
    text: Callable[[Seen], str]
    advice: str
    begins: Callable[[Seen], bool]
    stays: Callable[[Seen], bool]


def _fell(seen: Seen) -> str:
    assert seen.returns is not None
    _, best, best_at, now, _ = seen.returns
    return f"returns fell by half since their best: {now:.4g} now, {best:.4g} after {best_at:,} env steps"


RULES = (
    Rule(
        "returns_fell",
        "half of what was gained since the first 100 episodes is lost, and by more than the returns' std",
        _fell,
        "Lower --learning-rate; --keep-best ends the run with its best checkpoint, and eval --best plays it.",
        begins=lambda seen: seen.returns is not None and seen.returns.lost >= 0.5,
        stays=lambda seen: seen.returns is not None and seen.returns.lost >= 0.25,
    ),
    Rule(
        "entropy_collapsed",
        "the entropy is below 2 % of that of random play, and returns are poor",
        lambda seen: (
            f"the policy hardly explores any more (entropy {seen.mean('entropy'):.2g} nats), "
            "and returns are poor"
        ),
        "Raise --ent-coef, or lower --learning-rate; a policy without entropy rarely recovers: resume an "
        "earlier checkpoint.",
        begins=lambda seen: seen.is_poor and seen.mean("entropy") < 0.02 * seen.most_entropy,
        stays=lambda seen: seen.is_poor and seen.mean("entropy") < 0.05 * seen.most_entropy,
    ),
    Rule(
        "policy_is_still",
        "approximate KL is below 1e-5 at a tenth or more of the configured learning rate (where there is one)",
        lambda seen: (
            f"the policy hardly changes any more (approximate KL {seen.mean('approx_kl'):.1g} nats)"
        ),
        "Raise --learning-rate or --update-epochs, or stop if returns are good enough.",
        begins=lambda seen: seen.rate_share >= LEAST_RATE and seen.mean("approx_kl") < 1e-5,
        stays=lambda seen: seen.rate_share >= LEAST_RATE and seen.mean("approx_kl") < 3e-5,
    ),
    Rule(
        "values_explain_nothing",
        "explained variance is 0 or less, and returns are poor",
        lambda seen: (
            "the values explain nothing of the returns (explained variance "
            f"{seen.mean('explained_variance'):.2f}), and returns are poor"
        ),
        "Scale rewards with --norm-rewards, raise --vf-coef, or lower --learning-rate.",
        begins=lambda seen: seen.is_poor and seen.mean("explained_variance") <= 0,
        stays=lambda seen: seen.is_poor and seen.mean("explained_variance") < 0.05,
    ),
    Rule(
        "gradient_is_cut",
        "clipping leaves less than 1 % of the gradient, and returns are poor",
        lambda seen: (
            "clipping leaves hardly anything of the gradient "
            f"({seen.mean('grad_share'):.1%}), and returns are poor"
        ),
        "Scale rewards with --norm-rewards, or raise --max-grad-norm.",
        begins=lambda seen: seen.is_poor and seen.mean("grad_share") < 0.01,
        stays=lambda seen: seen.is_poor and seen.mean("grad_share") < 0.03,
    ),
)


class Windows:
    """Means over the newest window of env steps, from running sums."""

    def __init__(self, env_steps: float) -> None:
        self._length = env_steps
        self._kept: deque[tuple[int, dict[str, tuple[float, int]]]] = deque()

    def add(self, env_steps: int, sums: Mapping[str, tuple[float, int]]) -> None:
        """The sums up to here. Where they went back, a new updater counts from the beginning."""
        kept = self._kept
        if kept and any(told < kept[-1][1][name][1] for name, (_, told) in sums.items()):
            kept.clear()
        if not kept or env_steps > kept[-1][0]:
            kept.append((env_steps, dict(sums)))
        while len(kept) > 2 and env_steps - kept[1][0] >= self._length:
            kept.popleft()

    def means(self) -> dict[str, float]:
        """Of what enough batches told in a whole window; none before there was one."""
        if not self._kept or self._kept[-1][0] - self._kept[0][0] < self._length:
            return {}
        before, now = self._kept[0][1], self._kept[-1][1]
        found = {}
        for name, (total, told) in now.items():
            count = told - before[name][1]
            if count >= FEWEST_BATCHES:
                found[name] = (total - before[name][0]) / count
        return found


class Diagnosis:
    """The warnings that hold now; each is logged once when it begins, and once when it ends."""

    def __init__(self, engine: Engine, log: Any) -> None:
        self._engine = engine
        self._log = log
        budget = engine.settings.now().total_env_steps
        self._windows = Windows(max(SHORTEST_WINDOW, min(LONGEST_WINDOW, WINDOW_SHARE * budget)))
        self._active: dict[str, dict[str, Any]] = {}

    def look(self, env_steps: int, returns: TrainReturns | None) -> None:
        """Judge what is known at these env steps."""
        row, configured = self._engine.telemetry.updater, self._engine.settings.now().learning_rate
        self._windows.add(
            env_steps,
            {name: (row.value(f"{name}_sum"), row.count(f"{name}_told")) for name in WATCHED},
        )
        share = row.value("learning_rate") / configured if configured else 0.0
        self.judge(
            env_steps, Seen(returns, self._windows.means(), share, row.value("most_entropy"))
        )

    def judge(self, env_steps: int, seen: Seen) -> None:
        """Let warnings begin, stay or end."""
        for rule in RULES:
            now = self._active.get(rule.name)
            if now is None and rule.begins(seen):
                self._active[rule.name] = {
                    "name": rule.name,
                    "text": rule.text(seen),
                    "advice": rule.advice,
                    "env_steps": env_steps,
                }
                self._log.warning(rule.text(seen), warning=rule.name, advice=rule.advice)
            elif now is not None and not rule.stays(seen):
                del self._active[rule.name]
                self._log.warning("a warning no longer holds", warning=rule.name, it=now["text"])
            elif now is not None:
                now["text"] = rule.text(seen)

    def told(self) -> list[dict[str, Any]]:
        """The warnings that hold: name, text, advice, and the env steps since when."""
        return [dict(warning) for warning in self._active.values()]
