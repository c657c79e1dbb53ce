"""A run in a terminal: a live display, or plain lines if the output is not a terminal.

Everything is drawn from a status document, so that `serve` and `top` show the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.filesize import decimal
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aa2c.log import EventDict, readable
from aa2c.orchestrator import Orchestrator
from aa2c.run.status import Status
from aa2c.run.words import PLAIN_S, awaited, progress_line, return_in_words, spread

LIVE_S = 0.5
SHOWN_LEVELS = {"warning", "error", "critical"}
LINES_BESIDE_WORKERS = 13
STATE_STYLES = {"running": "green", "finished": "green", "degraded": "red", "failed": "bold red"}
BAR_WIDTH = 40


class Terminal:
    """Prints a run's progress. With `quiet`, only the URL and warnings."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._console = Console(file=sys.stdout, highlight=False)

    def on_event(self, event: EventDict) -> None:
        """Show the orchestrator's warnings as they are logged, and what the end of the run waits for."""
        if event["level"] in SHOWN_LEVELS:
            self.print(readable(event))
        elif event.get("act") in ("evaluation", "best"):
            self.say(event["event"])

    def begin(self, run: Orchestrator, preset: str) -> None:
        """The first lines: the dashboard's address, what is trained, and the run's directory."""
        self.print(f"{run.url}#token={run.token}")  # alone on its line, for terminals that open it
        config = run.config
        self.say(
            f"training  {config.env_name}, mode {config.mode}, {config.workers} workers x "
            f"{config.num_envs} environments, {config.total_env_steps:,} env steps, "
            f"preset {preset}, seed {config.seed}"
        )
        self.say(f"run       {run.dir}")

    def say(self, text: str) -> None:
        """Print a line, unless quiet."""
        if not self._quiet:
            self.print(text)

    def print(self, text: str) -> None:
        """Print a line; it is lost if the pipe is closed or the disk is full."""
        with contextlib.suppress(OSError):
            self._console.print(Text(text), soft_wrap=True)

    @property
    def is_live(self) -> bool:
        """Whether to keep a display up to date, rather than print lines."""
        return self._console.is_terminal and not self._quiet

    def live(self) -> Live:
        """A region below all lines, for `display`."""
        return Live(console=self._console, auto_refresh=False, transient=True)

    def display(self, status: Status, url: str | None) -> RenderableType:
        """The whole status, fitted to the terminal's height."""
        rows = max(1, self._console.height - LINES_BESIDE_WORKERS)
        return display(status, url, rows)

    async def show_until(self, run: Orchestrator, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Show progress until any of the tasks is done."""
        waiting = list(tasks)
        if self.is_live:
            with self.live() as live:
                while not await _any_done(waiting, LIVE_S):
                    live.update(self.display(run.status(), run.url), refresh=True)
        else:
            while not await _any_done(waiting, PLAIN_S):
                if run.state != "stopping":  # then nothing changes any more
                    self.say(progress_line(run.status()))

    def end(self, status: Status) -> None:
        """The summary."""
        run, train = status["run"], status["returns"]["train"]
        steps = status["progress"]["env_steps"]
        seconds = run["uptime_s"]
        self.say(
            f"{run['state']}: {steps:,} env steps in {seconds:.1f} s "
            f"({steps / max(seconds, 1e-9):,.0f} per second), "
            f"{status['progress']['updates']:,} updates, {train['count']:,} episodes"
        )
        self.say(f"return of the last {return_in_words(train)}")
        for policy, test in status["returns"]["test"].items():
            if test["mean"] is not None or test["nonfinite"]:
                self.say(
                    f"last test, {policy}: {spread(test)} after {test['env_steps']:,} env steps"
                )
        if run["state"] != "failed" or status["progress"]["updates"]:
            self.say(f"saved in {run['dir']}")


async def _any_done(tasks: list[asyncio.Task[Any]], timeout_s: float) -> bool:
    done, _ = await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    return bool(done)


def display(status: Status, url: str | None, worker_rows: int) -> RenderableType:
    """A status for a terminal, with at most so many workers, those in trouble first."""
    run, progress = status["run"], status["progress"]
    head = Table.grid(padding=(0, 1))
    state = Text(run["state"], style=STATE_STYLES.get(run["state"], "yellow"))
    head.add_row(Text(f"{run['env']}, mode {run['mode']}", style="bold"), state)
    share = min(1.0, progress["env_steps"] / progress["total_env_steps"])
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        ProgressBar(total=1.0, completed=share, width=BAR_WIDTH),
        f"{share:.0%}  {progress['env_steps']:,} of {progress['total_env_steps']:,} env steps",
    )
    parts: list[RenderableType] = [head, bar, Text(_time_in_words(status)), *_numbers(status)]
    parts += [Text(awaited(status) or status["throughput"]["advice"], style="italic")]
    if run["error"] or run["stall"]:
        parts.append(Text(run["error"] or run["stall"], style="bold red"))
    for warning in status["warnings"]:
        parts.append(Text(f"{warning['text']}. {warning['advice']}", style="yellow"))
    parts += _hosts(status, worker_rows)
    parts += _processes(status, worker_rows)
    if url:
        parts.append(Text(url, style="dim"))
    return Group(*parts)


def _hosts(status: Status, rows: int) -> list[RenderableType]:
    """The hosts, if workers are elsewhere: those in trouble first."""
    hosts = sorted(status.get("hosts", []), key=lambda host: host["state"] == "running")
    engine = status.get("engine")
    lines: list[RenderableType] = []
    if engine and engine["restarts"]:
        ends = ", ".join(f"{how} {count}" for how, count in engine["exits"].items())
        lines.append(
            Text(f"engine {engine['state']}  restarted {engine['restarts']} times, after {ends}")
        )
    return lines + [
        Text(
            f"host {host['name']} {host['address']}  {host['workers']} workers  {host['state']}  "
            f"{host['restarts']} restarts  {host['exchanges_per_s']:.0f} exchanges/s  {host['bytes_per_s'] / 1e6:.1f} MB/s  "
            f"round trip {host['round_trip_ms']:.1f} ms",
            style="" if host["state"] == "running" else "yellow",
        )
        for host in hosts[:rows]
    ]


def _numbers(status: Status) -> list[RenderableType]:
    returns, losses = status["returns"], status["losses"]
    throughput, lag = status["throughput"], status["policy_lag"]
    tests = "  ".join(f"{way} {spread(test)}" for way, test in returns["test"].items())
    shown = "  ".join(f"{name} {_short(losses[name])}" for name in ("policy", "value", "entropy"))
    lines = {
        "returns": f"{spread(returns['train'])} (last 100 of {returns['train']['count']:,})  "
        f"test {tests}",
        "speed": f"{throughput['env_steps_per_s']:,.0f} env steps/s  "
        f"{throughput['updates_per_s']:,.1f} updates/s  policy lag {lag['mean']:.1f} "
        f"({lag['min']} … {lag['max']})",
        "losses": f"{shown}  learning rate {_short(losses['learning_rate'])}",
    }
    table = Table.grid(padding=(0, 2))
    for name, text in lines.items():
        table.add_row(Text(name, style="dim"), Text(text))
    return [table]


def _processes(status: Status, most: int) -> list[RenderableType]:
    """A table of the processes, with at most so many workers: those that are not running come first."""
    pairs = list(zip(status["workers"], status["rings"], strict=True))
    if len(pairs) > most:
        pairs.sort(key=lambda pair: (pair[0]["state"] == "running", -pair[0]["restarts"]))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("process", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("env steps/s", "waited", "lag", "CPU", "memory", "ring"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("restarts")
    updater, evaluator = status["updater"], status["evaluator"]
    waited = f"{updater['wait_s']:,.0f} s"
    table.add_row("updater", _state(updater), "", waited, "", *_usage(updater), "", _ends(updater))
    if evaluator["state"] != "off":
        table.add_row(
            "evaluator", _state(evaluator), "", "", "", *_usage(evaluator), "", _ends(evaluator)
        )
    for worker, ring in pairs[:most]:
        lag = worker["policy_lag"]
        table.add_row(
            f"worker {worker['id']}",
            _state(worker),
            f"{worker['env_steps_per_s']:,.0f}",
            f"{worker['wait_s']:,.0f} s",
            "–" if lag is None else f"{lag:.1f}",
            *_usage(worker),
            f"{ring['used']}/{ring['capacity']}",
            _ends(worker),
        )
    hidden = len(pairs) - most
    return [table, Text(f"and {hidden} more workers", style="dim")] if hidden > 0 else [table]


def _state(child: Mapping[str, Any]) -> Text:
    return Text(child["state"], style=STATE_STYLES.get(child["state"], "yellow"))


def _usage(child: Mapping[str, Any]) -> list[str]:
    """CPU, in per cent of a core, and resident memory."""
    cpu, memory = child["cpu_share"], child["rss_bytes"]
    return ["–" if cpu is None else f"{cpu:.0%}", "–" if memory is None else decimal(memory)]


def _ends(child: Mapping[str, Any]) -> str:
    last = f", last {child['last_exit']}" if child["last_exit"] else ""
    return f"{child['restarts']}{last}"


def _time_in_words(status: Status) -> str:
    left = status["progress"]["time_left_s"]
    end = f", {_duration(left)} left" if left is not None else ""
    return f"{_duration(status['run']['uptime_s'])}{end}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _short(number: float | None) -> str:
    return "–" if number is None else f"{number:.4g}"
