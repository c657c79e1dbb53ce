"""python -m aa2c: commands, with flags derived from `Config`. Home of exit codes.

Exit codes of `serve`: 0 finished or stopped on request, 1 the run failed, 2 wrong usage or
configuration, 3 it never came up.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import io
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from aa2c.cli.flags import Resolved, merged, own_flag, parse, resolve
from aa2c.cli.signals import answer
from aa2c.config.config import IMPORTING_OPTIONS, Config, flag
from aa2c.config.toml import preset_names, preset_says, to_toml
from aa2c.errors import Aa2cError, ConfigError, NoRecipeWarning
from aa2c.machine import open_standard_descriptors, raise_file_limit, require_linux
from aa2c.run.event_loop import new_event_loop
from aa2c.version import __version__

if TYPE_CHECKING:
    from aa2c.cli.terminal import Terminal
    from aa2c.orchestrator import Orchestrator

INTERRUPTED = 128 + signal.SIGINT  # as shells report it; serve, which stops cleanly, returns 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    open_standard_descriptors()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an unprintable character must not end a run
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("-h", "--help"):
        print(_usage())
        return 0
    if command == "--version":
        print(f"aa2c {__version__}")
        return 0
    try:
        if command not in COMMANDS:
            raise ConfigError(f"there is no command {command!r}{_nearest_command(command)}")
        require_linux()
        raise_file_limit()
        return COMMANDS[command](rest)
    except Aa2cError as error:
        print(f"aa2c: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough, as in `presets | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _usage() -> str:
    lines = ["usage: python -m aa2c COMMAND [options]", ""]
    lines += [f"  {name:8} {act.__doc__}" for name, act in COMMANDS.items()]
    lines += ["", "python -m aa2c COMMAND --help lists the options of a command."]
    return "\n".join(lines)


def _about(command: str) -> str:
    return COMMANDS[command].__doc__ or ""


def _nearest_command(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    return f"; did you mean {near[0]}?" if near else f"; the commands are {', '.join(COMMANDS)}."


def config(arguments: Sequence[str]) -> int:
    """Print the resolved configuration as TOML."""
    print(to_toml(resolve("config", _about("config"), arguments).config), end="")
    return 0


@dataclass(frozen=True)
class _Nothing:
    """A command without flags."""


def presets(arguments: Sequence[str]) -> int:
    """List the presets, with a note on each."""
    parse("presets", _about("presets"), _Nothing, arguments)
    for name in preset_names():
        print(f"{name:16} {preset_says(name)}")
    return 0


def serve(arguments: Sequence[str]) -> int:
    """Train, and serve the dashboard, /status and /metrics meanwhile."""
    more = [
        own_flag("resume", Path | None, None, "resume a run, or start from one of its checkpoints"),
        own_flag("keep_serving", bool, False, "keep the dashboard up after the run has ended"),
        own_flag("quiet", bool, False, "print only the dashboard's address and errors"),
    ]
    resolved = resolve("serve", _about("serve"), arguments, more)
    warnings.simplefilter("ignore", NoRecipeWarning)  # --preset none was asked for
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_serve(resolved))


async def _serve(resolved: Resolved) -> int:
    stop, save = asyncio.Event(), asyncio.Event()
    answer(asyncio.get_running_loop(), stop, save)
    from aa2c.cli.terminal import Terminal
    from aa2c.orchestrator import Orchestrator  # after the handlers: this import takes a while

    terminal = Terminal(quiet=resolved.more["quiet"])
    orchestrator = Orchestrator(
        resolved.config, http=True, resume=resolved.more["resume"], on_event=terminal.on_event
    )
    async with orchestrator as run:
        terminal.begin(run, resolved.preset)
        stopping = asyncio.create_task(stop.wait())
        ending = asyncio.create_task(run.wait())
        saving = asyncio.create_task(_save_when_told(save, run, terminal))
        try:
            await terminal.show_until(run, {stopping, ending})
            if stop.is_set() and run.state != "stopping":
                terminal.say("stopping: the updater writes a final checkpoint")
        finally:
            stopping.cancel()
            saving.cancel()
            # Stop even if the terminal is gone and showing progress failed.
            await asyncio.gather(stopping, ending, run.stop(), return_exceptions=True)
            terminal.end(run.status())
        if resolved.more["keep_serving"] and not stop.is_set():
            terminal.say(f"{run.state}; still serving {run.url} (Ctrl-C to exit)")
            await stop.wait()
        await run.wait()  # raises if the run failed
    return 0


async def _save_when_told(save: asyncio.Event, run: Orchestrator, terminal: Terminal) -> None:
    """Write a checkpoint on each warning, as soon as there is something to save."""
    while await save.wait():
        save.clear()
        try:
            await run.ready()
            terminal.say(f"checkpoint {await run.controls.checkpoint()}")
        except Aa2cError as error:
            terminal.say(f"no checkpoint: {error}")


@dataclass(frozen=True)
class _Evaluation:
    """Flags of `eval`."""

    run: Annotated[Positional[Path], arg(help="a run, or one of its checkpoints")]
    episodes: Annotated[int, arg(help="whole games to play")] = 30
    greedy: Annotated[bool, arg(help="take the most probable actions")] = False
    sampled: Annotated[bool, arg(help="sample actions; by default both ways are played")] = False
    best: Annotated[bool, arg(help="evaluate the best checkpoint instead of the newest")] = False
    seed: Annotated[int, arg(help="seed of the games and of sampled actions")] = 0
    max_steps: Annotated[
        int, arg(help="cut longer episodes off here, and count them as they are [env steps]")
    ] = Config().eval_max_steps
    video: Annotated[Path | None, arg(help="record the first game to this .mp4 file")] = None
    env: Annotated[str, arg(help="the run's --env, if it imports a module of your own")] = ""
    network: Annotated[str, arg(help="the run's --network, if it is a function of your own")] = ""
    wrapper: Annotated[
        tuple[str, ...], arg(help="each --wrapper of the run that is not of gymnasium.wrappers")
    ] = ()
    vector: Annotated[str, arg(help="the run's --vector")] = ""

    def __post_init__(self) -> None:
        for name, least, most in (
            ("episodes", 1, 2**20), ("max_steps", 1, 2**31), ("seed", 0, 2**31 - 1)
        ):  # fmt: skip
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"{flag(name)} must be in {least} … {most}.")


def evaluate(arguments: Sequence[str]) -> int:
    """Play whole games with a trained policy, and report the returns."""
    flags = parse("eval", _about("eval"), _Evaluation, merged(arguments))
    import torch

    from aa2c.checkpoints.trained import load_policy
    from aa2c.learn.play import play, protocol, summarise

    torch.set_num_threads(1)  # batches are small: more threads would only wait for each other
    code = {name: getattr(flags, name) for name in IMPORTING_OPTIONS}
    policy = load_policy(flags.run, best=flags.best, **code)
    checkpoint, config = policy.checkpoint, policy.checkpoint.config
    env_steps = checkpoint.counts["env_steps"]
    print(f"{checkpoint.path}: {config.env_name} after {env_steps:,} env steps")
    print(protocol(config, flags.seed, flags.max_steps))
    ways = [way for way in ("greedy", "sampled") if getattr(flags, way)] or ["greedy", "sampled"]
    for way in ways:
        episodes = play(
            config,
            policy.network,
            episodes=flags.episodes,
            greedy=way == "greedy",
            seed=flags.seed,
            max_steps=flags.max_steps,
        )
        print(f"{way:8} {summarise(episodes)}", flush=True)
    if flags.video is not None:
        from aa2c.cli.video import record

        greedy = ways[0] == "greedy"
        record(
            config, policy.network, flags.video, greedy=greedy, seed=flags.seed,
            max_steps=flags.max_steps,
        )  # fmt: skip
        print(f"video    {flags.video} ({ways[0]})")
    return 0


@dataclass(frozen=True)
class _Export:
    """Flags of `export`."""

    run: Annotated[Positional[Path], arg(help="a run, or one of its checkpoints")]
    out: Annotated[Positional[Path], arg(help="file to write: .pt2 (torch.export) or .onnx")]
    best: Annotated[bool, arg(help="export the best checkpoint instead of the newest")] = False
    env: Annotated[str, arg(help="the run's --env, if it imports a module of your own")] = ""
    network: Annotated[str, arg(help="the run's --network, if it is a function of your own")] = ""


def export(arguments: Sequence[str]) -> int:
    """Write a trained policy to a file for programs without aa2c."""
    flags = parse("export", _about("export"), _Export, arguments)
    from aa2c.checkpoints.trained import load_policy
    from aa2c.cli.export import export_policy

    policy = load_policy(flags.run, best=flags.best, env=flags.env, network=flags.network)
    print(export_policy(policy, flags.out))
    return 0


@dataclass(frozen=True)
class _Pictures:
    """Flags of `report`."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(help="one run, or several to compare")]
    out: Annotated[
        Path | None,
        arg(help="directory for the report; by default the run's report/, for several ./report"),
    ] = None


