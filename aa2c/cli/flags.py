"""From a command line to a configuration: preset, then file, then flags.

Flags derive from the dataclasses of options, so that none is defined twice.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from aa2c.config.config import Config, option_types, require_consent
from aa2c.config.kwargs import Kwargs, read_kwargs
from aa2c.config.modes import FACTS
from aa2c.config.options import GROUPS, help_of
from aa2c.config.toml import load_config, preset_names
from aa2c.config.values import converted
from aa2c.envs.recipes import KINDS, preset_for
from aa2c.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Resolved:
    """The configuration of a command line, the preset it starts from, and the command's own flags."""

    config: Config
    preset: str
    more: Mapping[str, Any]


Flag = tuple[str, Any, Any]  # name, annotated type, dataclass field


def resolve(
    command: str, about: str, arguments: Sequence[str], more: Sequence[Flag] = ()
) -> Resolved:
    """Defaults, then preset, then file, then flags; `more` are the command's own flags.

    Raises `ConfigError`.
    """
    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    before.add_argument("--preset", default="auto")
    before.add_argument("--config", type=Path)
    before.add_argument("--env")
    before.add_argument("--env-kwargs", "--env_kwargs", nargs="*", default=())
    before.add_argument("--mode")
    before.add_argument("--memory")
    before.add_argument("--network")
    before.add_argument("--wrapper", nargs="*")
    before.add_argument("--vector")
    before.add_argument("--resume", type=Path)
    arguments = merged(arguments)
    sources, _ = before.parse_known_args(arguments)
    base, preset = _base(sources)
    values = vars(parse(command, about, _flags(base, more), arguments))
    options = {field.name: values[field.name] for field in dataclasses.fields(Config)}
    return Resolved(Config(**options), preset, {name: values[name] for name, _, _ in more})


_REPEATED = ("--wrapper", "--env-kwargs")


def merged(arguments: Sequence[str]) -> list[str]:
    """`--wrapper a --wrapper b` as `--wrapper a b`: of flags that are repeated the last would count."""
    kept: list[str] = []
    values: dict[str, list[str]] = {}
    into = kept
    for word in arguments:
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        if name in _REPEATED:
            into = values.setdefault(name, [])
            into += [value] if equals else []
        else:
            into = kept if word.startswith("-") else into
            into.append(word)
    return kept + [word for name, words in values.items() for word in (name, *words)]


def parse(command: str, about: str, flags: type[T], arguments: Sequence[str]) -> T:
    """Parse a command's flags into the dataclass. Invalid flags exit the program with 2."""
    return tyro.cli(
        flags,
        prog=f"python -m aa2c {command}",
        description=about,
        args=list(arguments),
    )


def _base(sources: argparse.Namespace) -> tuple[Config, str]:
    """The configuration that flags override, and where it comes from."""
    if sources.resume is not None:
        if sources.preset != "auto" or sources.config is not None:
            raise ConfigError(
                "--resume uses the run's own options: it excludes --preset and --config."
            )
        if not sources.resume.exists():
            raise ConfigError(f"--resume {sources.resume} does not exist: name a run's directory.")
        from aa2c.checkpoints.resume import config_to_resume

        saved = config_to_resume(sources.resume)
        require_consent(saved, vars(sources), sources.resume)
        return saved, "of the run"
    preset = sources.preset
    base = load_config(preset="none" if preset == "auto" else preset, file=sources.config)
    if preset == "auto":
        preset = preset_for(
            sources.mode or base.mode,
            sources.env or base.env,
            {**base.env_kwargs, **_kwargs(sources.env_kwargs)},
            sources.memory or base.memory,
        )
        base = load_config(preset=preset, file=sources.config)
    return base, preset


def _kwargs(words: Sequence[str]) -> Kwargs:
    """Those of the flag; none if it is invalid, which is told once all flags are parsed."""
    try:
        return read_kwargs(words)
    except ValueError:
        return Kwargs()


def _flags(base: Config, more: Sequence[Flag]) -> type[Any]:
    """A dataclass for tyro: every option, with `base` as defaults, its help and its unit."""
    hints = {**option_types(), "mode": Literal[tuple(FACTS)]}
    fields = [
        own_flag(
            "preset",
            str,
            "auto",
            f"auto: the mode's recipe for the kind of task ({', '.join(KINDS)}); none: the bare "
            f"defaults; or one of: {', '.join(preset_names())}",
        ),
        own_flag("config", Path | None, None, "TOML file of options; flags override it"),
        *more,
    ]
    for group in GROUPS:
        for option in dataclasses.fields(group):
            hint, default = hints[option.name], getattr(base, option.name)
            hint = _FLAG_TYPES.get(hint, hint)
            fields.append(own_flag(option.name, hint, default, help_of(option)))
    return dataclasses.make_dataclass("Options", fields)


_KWARGS = PrimitiveConstructorSpec(
    nargs="*",
    metavar="NAME=VALUE",
    instance_from_str=read_kwargs,
    is_instance=lambda value: isinstance(value, Kwargs),
    str_from_instance=Kwargs.words,
)


def _number(kind: type[float]) -> Any:
    """A type that tyro parses as `Config(...)` does: 1e6 is an integer as well."""
    spec = PrimitiveConstructorSpec(
        nargs=1,
        metavar=kind.__name__.upper(),
        instance_from_str=lambda words: converted(words[0], kind),
        is_instance=lambda value: type(value) is kind,
        str_from_instance=lambda value: [str(value)],
    )
    return Annotated[kind, spec]


def _numbers(kind: type[float]) -> Any:
    """A list of them, as one value: the sentence about a bad one is of the whole list."""
    several, name = tuple[kind, ...], kind.__name__.upper()  # type: ignore[valid-type]
    spec: PrimitiveConstructorSpec[Any] = PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"[{name} [{name} ...]]",
        instance_from_str=lambda words: converted(words, several),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda values: [str(value) for value in values],
    )
    return Annotated[several, spec]


_FLAG_TYPES: Mapping[Any, Any] = {
    Kwargs: Annotated[Kwargs, _KWARGS],
    int: _number(int),
    float: _number(float),
    tuple[int, ...]: _numbers(int),
    tuple[float, ...]: _numbers(float),
}


def own_flag(name: str, hint: Any, default: Any, text: str) -> Flag:
    """A flag that is not an option of a run."""
    annotated = Annotated[hint, arg(help=text)]
    return name, annotated, dataclasses.field(default=default)
