"""From a command line to a configuration: preset, then file, then flags.

Flags derive from dataclasses of `option` fields, so that none is defined twice. argparse takes the line
apart and lays out the help; values are converted and held to their bounds as `Config(...)` does.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from aa2c.config.config import Config, codes, flag, option_types, require_consent
from aa2c.config.kwargs import Kwargs, read_kwargs
from aa2c.config.modes import FACTS, require_used
from aa2c.config.option import help_of, option
from aa2c.config.options import GROUPS
from aa2c.config.peers import meant
from aa2c.config.toml import load_config
from aa2c.config.values import broken_bound, converted
from aa2c.envs.recipes import KINDS, preset_for
from aa2c.errors import ConfigError

T = TypeVar("T")
Field = dataclasses.Field[Any]
Groups = Sequence[type[Any]]

WIDEST = 110  # columns of help
LONG = 160  # characters; of a longer help text the short --help has the first clause
HELP = ("-h", "--help", "--help-all")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """Where options come from."""

    preset: str = option(
        "auto", f"auto: the mode's recipe for the kind of task ({', '.join(KINDS)}); none: the bare "
        "defaults; or a name that python -m aa2c presets lists", basic=True,
    )  # fmt: skip
    config: str = option("", "TOML file of options; flags override it", basic=True)


@dataclasses.dataclass(frozen=True)
class Nothing:
    """A command without flags of its own."""


class Resolved(NamedTuple, Generic[T]):
    """The configuration of a command line, the preset it starts from, and the command's own flags."""

    config: Config
    preset: str
    more: T


class Given(NamedTuple):
    """What a command line gives, as it is written, by name; and the word that asks for help, if any."""

    values: dict[str, Any]
    help: str


def word(default: T, help: str) -> T:
    """A field without a flag: a word of the command line, or, of a tuple, all that are left."""
    metadata = {"help": help, "unit": "", "minimum": None, "maximum": None, "is_word": True}
    result: T = dataclasses.field(default=default, metadata=metadata)
    return result


def parse(command: str, about: str, arguments: Sequence[str], flags: type[T]) -> T:
    """The flags of a command that takes no options of a run.

    Raises `ConfigError`. A request for help prints it and ends the program.
    """
    given = take_apart(command, arguments, (flags,))
    if given.help:
        _print_help(command, about, (flags,), given.help)
    return _made(flags, given.values)


def resolve(command: str, about: str, arguments: Sequence[str], more: type[T]) -> Resolved[T]:
    """Defaults, then preset, then file, then flags; `more` are the command's own. Raises as `parse`."""
    groups = (Sources, more, *GROUPS)
    given = take_apart(command, arguments, groups)
    options = {name: given.values[name] for name in option_types() if name in given.values}
    sources, own = _made(Sources, given.values), _made(more, given.values)
    saved, preset = _base(sources, getattr(own, "resume", ""), options)
    file = Path(sources.config) if sources.config else None
    if given.help:
        base = saved or load_config(preset=preset, file=file)
        _print_help(command, about, groups, given.help, base, preset)
    if saved:
        for name in options:
            require_used(name, saved.mode)
        return Resolved(dataclasses.replace(saved, **options), preset, own)
    return Resolved(load_config(preset=preset, file=file, flags=options), preset, own)


def _base(sources: Sources, resume: str, options: Mapping[str, Any]) -> tuple[Config | None, str]:
    """The configuration of the run to be resumed, if there is one, and the preset."""
    if resume:
        if sources.preset != "auto" or sources.config:
            raise ConfigError(
                "--resume uses the run's own options: it excludes --preset and --config."
            )
        if not Path(resume).exists():
            raise ConfigError(f"--resume {resume} does not exist: name a run's directory.")
        from aa2c.checkpoints.resume import config_to_resume

        saved = config_to_resume(Path(resume))
        require_consent(saved, options, resume)
        return saved, "of the run"
    if sources.preset != "auto":
        return None, sources.preset
    base = load_config(file=Path(sources.config) if sources.config else None)
    asked = {name: options.get(name, getattr(base, name)) for name in ("mode", "env", "memory")}
    kwargs = _kwargs(options["env_kwargs"]) if "env_kwargs" in options else base.env_kwargs
    return None, preset_for(**asked, env_kwargs=kwargs)


def _kwargs(words: Sequence[str]) -> Kwargs:
    """Those of the flag; none if it is invalid, which is told once all flags are converted."""
    try:
        return read_kwargs(words)
    except ValueError:
        return Kwargs()


def take_apart(command: str, arguments: Sequence[str], groups: Groups) -> Given:
    """Raises `ConfigError` for what does not exist or has no value, unless help is asked for."""
    arguments = list(map(_dashed, arguments))
    help = next((each for each in arguments if each in HELP), "")
    parser = _parser(command, "", groups)
    try:
        known, others = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        if help:
            return Given({}, help)
        raise ConfigError(_in_words(error)) from None
    values = vars(known)
    if not help and (flags := [each for each in others if each.startswith("-") and each != "--"]):
        raise ConfigError(_unknown(command, flags[0], groups))
    words = [each for each in others if not each.startswith("-")]
    for item in (item for group in groups for item in _fields(group, are_words=True)):
        is_last = isinstance(item.default, tuple)
        if words:
            values[item.name] = words if is_last else words[0]
        words = [] if is_last else words[1:]
    if words and not help:
        hint = "options begin with --, and one without a value is turned off by --no-NAME"
        why = f": {hint}" if GROUPS[0] in groups else ""
        raise ConfigError(f"{command} does not take {words[0]!r}{why}.")
    return Given(values, help)


