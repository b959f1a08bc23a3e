"""Scripts that complete ``ase-kinoson`` in bash, zsh and fish, written from what the commands' parsers know."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

from ase_kinoson.cli import COMMANDS

__all__ = ["Argument", "Command", "bash", "commands", "fish", "zsh"]

PROGRAM = "ase-kinoson"
FILES = {"STUDY": "toml", "DIR": "folder", "FILE": "file", "BANDS": "file"}
"""What a value is, by its metavar: a study file, a folder, any file. Other values are not completed."""
GLOBAL = (("-h", "--help"), ("--version",), ("-T", "--traceback"))


@dataclass(frozen=True)
class Argument:
    """An option, or without flags a positional argument.

    Attributes
    ----------
    flags : tuple of str
    about : str
        One line for the reader.
    kind : str
        ``"toml"``, ``"folder"``, ``"file"``, ``"choices"``, ``"text"``, or ``""`` for an option without a value.
    choices : tuple of str
    many : bool
        Whether several values may follow.
    """

    flags: tuple[str, ...]
    about: str
    kind: str = ""
    choices: tuple[str, ...] = ()
    many: bool = False


@dataclass(frozen=True)
class Command:
    """A command with its arguments."""

    name: str
    about: str
    arguments: tuple[Argument, ...]

    @property
    def options(self) -> tuple[Argument, ...]:
        """Those with flags."""
        return tuple(a for a in self.arguments if a.flags)

    @property
    def positionals(self) -> tuple[Argument, ...]:
        """Those without."""
        return tuple(a for a in self.arguments if not a.flags)


def commands() -> tuple[Command, ...]:
    """All commands, ASE's ``help`` included."""
    names = tuple(name for name, _ in COMMANDS)
    found = [Command("help", "show what a command takes", (Argument((), "command", "choices", names),))]
    for name, module in COMMANDS:
        parser = argparse.ArgumentParser()
        kind = import_module(module).CLICommand
        kind.add_arguments(parser)
        about = (kind.__doc__ or "").splitlines()[0].rstrip(".")
        found.append(Command(name, about, tuple(_argument(action) for action in parser._actions)))
    return tuple(found)


def _argument(action: argparse.Action) -> Argument:
    """What completion has to know of an action of argparse."""
    about = (action.help or action.dest).partition(" (default")[0].replace("%%", "%")
    flags = tuple(action.option_strings)
    if flags and action.nargs == 0:
        return Argument(flags, about)
    choices = tuple(map(str, action.choices or ()))
    kind = "choices" if choices else FILES.get(str(action.metavar), "text")
    return Argument(flags, about, kind, choices, action.nargs in ("*", "+"))


# -- bash -----------------------------------------------------------------------------------------------------------

BASH = """\
# bash completion of {program}: source <({program} completion bash)
_ase_kinoson() {{
    local IFS=$'\\n' cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command= what=options words= i
    # bash cuts --option=value in three
    if [[ $cur == '=' ]]; then cur=; prev=${{COMP_WORDS[COMP_CWORD-2]}}
    elif [[ $prev == '=' ]]; then prev=${{COMP_WORDS[COMP_CWORD-2]}}; fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ ${{COMP_WORDS[i]}} != -* ]]; then command=${{COMP_WORDS[i]}}; break; fi
    done
    case $command in
        '') words={names}; if [[ $cur == -* ]]; then words={globals}; fi ;;
{cases}
    esac
    COMPREPLY=()
    case $what in
        options) COMPREPLY=($(compgen -W "$words" -- "$cur")); return ;;
        text) return ;;
        toml) COMPREPLY=($(compgen -f -X '!*.toml' -- "$cur"; compgen -d -- "$cur")) ;;
        folder) COMPREPLY=($(compgen -d -- "$cur")) ;;
        file) COMPREPLY=($(compgen -f -- "$cur")) ;;
    esac
    # slashes after folders, quotes around spaces; bash 3 has no compopt
    compopt -o filenames 2>/dev/null
}}
complete -F _ase_kinoson {program}
"""


def bash() -> str:
    """The script for bash, version 3 (macOS) and later."""
    cases = []
    for command in commands():
        values = [f"                {'|'.join(a.flags)}) {_bash_value(a)} ;;" for a in command.options if a.kind]
        flags = [flag for a in command.options for flag in a.flags]
        first = command.positionals[0] if command.positionals else None
        plain = _bash_value(first) if first else ""
        if len({(a.kind, a.choices) for a in command.positionals}) > 1:  # by place
            plain = _bash_places(command)
        lines = [f"        {command.name})", "            case $prev in", *values, "                *)"]
        lines.append(f"                    if [[ $cur == -* ]]; then words={_ansi(flags)}")
        lines.append(f"                    else {plain or 'words='}; fi ;;")
        cases.append("\n".join([*lines, "            esac ;;"]))
    flat = [flag for flags in GLOBAL for flag in flags]
    names = _ansi([c.name for c in commands()])
    return BASH.format(program=PROGRAM, names=names, globals=_ansi(flat), cases="\n".join(cases))


