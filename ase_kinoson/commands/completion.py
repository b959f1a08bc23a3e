"""``ase-kinoson completion``."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from ase_kinoson.commands.common import clean_errors
from ase_kinoson.errors import KinosonError

SHELLS = ("bash", "zsh", "fish")


class CLICommand:
    """Print the script that lets a shell complete commands, options and files.

    For this session, in bash or zsh; put the line into ~/.bashrc or, after compinit, into ~/.zshrc to keep it:

      source <(ase-kinoson completion bash)
      source <(ase-kinoson completion zsh)

    In fish, once and for all:

      ase-kinoson completion fish > ~/.config/fish/completions/ase-kinoson.fish

    Example:

      ase-kinoson completion bash

    The script itself starts no Python: pressing TAB takes no time. Print it again after an update of the package.
    """

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Add arguments."""
        parser.add_argument(
            "shell", nargs="?", choices=SHELLS, help="which shell (default: that of the variable SHELL, else bash)"
        )

    @staticmethod
    def run(args: Namespace) -> None:
        """Run the command."""
        from ase_kinoson.commands import completion_scripts

        with clean_errors(args):
            print(getattr(completion_scripts, args.shell or _own_shell())(), end="")


def _own_shell() -> str:
    name = os.path.basename(os.environ.get("SHELL") or "bash")
    if name not in SHELLS:
        raise KinosonError(
            f"found the shell {name!r}, for which there is no completion; expected one of {', '.join(SHELLS)}; name "
            "one, as in ase-kinoson completion bash"
        )
    return name
