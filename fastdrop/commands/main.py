"""The command line: joins the commands, and says in one line what went wrong.

Exit statuses: 0, also where a reader of the output has had enough (``| head``); 1 for a fault of
fastdrop's own; 2 for input that does not serve; 130 when interrupted.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from collections.abc import Sequence

from fastdrop._messages import one_line
from fastdrop.commands import completion, info, masks, predict
from fastdrop.commands.arguments import Parser
from fastdrop.commands.bench import options as bench
from fastdrop.commands.console import Console
from fastdrop.commands.report import options as report
from fastdrop.commands.train import options as train
from fastdrop.training import ranks

__all__ = ["main"]

COMMANDS = (train, predict, report, masks, bench, info, completion)
REPORT = "please report it, with fastdrop --version and FASTDROP_TRACEBACK=1"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit status: 0, 1 for a fault of ours, 2 for bad input (both said on stderr), 130 when
        interrupted.

    Raises
    ------
    SystemExit
        From argparse, with status 2 for wrong options and 0 for ``--help``; from ``bench`` when a
        signal stops it, with 128 and the signal's number.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # files' names
    try:
        status = _run(list(sys.argv[1:] if argv is None else argv))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
        if (after := _flush(status)) != status:
            return after
        raise
    except OSError as error:  # of --help and --version, which speak before there is a command
        status = _lost(error)
    return _flush(status)


def _run(typed: list[str]) -> int:
    parser = _parser()
    arguments = parser.parse_args(typed)
    if arguments.command is None:
        parser.error("expected a command; fastdrop --help lists them")
    arguments.typed = ["fastdrop", *typed]
    arguments.console = Console(arguments.quiet, arguments.json)
    ranks.report = lambda error, rank: _explain(arguments, error, f"rank {rank}: ")
    try:
        arguments.run(arguments)
    except BrokenPipeError:
        return 0
    except (Exception, KeyboardInterrupt) as error:
        return _explain(arguments, error)
    return 0


def _flush(status: int) -> int:
    """Send off what was printed, so that Python's end need not; return the exit status."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        return _lost(error, status)
    return status


def _lost(error: OSError, status: int = 0) -> int:
    """Return the exit status where standard output takes no more; say why, unless all was said."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if status or isinstance(error, BrokenPipeError):
        return status
    Console().error(f"fastdrop: error: standard output: {error.strerror}")
    return 2


def _explain(arguments: argparse.Namespace, error: BaseException, place: str = "") -> int:
    """Say in a line what is wrong, and return the exit status."""
    status, what = 2, f"error: {place}{error}"
    if isinstance(error, KeyboardInterrupt):
        status, what = 130, f"interrupted{arguments.advice(arguments)}"
    elif isinstance(error, MemoryError):
        what = f"error: {place}out of memory: {error}"
    elif not isinstance(error, ValueError | OSError | ImportError | ranks.RankError):
        if os.environ.get("FASTDROP_TRACEBACK"):
            traceback.print_exception(error)
        fault = one_line(f"{type(error).__name__}: {error}", 80)
        status, what = 1, f"a fault of fastdrop's own: {place}{fault}; {REPORT}"
    arguments.console.error(one_line(f"fastdrop {arguments.command}: {what}"))
    return status


def _parser() -> Parser:
    parser = Parser(
        "fastdrop",
        description="Dropout on a CPU.",
        epilog="examples:\n  fastdrop train --out digits\n  fastdrop train --help",
    )
    parser.add_argument("--version", action=info.Version, help="what a report of a fault needs")
    parser.set_defaults(advice=lambda arguments: "", parser=parser, root=parser)
    commands = parser.add_subparsers(metavar="command", dest="command")
    parser.set_defaults(commands=commands)  # for who completes them
    for command in COMMANDS:
        command.add(commands)
    return parser