def _bash_value(argument: Argument) -> str:
    return f"words={_ansi(argument.choices)}" if argument.kind == "choices" else f"what={argument.kind}"


def _bash_places(command: Command) -> str:
    """The first argument after the command, then the others."""
    first, second = command.positionals[:2]
    return f"{_bash_value(second)}; if [[ $prev == {command.name} ]]; then {_bash_value(first)}; fi"


def _ansi(words: tuple[str, ...] | list[str]) -> str:
    """Words on lines of their own, as one word of bash."""
    return "$'" + "\\n".join(words) + "'"


# -- zsh ------------------------------------------------------------------------------------------------------------

ZSH = """\
#compdef {program}
# zsh completion of {program}: source <({program} completion zsh), after compinit
_ase_kinoson() {{
    local context state state_descr line
    typeset -A opt_args
    _arguments -C {globals} '1:command:->command' '*::argument:->argument'
    case $state in
        command)
            local -a names=(
{names}
            )
            _describe command names ;;
        argument)
            case $line[1] in
{cases}
            esac ;;
    esac
}}
# loaded from fpath: complete at once
if [[ $funcstack[1] == _ase_kinoson ]]; then _ase_kinoson "$@"; else compdef _ase_kinoson {program}; fi
"""
_ZSH = {"toml": "_files -g '*.toml'", "folder": "_files -/", "file": "_files", "text": " "}


def zsh() -> str:
    """The script for zsh."""
    cases, names = [], []
    for command in commands():
        names.append(f"                {shlex.quote(f'{command.name}:{command.about}')}")
        rows = [spec for a in command.options for spec in _zsh_options(a)]
        rows += [
            shlex.quote(f"{'*' if a.many else n}:{_plain(a.about)}:{_zsh_value(a)}")
            for n, a in enumerate(command.positionals, 1)
        ]
        cases.append(f"                {command.name}) _arguments {' '.join(rows)} ;;")
    flags = " ".join(shlex.quote(f"{flag}[{text}]") for flag, text in _globals())
    return ZSH.format(program=PROGRAM, globals=flags, names="\n".join(names), cases="\n".join(cases))


def _zsh_options(argument: Argument) -> Iterator[str]:
    for flag in argument.flags:
        value = ""
        if argument.kind:
            value = f":{_plain(argument.about)}:{_zsh_value(argument)}"
            flag += "=" if flag.startswith("--") else ""
        yield shlex.quote(f"{flag}[{_plain(argument.about)}]{value}")


def _zsh_value(argument: Argument) -> str:
    return f"({' '.join(argument.choices)})" if argument.kind == "choices" else _ZSH[argument.kind]


def _plain(text: str) -> str:
    """Without what ends a description in zsh."""
    return text.replace(":", ",").replace("[", "(").replace("]", ")")


def _globals() -> Iterator[tuple[str, str]]:
    about = ("show help", "show the version", "show where an error comes from")
    for flags, text in zip(GLOBAL, about, strict=True):
        for flag in flags:
            yield flag, text


# -- fish -----------------------------------------------------------------------------------------------------------

_FISH = {
    "toml": "-k -x -a '(__fish_complete_suffix .toml)'",
    "folder": "-x -a '(__fish_complete_directories)'",
    "file": "-F",
    "text": "-x",
}


def fish() -> str:
    """The script for fish, version 3 and later."""
    rows = [
        f"# fish completion of {PROGRAM}: {PROGRAM} completion fish > ~/.config/fish/completions/{PROGRAM}.fish",
        f"complete -c {PROGRAM} -f",
    ]
    for flag, text in _globals():
        rows.append(f"complete -c {PROGRAM} -n __fish_use_subcommand {_fish_flag(flag)} -d {_fish_quote(text)}")
    for command in commands():
        rows.append(f"complete -c {PROGRAM} -n __fish_use_subcommand -a {command.name} -d {_fish_quote(command.about)}")
        here = f"complete -c {PROGRAM} -n '__fish_seen_subcommand_from {command.name}'"
        for argument in command.options:
            flags = " ".join(map(_fish_flag, argument.flags))
            rows.append(f"{here} {flags} {_fish_value(argument)} -d {_fish_quote(argument.about)}".replace("  ", " "))
        rows += [f"{here} {_fish_value(a)}" for a in command.positionals]
    return "\n".join(rows) + "\n"


def _fish_flag(flag: str) -> str:
    return f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"


def _fish_value(argument: Argument) -> str:
    if argument.kind == "choices":
        return f"-x -a {_fish_quote(' '.join(argument.choices))}"
    return _FISH.get(argument.kind, "")


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
