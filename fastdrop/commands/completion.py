"""`fastdrop completion`: what a shell needs to complete the command line.

Scripts of shtab, which knows them from the parsers: they answer at once, where argcomplete would
start Python and import NumPy at every press of the key.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from fastdrop.commands.arguments import Commands, Parser, add_command

__all__ = ["add", "run"]

SHELLS = ("bash", "zsh", "fish")


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "completion",
        run,
        "print what completes the command line in a shell",
        "Print a script with which a shell completes commands, options and files: needs shtab.",
        (
            "bash > ~/.local/share/bash-completion/completions/fastdrop",
            "fish > ~/.config/fish/completions/fastdrop.fish",
        ),
    )
    parser.add_argument("shell", choices=SHELLS)


def run(arguments: argparse.Namespace) -> None:
    """Print the script.

    Raises
    ------
    ImportError
        Without shtab.
    """
    try:
        import shtab
    except ImportError as error:
        raise ImportError(
            f"completion needs shtab: pip install 'fastdrop-nn[completion]' ({error})"
        ) from error
    for parser in arguments.commands.choices.values():
        for action in _paths(parser):
            vars(action)["complete"] = shtab.FILE  # where shtab looks for it
    script = shtab.complete(arguments.root, arguments.shell)
    arguments.console.result(script.rstrip(), {"shell": arguments.shell, "script": script})


def _paths(parser: Parser) -> Iterator[argparse.Action]:
    """Give the arguments that are files or folders."""
    return (action for action in parser._actions if action.type is Path)
