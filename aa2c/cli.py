"""python -m aa2c: flags derived from `Config`; signals, uvloop and exit codes, only here.

Exit codes of `serve`: 0 finished or stopped on request, 1 the run failed, 2 wrong usage or
configuration, 3 it never came up.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import difflib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro
from tyro.conf import Positional, arg

from aa2c.config import Config, flag
from aa2c.config_file import load_config, preset_names, preset_says, to_toml
from aa2c.errors import Aa2cError, ConfigError
from aa2c.options import GROUPS
from aa2c.version import __version__

T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
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
        return COMMANDS[command](rest)
    except Aa2cError as error:
        print(f"aa2c: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever read the output, as in `presets | head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _usage() -> str:
    lines = ["usage: python -m aa2c COMMAND [options]", ""]
    lines += [f"  {name:8} {act.__doc__}" for name, act in COMMANDS.items()]
    lines += ["", "python -m aa2c COMMAND --help lists the options of a command."]
    return "\n".join(lines)


def _nearest_command(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(COMMANDS)}."


@dataclass(frozen=True)
class _Resolved:
    """The configuration that the command line asks for, how it came about, and the other flags."""

    config: Config
    preset: str
    more: Mapping[str, Any]


Flag = tuple[str, Any, Any]  # name, annotated type, dataclass field


def _resolve(command: str, arguments: Sequence[str], more: Sequence[Flag] = ()) -> _Resolved:
    """Defaults, then preset, then file, then flags; `more` are the command's own flags.

    Raises `ConfigError`.
    """
    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    before.add_argument("--preset", default="auto")
    before.add_argument("--config", type=Path)
    before.add_argument("--env")
    before.add_argument("--mode")
    before.add_argument("--resume", type=Path)
    sources, _ = before.parse_known_args(arguments)
    base, preset = _base(sources)
    values = vars(_parse(command, _flags(base, more), arguments))
    options = {field.name: values[field.name] for field in dataclasses.fields(Config)}
    return _Resolved(Config(**options), preset, {name: values[name] for name, _, _ in more})


def _parse(command: str, flags: type[T], arguments: Sequence[str]) -> T:
    return tyro.cli(
        flags,
        prog=f"python -m aa2c {command}",
        description=COMMANDS[command].__doc__,
        args=list(arguments),
    )


def _base(sources: argparse.Namespace) -> tuple[Config, str]:
    """What the flags go on top of, and where it comes from."""
    if sources.resume is not None:
        if sources.preset != "auto" or sources.config is not None:
            raise ConfigError("--resume brings the run's own options: leave --preset and --config.")
        from aa2c.checkpoint_files import read_checkpoint

        return read_checkpoint(sources.resume, lambda files: files.config), "of the run"
    preset = sources.preset
    base = load_config(preset="none" if preset == "auto" else preset, file=sources.config)
    if preset == "auto":
        preset = _preset_for(sources.mode or base.mode, sources.env or base.env)
        base = load_config(preset=preset, file=sources.config)
    return base, preset


def _preset_for(mode: str, env: str) -> str:
    """The mode's recipe for Atari games or for everything else; none where there is none."""
    kind = "vector"
    if env != Config().env:  # the usual case must not wait for an import
        from aa2c.rl.envs import is_atari

        kind = "atari" if is_atari(env) else "vector"
    preset = f"{mode}/{kind}"
    return preset if preset in preset_names() else "none"


def _flags(base: Config, more: Sequence[Flag]) -> type[Any]:
    """A dataclass for tyro: every option, with `base` as defaults, its help and its unit."""
    hints = get_type_hints(Config)
    fields = [
        _flag("preset", str, "auto", f"auto, none, or one of: {', '.join(preset_names())}"),
        _flag("config", Path | None, None, "TOML file of options; flags override it"),
        *more,
    ]
    for group in GROUPS:
        for option in dataclasses.fields(group):
            unit = f" [{option.metadata['unit']}]" if option.metadata["unit"] else ""
            fields.append(
                _flag(
                    option.name,
                    hints[option.name],
                    getattr(base, option.name),
                    option.metadata["help"] + unit,
                )
            )
    return dataclasses.make_dataclass("Options", fields)


def _flag(name: str, hint: Any, default: Any, text: str) -> Flag:
    annotated = Annotated[hint, arg(help=text)]
    return name, annotated, dataclasses.field(default=default)


def config(arguments: Sequence[str]) -> int:
    """Print the resolved configuration as TOML."""
    print(to_toml(_resolve("config", arguments).config), end="")
    return 0


def presets(_: Sequence[str]) -> int:
    """List the presets, with what the user's document says of each."""
    for name in preset_names():
        print(f"{name:16} {preset_says(name)}")
    return 0