def _dashed(argument: str) -> str:
    """`--num_envs=4` as `--num-envs=4`."""
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else argument


def _fields(group: type[Any], *, are_words: bool = False) -> list[Field]:
    found = dataclasses.fields(group)
    return [item for item in found if bool(item.metadata.get("is_word")) == are_words]


def _in_words(error: argparse.ArgumentError) -> str:
    name, _, negative = (error.argument_name or "").partition("/")
    if "expected" in error.message:
        return f"{name} needs a value."
    return f"{name} takes no value{f': {negative} turns it off' if negative else ''}."


def _unknown(command: str, argument: str, groups: Groups) -> str:
    name = argument.partition("=")[0]
    bare = name.lstrip("-").removeprefix("no-").replace("-", "_")
    known = [item.name for group in groups for item in _fields(group)]
    near = meant(bare, [*known, "help"], flag)
    return (
        f"there is no {name}{near or f': python -m aa2c {command} --help-all lists what there is.'}"
    )


def _made(flags: type[T], given: Mapping[str, Any]) -> T:
    """The dataclass, with what is given converted. Raises `ConfigError`."""
    hints, values = get_type_hints(flags), {}
    for item in dataclasses.fields(flags):  # type: ignore[arg-type]
        if item.name not in given:
            continue
        name = item.name.upper() if item.metadata.get("is_word") else flag(item.name)
        try:
            value = converted(given[item.name], hints[item.name])
        except ValueError as error:
            raise ConfigError(f"{name} {error}") from None
        if broken := broken_bound(item, value):
            raise ConfigError(f"{name} {broken}")
        values[item.name] = value
    return flags(**values)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """A sentence, as for everything else that is wrong."""
        raise ConfigError(f"{message}.")


def _parser(command: str, about: str, groups: Groups, shown: Shown | None = None) -> _Parser:
    """Of all flags; with the help that is to be shown, if it is to show any."""
    words = [item for group in groups for item in _fields(group, are_words=True)]
    parser = _Parser(
        usage=" ".join(
            ["python -m aa2c", command, *(item.name.upper() for item in words), "[options]"]
        ),
        description=about,
        add_help=False,
        allow_abbrev=False,
        exit_on_error=False,
        formatter_class=lambda prog: argparse.HelpFormatter(
            prog, max_help_position=30, width=min(WIDEST, shutil.get_terminal_size().columns)
        ),
    )
    if shown:
        section = parser.add_argument_group("What it takes")
        for item in words:
            section.add_argument(item.name.upper(), help=item.metadata["help"])
    for group in groups:
        hints = option_types() if group in GROUPS else get_type_hints(group)
        section = parser.add_argument_group((group.__doc__ or "").rstrip(".").partition(":")[0])
        for item in _fields(group):
            text = shown.help_of(item) if shown else argparse.SUPPRESS
            section.add_argument(
                flag(item.name), dest=item.name, default=argparse.SUPPRESS, help=text,
                **_kind_of(item, hints[item.name], has_negative=group in GROUPS),
            )  # fmt: skip
    section = parser.add_argument_group("Help")
    section.add_argument("-h", "--help", action="store_true", default=argparse.SUPPRESS)
    if any(group in GROUPS for group in groups):
        section.add_argument(
            "--help-all", action="store_true", default=argparse.SUPPRESS, help="all options"
        )
    return parser


def _kind_of(item: Field, hint: Any, *, has_negative: bool) -> dict[str, Any]:
    """How argparse reads a flag's values: as text."""
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction if has_negative else "store_true"}
    is_list = hint is Kwargs or get_origin(hint) is tuple
    kind = get_args(hint)[0] if get_origin(hint) is tuple else hint
    choices = tuple(FACTS) if item.name == "mode" else get_args(kind)
    metavar = "|".join(choices) or _METAVARS[kind]
    return {"metavar": metavar} | ({"action": "extend", "nargs": "*"} if is_list else {})


_METAVARS = {int: "N", float: "X", str: "NAME", Kwargs: "NAME=VALUE"}


class Shown(NamedTuple):
    """What a page of help shows: all flags or the basic ones, with the defaults of a configuration."""

    all: bool
    base: Config | None

    def help_of(self, item: Field) -> str:
        """With the default; hidden if it is only for --help-all, or another mode's."""
        is_used = self.base is None or item.name not in option_types() or self.base.uses(item.name)
        if not self.all and not (item.metadata["basic"] and is_used):
            return argparse.SUPPRESS
        default = getattr(self.base, item.name, item.default)
        told = " ".join(map(str, codes(default) if default != {} else ()))
        if isinstance(default, bool):
            told = "on" if default else ""
        notes = [f"default: {told}"] if told else []
        if not is_used:
            modes = [name for name, facts in FACTS.items() if item.name in facts.uses]
            notes.append(f"only --mode {' or '.join(modes)}")
        text = help_of(item)
        if not self.all and len(text) > LONG:
            text = f"{text.partition(';')[0]} …"
        return (text + (f" ({'; '.join(notes)})" if notes else "")).replace("%", "%%")


def _print_help(
    command: str,
    about: str,
    groups: Groups,
    asked: str,
    base: Config | None = None,
    preset: str = "",
) -> NoReturn:
    """Print the flags, with the defaults of the preset, and end the program."""
    if base:
        about += (
            f" The defaults are those of --preset {preset}."
            if preset != "of the run"
            else " The defaults are those of the run that is resumed."
        )
    parser = _parser(
        command, about, groups, Shown(all=asked == "--help-all" or base is None, base=base)
    )
    print(parser.format_help(), end="")
    raise SystemExit(0)