def report(arguments: Sequence[str]) -> int:
    """Plot losses and training and test returns of one or several runs, with a summary table."""
    flags = parse("report", _about("report"), _Pictures, arguments)
    from aa2c.report.pictures import draw_report

    for path in draw_report(flags.runs, flags.out):
        print(path)
    return 0


def bench(arguments: Sequence[str]) -> int:
    """Measure each stage of a run on this machine, and how close the whole run comes to them."""
    more = [
        own_flag("rounds", int, 3, "how often to measure everything; medians are reported"),
        own_flag(
            "seconds", float, 3.0, "seconds per stage and round; the whole run gets 4 times that"
        ),
        own_flag("json", bool, False, "print JSON"),
    ]
    resolved = resolve("bench", _about("bench"), arguments, more)
    for name, least in (("rounds", 1), ("seconds", 0.1)):
        if not least <= resolved.more[name] <= 1000:
            raise ConfigError(f"{flag(name)} must be in {least} … 1000.")
    from aa2c.cli.bench.result import run_bench

    result = run_bench(
        resolved.config,
        rounds=resolved.more["rounds"],
        seconds=resolved.more["seconds"],
        say=lambda words: print(words, file=sys.stderr),
    )
    print(json.dumps(result.document(), indent=2) if resolved.more["json"] else result.text())
    return 0


