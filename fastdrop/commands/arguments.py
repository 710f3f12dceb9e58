"""How commands are given: their parsers, what options take, and what may have been meant."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar

from fastdrop._messages import near_miss, one_line, shown

__all__ = [
    "Commands",
    "Parser",
    "add_command",
    "add_out",
    "count",
    "list_of",
    "one_of",
    "positive",
    "probability",
    "rate",
    "seed",
]

N = TypeVar("N", int, float)
T = TypeVar("T")
if TYPE_CHECKING:
    Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
else:
    Commands = Any


class _Help(argparse.HelpFormatter):
    """Wraps what a command is for, and leaves its examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("examples:") else super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, and what may have been meant."""

    def __init__(self, prog: str | None = None, **options: Any) -> None:
        # an abbreviation in a script would mean something else when an option is added
        super().__init__(prog, allow_abbrev=False, formatter_class=_Help, **options)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            found.parser.refuse(rest)
        return found

    def refuse(self, rest: Sequence[str]) -> NoReturn:
        """Refuse what no option and no argument takes."""
        word = next((word for word in rest if word.startswith("-")), rest[0]).partition("=")[0]
        kind = "option" if word.startswith("-") else "argument"
        known = [name for name in self._option_string_actions if name.startswith("--")]
        self.error(f"unknown {kind} {word}{near_miss(word, known)}")

    def error(self, message: str) -> NoReturn:
        text = one_line(f"{self.prog}: error: {message}")
        self.exit(2, f"{text}\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is not None and file is sys.stdout:
            file.write(message)  # where help is lost, that is said
        else:
            super()._print_message(message, file)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, _not_one_of(action.choices, value))


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], None],
    summary: str,
    description: str,
    examples: Sequence[str],
) -> Parser:
    """Add a command to the command line.

    Parameters
    ----------
    commands : Commands
        What there is so far.
    name : str
    run : callable
        Does what the command is for, with its arguments; "console" among them is where it speaks.
    summary : str
        A line for the list of commands.
    description : str
    examples : sequence of str
        Without "fastdrop" and the command's name. At least two.

    Returns
    -------
    Parser
        To add the command's own arguments to.
    """
    lines = "\n".join(
        f"  {' '.join(filter(None, ['fastdrop', name, given]))}" for given in examples
    )
    parser = commands.add_parser(
        name, help=summary, description=description, epilog=f"examples:\n{lines}"
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("--quiet", action="store_true", help="say nothing but results and errors")
    parser.add_argument("--json", action="store_true", help="print results as JSON")
    return parser


def add_out(parser: Parser, more: str = "") -> None:
    """Add the option of the folder that results are written to."""
    parser.add_argument(
        "--out",
        type=_folder,
        default=Path(),
        metavar="DIR",
        help=f"folder for the results, made if missing (the current one){more}",
    )


def _folder(text: str) -> Path:
    if text == "-":
        raise argparse.ArgumentTypeError("expected a folder, got -, standard output")
    return Path(text)


def count(text: str) -> int:
    """Read a number of things."""
    return _number(text, int, lambda value: 1 <= value < 2**31, "a whole number in [1, 2**31)")


def seed(text: str) -> int:
    """Read a seed."""
    return _number(text, int, lambda value: 0 <= value < 2**64, "a whole number in [0, 2**64)")


def probability(text: str) -> float:
    """Read a probability."""
    return _number(text, float, lambda value: 0 <= value <= 1, "a probability in [0, 1]")


def rate(text: str) -> float:
    """Read a probability of dropping that drops some and keeps some."""
    return _number(text, float, lambda value: 0 < value < 1, "a probability between 0 and 1")


def positive(text: str) -> float:
    """Read a number above 0."""
    return _number(text, float, lambda value: 0 < value < math.inf, "a number above 0")


def list_of(kind: Callable[[str], T]) -> Callable[[str], list[T]]:
    """Return what reads several of a kind, with commas between them."""
    return lambda text: [kind(item) for item in text.split(",")]


def one_of(*names: str) -> Callable[[str], str]:
    """Return what reads one of these names, for `list_of`; else argparse's ``choices`` does."""

    def read(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(_not_one_of(names, text))
        return text

    return read


def _not_one_of(names: Iterable[Any], value: object) -> str:
    known = [str(name) for name in names]
    return f"expected one of {', '.join(known)}, got {shown(value)}{near_miss(str(value), known)}"


def _number(text: str, kind: Callable[[str], N], valid: Callable[[N], bool], expected: str) -> N:
    try:
        value = kind(text)
        if valid(value):
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected {expected}, got {shown(text)}")
