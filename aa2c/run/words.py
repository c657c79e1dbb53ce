"""A status in words: the line that is printed every few seconds, and its parts."""

from __future__ import annotations

from typing import Any

from aa2c.run.status import Status

PLAIN_S = 5.0
FEW = 8  # workers that are listed one by one


def progress_line(status: Status) -> str:
    """The state of a run in one line."""
    if children := awaited(status):
        return f"{status['run']['uptime_s']:7.1f} s  {status['run']['state']}  {children}"
    progress, throughput = status["progress"], status["throughput"]
    share = progress["env_steps"] / progress["total_env_steps"]
    return (
        f"{status['run']['uptime_s']:7.1f} s  {status['run']['state']}  {share:4.0%}  "
        f"{progress['env_steps']:,} env steps  {throughput['env_steps_per_s']:,.0f}/s  "
        f"{throughput['updates_per_s']:,.0f} updates/s  "
        f"return of the last {return_in_words(status['returns']['train'])}  "
        f"lag {status['policy_lag']['mean']:.1f}  bottleneck {throughput['bottleneck']}"
    )


def awaited(status: Status) -> str:
    """Which children are still coming up while the run starts; empty otherwise."""
    if status["run"]["state"] != "starting":
        return ""
    workers = [str(worker["id"]) for worker in status["workers"] if worker["state"] != "running"]
    named = [] if status["updater"]["state"] == "running" else ["the updater"]
    if workers:
        of = f"{len(workers)} of {len(status['workers'])} workers"
        named.append(of if len(workers) > FEW else f"worker {', '.join(workers)}")
    return f"waiting for {' and '.join(named)} to come up" if named else ""


def spread(returns: dict[str, Any]) -> str:
    """Mean and std."""
    mean = returns["mean"]
    if returns["nonfinite"]:
        return f"not finite in {returns['nonfinite']}"
    return "–" if mean is None else f"{mean:.1f} ± {returns['std']:.1f}"


def return_in_words(train: dict[str, Any]) -> str:
    """The training return, and of how many episodes it is."""
    if train["mean"] is None and not train["nonfinite"]:
        return "episodes: none finished yet"
    shown = min(train["count"], 100)
    return f"{shown} episodes {spread(train)}"
