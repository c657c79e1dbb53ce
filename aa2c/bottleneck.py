"""The bottleneck of a run: which stage the others wait for, and what to do about it, in words."""

from __future__ import annotations

WAITS_MUCH = 0.2  # share of its time above which a stage counts as waiting

_BALANCED = "Nobody waits much for anybody."
_MORE_ACTING = "or --num-envs, if there are idle cores, or give each of them less to do."
ADVICE = {  # by mode and bottleneck; share is that of the waiting
    ("grad", "balanced"): _BALANCED,
    ("model", "balanced"): _BALANCED,
    ("traj", "balanced"): _BALANCED,
    ("grad", "workers"): "The updater waits {share:.0%} of its time for gradients: raise --workers "
    + _MORE_ACTING,
    (
        "model",
        "workers",
    ): "Workers step the network themselves and wait for nobody; the updater only counts.",
    (
        "traj",
        "workers",
    ): "The updater waits {share:.0%} of its time for trajectories: raise --workers "
    + _MORE_ACTING,
    (
        "grad",
        "updater",
    ): "Workers wait {share:.0%} of their time for the updater: raise --update-threads "
    "or --grad-sync-steps, or try --update-order sum.",
    (
        "model",
        "updater",
    ): "Workers wait {share:.0%} of their time for the lock: lower --workers, raise "
    "--num-envs or --num-steps, or try --update-order hogwild.",
    (
        "traj",
        "updater",
    ): "Workers wait {share:.0%} of their time for the updater: raise --update-threads, "
    "lower --update-epochs, or use fewer workers.",
}


def find_bottleneck(updater_waits: float, workers_wait: float) -> str:
    """The stage that the others wait for, by the shares of their time: or balanced."""
    if max(updater_waits, workers_wait) < WAITS_MUCH:
        return "balanced"
    return "workers" if updater_waits > workers_wait else "updater"
