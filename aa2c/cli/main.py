"""python -m aa2c: commands, with flags derived from `Config`. Home of exit codes.

Exit codes of `serve`: 0 finished or stopped on request, 1 the run failed, 2 wrong usage or
configuration, 3 it never came up. Other commands that are interrupted: 130.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aa2c.cli import own_flags
from aa2c.cli.flags import Nothing, Resolved, parse, resolve
from aa2c.cli.signals import answer, interrupted
from aa2c.config.toml import preset_names, preset_says, to_toml
from aa2c.config.values import nearest
from aa2c.errors import Aa2cError, ConfigError, NoRecipeWarning
from aa2c.machine import open_standard_descriptors, raise_file_limit, require_linux
from aa2c.run.event_loop import new_event_loop
from aa2c.version import __version__

if TYPE_CHECKING:
    from aa2c.cli.terminal import Terminal
    from aa2c.orchestrator import Orchestrator


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    open_standard_descriptors()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an unprintable character must not end a run
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    said = {"": FIRST_STEPS, "-h": _usage(), "--help": _usage(), "--version": f"aa2c {__version__}"}
    if command in said:
        print(said[command])
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
        return interrupted()
    except BrokenPipeError:  # the reader has seen enough, as in `presets | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


FIRST_STEPS = """\
aa2c trains actor-critic agents on the CPUs of one machine. To begin with:

  python -m aa2c serve                      train CartPole-v1, and print the dashboard's address
  python -m aa2c eval runs/NAME             play whole games with what it has learned
  python -m aa2c serve --env ALE/Pong-v5    train on another Gymnasium id