def serve(arguments: Sequence[str]) -> int:
    """Train, and serve the page, /status and /metrics meanwhile."""
    more = [
        _flag("resume", Path | None, None, "go on with this run, from its newest checkpoint"),
        _flag("keep_serving", bool, False, "leave the HTTP endpoint up after the run"),
        _flag("quiet", bool, False, "print only the page's URL and errors"),
    ]
    resolved = _resolve("serve", arguments, more)
    import uvloop  # here, as in _serve, because --help must be instant

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(resolved))


async def _serve(resolved: _Resolved) -> int:
    from aa2c.orchestrator import Orchestrator
    from aa2c.terminal import Terminal

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    terminal = Terminal(quiet=resolved.more["quiet"])
    orchestrator = Orchestrator(
        resolved.config, http=True, resume=resolved.more["resume"], on_event=terminal.on_event
    )
    async with orchestrator as run:
        terminal.begin(run, resolved.preset)
        stopping = asyncio.create_task(stop.wait())
        ending = asyncio.create_task(run.wait())
        try:
            await terminal.show_until(run, {stopping, ending})
            if stop.is_set():
                terminal.say("stopping: the updater writes a last checkpoint")
                await run.stop()
            else:
                await ending
        finally:
            stopping.cancel()
            await asyncio.gather(stopping, ending, return_exceptions=True)
            terminal.end(run)
        if resolved.more["keep_serving"] and not stop.is_set():
            terminal.say(f"finished; still serving {run.url} (Ctrl-C ends it)")
            await stop.wait()
    return 0


@dataclass(frozen=True)
class _Evaluation:
    """What is played, and how."""

    run: Annotated[Positional[Path], arg(help="a run, or one of its checkpoints")]
    episodes: Annotated[int, arg(help="whole games to play")] = 30
    greedy: Annotated[bool, arg(help="take the most probable actions")] = False
    sampled: Annotated[bool, arg(help="sample actions; neither: both ways")] = False
    best: Annotated[bool, arg(help="take the run's best checkpoint, not its newest")] = False
    seed: Annotated[int, arg(help="of the games and of sampling")] = 0
    max_steps: Annotated[
        int, arg(help="a longer episode is cut and counted as it is [env steps]")
    ] = Config().eval_max_steps
    video: Annotated[Path | None, arg(help="also film the first game, to this .mp4 file")] = None

    def __post_init__(self) -> None:
        for name, least, most in (
            ("episodes", 1, 2**20), ("max_steps", 1, 2**31), ("seed", 0, 2**31 - 1)
        ):  # fmt: skip
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"{flag(name)} must be in {least} … {most}.")


def evaluate(arguments: Sequence[str]) -> int:
    """Play whole games with what a run has learned, and tell how they went."""
    flags = _parse("eval", _Evaluation, arguments)
    import torch

    from aa2c.checkpoint import load_policy
    from aa2c.rl.evaluate import play, protocol, summarise

    torch.set_num_threads(1)  # batches are small: more threads would wait for each other
    policy = load_policy(flags.run, best=flags.best)
    checkpoint, config = policy.checkpoint, policy.checkpoint.config
    print(f"{checkpoint.path}: {config.env} after {checkpoint.counts['env_steps']:,} env steps")
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
        from aa2c.video import record

        greedy = ways[0] == "greedy"
        record(
            config, policy.network, flags.video, greedy=greedy, seed=flags.seed,
            max_steps=flags.max_steps,
        )  # fmt: skip
        print(f"video    {flags.video} ({ways[0]})")
    return 0


@dataclass(frozen=True)
class _Pictures:
    """Which runs are drawn."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(help="one run, or several to compare")]
    out: Annotated[
        Path | None,
        arg(help="directory for the pictures; by default the run's report/, ./report for several"),
    ] = None


def report(arguments: Sequence[str]) -> int:
    """Draw loss, training and test returns of one or several runs."""
    flags = _parse("report", _Pictures, arguments)
    from aa2c.report import draw_report

    for path in draw_report(flags.runs, flags.out):
        print(path)
    return 0


def bench(arguments: Sequence[str]) -> int:
    """Measure what this machine can do of a run's stages, and how near the whole run comes."""
    more = [
        _flag("rounds", int, 3, "everything is measured so many times; medians count"),
        _flag("seconds", float, 3.0, "time for each stage in a round; 4 times that for the run"),
        _flag("json", bool, False, "print one JSON document"),
    ]
    resolved = _resolve("bench", arguments, more)
    for name, least in (("rounds", 1), ("seconds", 0.1)):
        if not least <= resolved.more[name] <= 1000:
            raise ConfigError(f"{flag(name)} must be in {least} … 1000.")
    from aa2c.bench.rounds import run_bench

    result = run_bench(
        resolved.config,
        rounds=resolved.more["rounds"],
        seconds=resolved.more["seconds"],
        say=lambda words: print(words, file=sys.stderr),
    )
    print(json.dumps(result.document(), indent=2) if resolved.more["json"] else result.text())
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "serve": serve,
    "config": config,
    "eval": evaluate,
    "report": report,
    "bench": bench,
    "presets": presets,
}
