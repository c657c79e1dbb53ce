"""What `serve` prints: a live line on a terminal, plain lines elsewhere, a summary at the end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from aa2c.log import EventDict, readable
from aa2c.orchestrator import Orchestrator
from aa2c.status import Status

LIVE_S = 0.5
PLAIN_S = 5.0
SHOWN_LEVELS = {"warning", "error", "critical"}


class Terminal:
    """The person's view of a run. With `quiet`, only the URL and what goes wrong."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)

    def on_event(self, event: EventDict) -> None:
        """Show warnings of the orchestrator's log as they come."""
        if event["level"] in SHOWN_LEVELS:
            self._print(readable(event))

    def begin(self, run: Orchestrator, preset: str) -> None:
        """The first lines: where the page is, what is trained and where it is kept."""
        self._print(f"page      {run.url}")
        config = run.config
        self.say(
            f"training  {config.env}, mode {config.mode}, {config.workers} workers x "
            f"{config.num_envs} environments, {config.total_env_steps:,} env steps, "
            f"preset {preset}, seed {config.seed}"
        )
        self.say(f"run       {run.dir}")

    def say(self, text: str) -> None:
        """A line, unless quiet."""
        if not self._quiet:
            self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(Text(text))

    async def show_until(self, run: Orchestrator, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Show progress until one of the tasks is done."""
        waiting = list(tasks)
        if self._console.is_terminal and not self._quiet:
            with Live(console=self._console, auto_refresh=False, transient=True) as live:
                while not await _any_done(waiting, LIVE_S):
                    live.update(Text(progress_line(run.status())), refresh=True)
        else:
            while not await _any_done(waiting, PLAIN_S):
                self.say(progress_line(run.status()))

    def end(self, run: Orchestrator) -> None:
        """The summary."""
        status = run.status()
        run_part, train = status["run"], status["returns"]["train"]
        steps = status["progress"]["env_steps"]
        seconds = run_part["uptime_s"]
        self.say(
            f"{run_part['state']}: {steps:,} env steps in {seconds:.1f} s "
            f"({steps / max(seconds, 1e-9):,.0f} per second), "
            f"{status['progress']['updates']:,} updates, {train['count']:,} episodes"
        )
        self.say(f"return of the last {_return_in_words(train)}")
        for policy, test in status["returns"]["test"].items():
            if test["mean"] is not None:
                self.say(
                    f"last test, {policy}: {test['mean']:.1f} ± {test['std']:.1f} "
                    f"after {test['env_steps']:,} env steps"
                )
        self.say(f"kept in {run_part['dir']}")


async def _any_done(tasks: list[asyncio.Task[Any]], timeout_s: float) -> bool:
    done, _ = await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    return bool(done)


def progress_line(status: Status) -> str:
    """The state of a run in one line."""
    progress, throughput = status["progress"], status["throughput"]
    share = progress["env_steps"] / progress["total_env_steps"]
    return (
        f"{status['run']['uptime_s']:7.1f} s  {status['run']['state']}  {share:4.0%}  "
        f"{progress['env_steps']:,} env steps  {throughput['env_steps_per_s']:,.0f}/s  "
        f"{throughput['updates_per_s']:,.0f} updates/s  "
        f"return of the last {_return_in_words(status['returns']['train'])}  "
        f"lag {status['policy_lag']['mean']:.1f}  bottleneck {throughput['bottleneck']}"
    )


def _return_in_words(train: dict[str, Any]) -> str:
    if train["mean"] is None:
        return "episodes: none ended yet"
    shown = min(train["count"], 100)
    return f"{shown} episodes {train['mean']:.1f} ± {train['std']:.1f}"
