"""`completion`: a script that completes commands, flags and the choices of flags in a shell."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args, get_origin

from aa2c.cli.flags import Sources
from aa2c.cli.own_flags import FLAGS, TAKE_OPTIONS
from aa2c.config.config import flag, option_types
from aa2c.config.modes import FACTS
from aa2c.config.options import GROUPS
from aa2c.config.toml import preset_names
from aa2c.errors import ConfigError

_BASH = """\
_aa2c() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words= at=1
    [[ ${{COMP_WORDS[1]}} == -m ]] && at=3
    case $before in
{choices}
    esac
    if [[ -z $words ]]; then
        case ${{COMP_WORDS[at]}} in
{flags}
        esac
        (( COMP_CWORD == at )) && words="{commands}"
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _aa2c aa2c
"""


def script(shell: str) -> str:
    """What the shell evaluates. Raises `ConfigError` for one that is not known."""
    if shell == "bash":
        return _bash()
    if shell == "zsh":
        return f"autoload -U +X bashcompinit && bashcompinit\n{_bash()}"
    if shell == "fish":
        return "\n".join(_fish()) + "\n"
    raise ConfigError("completion needs a shell: give bash, zsh or fish.")


def flags_of(command: str) -> list[str]:
    """All flags of a command."""
    groups = [Sources, FLAGS[command], *GROUPS] if command in TAKE_OPTIONS else [FLAGS[command]]
    items = [item for group in groups for item in dataclasses.fields(group)]
    names = [flag(item.name) for item in items if not item.metadata.get("is_word")]
    return [*names, "--help", *(["--help-all"] if command in TAKE_OPTIONS else [])]


def choices() -> dict[str, list[str]]:
    """The values of the flags that have choices."""
    found = {"--preset": ["auto", "none", *preset_names()], "--mode": list(FACTS)}
    for name, hint in option_types().items():
        if values := _literal(hint):
            found[flag(name)] = values
    return found


def _literal(hint: Any) -> list[str]:
    if get_origin(hint) is tuple:
        return _literal(get_args(hint)[0])
    return [value for value in get_args(hint) if isinstance(value, str)]


def _bash() -> str:
    return _BASH.format(
        choices="\n".join(
            f'        {name}) words="{" ".join(each)}" ;;' for name, each in choices().items()
        ),
        flags="\n".join(
            f'            {command}) words="{" ".join(flags_of(command))}" ;;' for command in FLAGS
        ),
        commands=" ".join(FLAGS),
    )


def _fish() -> list[str]:
    lines = [f"complete -c aa2c -n __fish_use_subcommand -f -a '{' '.join(FLAGS)}'"]
    values = choices()
    for command in FLAGS:
        for name in flags_of(command):
            given = f" -x -a '{' '.join(values[name])}'" if name in values else ""
            lines.append(
                f"complete -c aa2c -n '__fish_seen_subcommand_from {command}' -l {name[2:]}{given}"
            )
    return lines