python -m aa2c --help lists all commands."""


def _usage() -> str:
    lines = ["usage: python -m aa2c COMMAND [options]", ""]
    lines += [f"  {name:10} {act.__doc__}" for name, act in COMMANDS.items()]
    lines += ["", "python -m aa2c COMMAND --help lists the options of a command."]
    return "\n".join(lines)


def _about(command: str) -> str:
    return COMMANDS[command].__doc__ or ""


def _nearest_command(name: str) -> str:
    near = nearest(name, [*COMMANDS, "--help", "--version"], cutoff=0.6)
    return near or f"; the commands are {', '.join(COMMANDS)}."


def config(arguments: Sequence[str]) -> int:
    """Print the resolved configuration as TOML."""
    print(to_toml(resolve("config", _about("config"), arguments, Nothing).config), end="")
    return 0


def presets(arguments: Sequence[str]) -> int:
    """List the presets, with a note on each."""
    parse("presets", _about("presets"), arguments, Nothing)
    for name in preset_names():
        print(f"{name:16} {preset_says(name)}")
    return 0


def serve(arguments: Sequence[str]) -> int:
    """Train, and serve the dashboard, /status and /metrics meanwhile."""
    resolved = resolve("serve", _about("serve"), arguments, own_flags.Serve)
    warnings.simplefilter("ignore", NoRecipeWarning)  # --preset none was asked for
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_serve(resolved))


async def _serve(resolved: Resolved[own_flags.Serve]) -> int:
    stop, save = asyncio.Event(), asyncio.Event()
    answer(asyncio.get_running_loop(), stop, save)
    from aa2c.cli.terminal import Terminal
    from aa2c.orchestrator import Orchestrator  # after the handlers: this import takes a while

    flags = resolved.more
    terminal = Terminal(quiet=flags.quiet)
    run = Orchestrator(
        resolved.config, http=True, resume=flags.resume or None, on_event=terminal.on_event
    )
    if not await _start(run, unless=stop):
        return 0
    try:
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
        if flags.keep_serving and not stop.is_set():
            terminal.say(f"{run.state}; still serving {run.url} (Ctrl-C to exit)")
            await stop.wait()
        await run.wait()  # raises if the run failed
    finally:
        await run.close()
    return 0


async def _start(run: Orchestrator, unless: asyncio.Event) -> bool:
    """Start a run, which may first have a module to import; False if it was stopped meanwhile."""
    starting, stopping = asyncio.create_task(run.start()), asyncio.create_task(unless.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        starting.cancel()
    try:
        await starting
    except asyncio.CancelledError:
        return False
    return True


async def _save_when_told(save: asyncio.Event, run: Orchestrator, terminal: Terminal) -> None:
    """Write a checkpoint on each warning, as soon as there is something to save."""
    while await save.wait():
        save.clear()
        try:
            await run.ready()
            terminal.say(f"checkpoint {await run.controls.checkpoint()}")
        except Aa2cError as error:
            terminal.say(f"no checkpoint: {error}")


def evaluate(arguments: Sequence[str]) -> int:
    """Play whole games with a trained policy, and report the returns."""
    flags = parse("eval", _about("eval"), arguments, own_flags.Evaluation)
    run = _trained_run("eval", flags.run)
    video = Path(flags.video) if flags.video else None
    if video is not None:
        from aa2c.learn.video import check_video, record

        check_video(video)  # before the games are played
    import torch

    from aa2c.checkpoints.trained import load_policy
    from aa2c.learn.play import play, protocol, summarise

    torch.set_num_threads(1)  # batches are small: more threads would only wait for each other
    policy = load_policy(run, best=flags.best, **flags.code())
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
    if video is not None:
        greedy = ways[0] == "greedy"
        record(
            config, policy.network, video, greedy=greedy, seed=flags.seed, max_steps=flags.max_steps
        )
        print(f"video    {video} ({ways[0]})")
    return 0


def _trained_run(command: str, name: str) -> Path:
    """What `eval` and `export` begin with. Raises `ConfigError` if it is not given or not there."""
    if not name:
        raise ConfigError(f"{command} needs a run: give its directory, such as runs/NAME.")
    if not Path(name).exists():
        raise ConfigError(f"{name} does not exist: python -m aa2c runs lists the runs in runs.")
    return Path(name)


def export(arguments: Sequence[str]) -> int:
    """Write a trained policy to a file for programs without aa2c."""
    flags = parse("export", _about("export"), arguments, own_flags.Export)
    run = _trained_run("export", flags.run)
    if not flags.file:
        raise ConfigError("export needs a file to write: give its name, such as policy.onnx.")
    from aa2c.checkpoints.trained import load_policy
    from aa2c.cli.export import export_policy

    policy = load_policy(run, best=flags.best, **flags.code())
    print(export_policy(policy, Path(flags.file)))
    return 0


def report(arguments: Sequence[str]) -> int:
    """Compare runs: curves and tables, also in one HTML file; seeds of a configuration are averaged."""
    flags = parse("report", _about("report"), arguments, own_flags.Report)
    if not flags.runs:
        raise ConfigError("report needs a run, or several: give directories, such as runs/NAME.")
    from aa2c.report.report import draw_report

    for path in draw_report(list(map(Path, flags.runs)), Path(flags.out) if flags.out else None):
        print(path)
    return 0


def bench(arguments: Sequence[str]) -> int:
    """Measure each stage of a run on this machine, and how close the whole run comes to them."""
    resolved = resolve("bench", _about("bench"), arguments, own_flags.Bench)
    flags = resolved.more
    from aa2c.cli.bench.result import run_bench

    result = run_bench(
        resolved.config,
        rounds=flags.rounds,
        seconds=flags.seconds,
        say=lambda words: print(words, file=sys.stderr),
    )
    print(json.dumps(result.document(), indent=2) if flags.json else result.text())
    return 0


def top(arguments: Sequence[str]) -> int:
    """Watch a run that was started elsewhere."""
    flags = parse("top", _about("top"), arguments, own_flags.Top)
    from aa2c.cli.top import watch

    with contextlib.suppress(KeyboardInterrupt):  # the usual way out
        watch(flags.run, flags.url, flags.token or os.environ.get("AA2C_TOKEN", ""))
    return 0


def runs(arguments: Sequence[str]) -> int:
    """List the runs in a directory, newest first."""
    flags = parse("runs", _about("runs"), arguments, own_flags.Runs)
    from aa2c.cli.runs import as_json, as_table
    from aa2c.run.listing import list_runs

    found = list_runs(Path(flags.dir))
    print(as_json(found) if flags.json else as_table(found))
    return 0


def doctor(arguments: Sequence[str]) -> int:
    """Check this machine and the installed packages, and suggest fixes."""
    flags = parse("doctor", _about("doctor"), arguments, own_flags.Doctor)
    from aa2c.cli.doctor import examine, in_words

    findings = examine()
    print(
        json.dumps([f._asdict() for f in findings], indent=2) if flags.json else in_words(findings)
    )
    return int(any(finding.verdict == "fail" for finding in findings))


def completion(arguments: Sequence[str]) -> int:
    """Print a script that completes commands and flags in bash, zsh or fish."""
    flags = parse("completion", _about("completion"), arguments, own_flags.Completion)
    from aa2c.cli.completion import script

    print(script(flags.shell), end="")
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "serve": serve,
    "config": config,
    "eval": evaluate,
    "export": export,
    "report": report,
    "bench": bench,
    "top": top,
    "runs": runs,
    "doctor": doctor,
    "presets": presets,
    "completion": completion,
}
