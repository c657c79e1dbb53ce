"""Warnings about learning: when each begins and ends, on synthetic series, and that healthy ones have none."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from aa2c.config.config import Config
from aa2c.config.modes import WATCHED
from aa2c.run.diagnosis import FEWEST_BATCHES, RULES, Diagnosis, TrainReturns, Windows

BUDGET, STEPS = 500_000, 128  # a batch's env steps
HEALTHY = {"entropy": 0.5, "approx_kl": 3e-3, "explained_variance": 0.6, "grad_share": 0.5}
MOST_ENTROPY = math.log(2)
LOW, BEST = TrainReturns(20, 22, 9000, 20, 8), TrainReturns(20, 480, 200_000, 470, 60)


class Log:
    def __init__(self):
        self.lines = []

    def warning(self, text, **more):
        self.lines.append((text, more))


class Run:
    """A run of so many env steps a look, whose updater's counters are numbers in a dict."""

    def __init__(self, **options):
        self.counts = dict.fromkeys([f"{n}_{k}" for n in WATCHED for k in ("sum", "told")], 0.0)
        self.counts |= {"most_entropy": MOST_ENTROPY, "learning_rate": 1e-3}
        config = Config(total_env_steps=BUDGET, **options)
        row = SimpleNamespace(value=self.counts.get, count=lambda name: int(self.counts[name]))
        engine = SimpleNamespace(
            telemetry=SimpleNamespace(updater=row), settings=SimpleNamespace(now=lambda: config)
        )
        self.log, self.env_steps = Log(), 0
        self.diagnosis = Diagnosis(engine, self.log)

    def learn(self, env_steps, returns, every=STEPS, noise=0.0, **values):
        """Batches of these values; the names of the warnings that held after each look."""
        rng, held = np.random.default_rng(self.env_steps), []
        for batch in range(env_steps // STEPS):
            for name, value in (HEALTHY | values).items():
                if not math.isnan(value):
                    self.counts[f"{name}_sum"] += value * (1 + noise * rng.standard_normal())
                    self.counts[f"{name}_told"] += 1
            self.env_steps += STEPS
            if batch % (every // STEPS) == 0:
                self.diagnosis.look(self.env_steps, returns)
                held.append([warning["name"] for warning in self.diagnosis.told()])
        return held


def names(run):
    return [warning["name"] for warning in run.diagnosis.told()]


WRONG = {
    "returns_fell": (TrainReturns(20, 480, 200_000, 200, 60), {}),
    "entropy_collapsed": (LOW, {"entropy": 0.001}),
    "policy_is_still": (BEST, {"approx_kl": 1e-7}),
    "values_explain_nothing": (LOW, {"explained_variance": -0.2}),
    "gradient_is_cut": (LOW, {"grad_share": 0.004}),
}


def test_there_is_a_series_for_every_warning():
    assert WRONG.keys() == {rule.name for rule in RULES}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("every", [STEPS, 40 * STEPS])
def test_a_warning_begins_ends_and_is_logged_once_each_however_often_it_is_looked_at(name, every):
    returns, values = WRONG[name]
    run = Run()
    assert not any(run.learn(100_000, BEST, every))
    run.learn(100_000, returns, every, noise=0.2, **values)
    assert names(run) == [name]
    (warning,) = run.diagnosis.told()
    assert warning["text"]
    assert warning["advice"].endswith(".")
    assert 100_000 < warning["env_steps"] <= 160_000
    run.learn(100_000, BEST, every)
    assert names(run) == []
    begun, ended = run.log.lines
    assert begun[1]["warning"] == ended[1]["warning"] == name
    assert "no longer" in ended[0]


@pytest.mark.parametrize("name", [name for name in WRONG if name != "returns_fell"])
def test_nothing_is_said_before_a_whole_window_and_of_few_batches(name):
    returns, values = WRONG[name]
    run = Run()
    assert not any(run.learn(BUDGET // 20 - STEPS, returns, **values))
    few = Windows(10)
    for i in range(FEWEST_BATCHES):
        few.add(100 * i, {"entropy": (float(i), i)})
    few.add(10_000, {"entropy": (20.0, FEWEST_BATCHES)})
    assert few.means() == {}


@pytest.mark.parametrize("name", ["entropy_collapsed", "values_explain_nothing", "gradient_is_cut"])
def test_where_returns_are_good_a_cause_of_poor_ones_is_none(name):
    run = Run()
    assert not any(run.learn(200_000, BEST, **WRONG[name][1]))


def test_a_policy_that_may_hardly_learn_any_more_may_be_still():
    run = Run()
    run.counts["learning_rate"] = 5e-5  # of 1e-3, annealed
    assert not any(run.learn(200_000, BEST, approx_kl=1e-9))
    run = Run(learning_rate=0)
    assert not any(run.learn(200_000, BEST, approx_kl=1e-9))


def test_a_mode_without_a_quantity_and_continuous_actions_have_no_warning_of_it():
    run = Run()
    assert not any(run.learn(200_000, BEST, approx_kl=math.nan))
    run.counts["most_entropy"] = math.nan
    assert not any(run.learn(200_000, LOW, entropy=-3.0))


@pytest.mark.parametrize(
    ("first", "best", "now", "std", "has_fallen"),
    [
        (20, 480, 240, 100, True),
        (20, 480, 260, 100, False),
        (-21, 18, -2, 6, True),
        (-21, 18, 0, 6, False),
        (-1200, -200, -750, 300, True),
        (-1200, -200, -650, 300, False),
        (-20.5, -20.2, -20.6, 0.7, False),  # noise: nothing was learned yet
        (20, 20, 9, 3, False),
        (0, 0, 0, 0, False),
    ],
)
def test_returns_fell_by_half_of_what_was_gained(first, best, now, std, has_fallen):
    run = Run()
    run.learn(STEPS, TrainReturns(first, best, 1, now, std))
    assert (names(run) == ["returns_fell"]) == has_fallen


def test_a_warning_does_not_flicker_between_its_thresholds():
    run = Run()
    for i in range(100):  # around a half of what was gained
        run.learn(STEPS, TrainReturns(20, 480, 1, 250 + (30 if i % 2 else -30), 40))
    for _ in range(10):  # around nothing explained
        run.learn(30_000, LOW, explained_variance=-0.02, noise=0.3)
        run.learn(30_000, LOW, explained_variance=0.02, noise=0.3)
    assert sum("fell" in text for text, _ in run.log.lines) <= 1
    assert len(run.log.lines) <= 3


def test_after_a_restart_of_the_updaters_counts_the_window_begins_anew():
    windows = Windows(100)
    for i in range(40):
        windows.add(10 * i, {"entropy": (0.5 * 9 * i, 9 * i)})
    assert windows.means() == {"entropy": pytest.approx(0.5)}
    windows.add(400, {"entropy": (0.0, 0)})
    assert windows.means() == {}