@dataclass(frozen=True)
class _Watched:
    """Flags of `top`."""

    url: Annotated[str, arg(help="the address that serve printed, with or without its token")] = (
        f"http://127.0.0.1:{Config().port}/"
    )
    token: Annotated[
        str, arg(help="the run's token, if reading needs it; by default from AA2C_TOKEN")
    ] = ""


def top(arguments: Sequence[str]) -> int:
    """Watch a run that was started elsewhere."""
    if arguments and not arguments[0].startswith("-"):  # an address, pasted without --url
        arguments = ["--url", *arguments]
    flags = parse("top", _about("top"), _Watched, arguments)
    from aa2c.cli.top import watch_run

    with contextlib.suppress(KeyboardInterrupt):  # the usual way out
        watch_run(flags.url, flags.token or os.environ.get("AA2C_TOKEN", ""))
    return 0


@dataclass(frozen=True)
class _Examination:
    """Flags of `doctor`."""

    json: Annotated[bool, arg(help="print JSON")] = False


def doctor(arguments: Sequence[str]) -> int:
    """Check this machine and the installed packages, and suggest fixes."""
    flags = parse("doctor", _about("doctor"), _Examination, arguments)
    from aa2c.cli.doctor import examine, in_words

    findings = examine()
    print(
        json.dumps([f._asdict() for f in findings], indent=2) if flags.json else in_words(findings)
    )
    return int(any(finding.verdict == "fail" for finding in findings))


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "serve": serve,
    "config": config,
    "eval": evaluate,
    "export": export,
    "report": report,
    "bench": bench,
    "top": top,
    "doctor": doctor,
    "presets": presets,
}
