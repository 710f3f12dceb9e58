"""Messages of one printable line, also about what is wrong with a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from os import PathLike

from fastdrop import _namesake

_namesake.require_ours()  # here as well, because some modules import this one without _checks

__all__ = ["NotFiniteError", "about", "near_miss", "one_line", "one_line_about", "shown"]

LINE = 200  # characters of a message
COMMAND = 24  # characters that the command line puts in front: "fastdrop train: error: "
NAME = 100  # characters of a file's name, at most
VALUE = 60  # characters of a value that a user has passed, at most


class NotFiniteError(ValueError):
    """Weights with NaN or infinity, which would replace a file of finite weights."""


def one_line(text: object, length: int = LINE) -> str:
    """Return `text` as a printable line. A line that is too long loses its middle."""
    said = str(text)
    if len(said) > 2 * length:
        said = said[:length] + said[-length:]
    line = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in " ".join(said.split())
    )
    if len(line) <= length:
        return line
    end = len(line) - line.rfind(", got ")  # what came is at the end
    if end > length // 2:
        end = length // 4
    return f"{line[: length - 5 - end]} ... {line[-end:]}"


def shown(value: object, length: int = VALUE) -> str:
    """Return `value` as a message shows it: its repr in one line, which may lose its middle."""
    try:
        return one_line(repr(value), length)
    except Exception:  # such as an integer of more digits than Python writes
        return f"a value of type {type(value).__name__}"


def about(path: str | PathLike[str], text: object) -> str:
    """Return `text` about a file as one line, which names the file by the end of its path."""
    name = one_line(path, 4096)
    name = name if len(name) <= NAME else f"...{name[3 - NAME :]}"
    return f"{name}: {one_line(text, LINE - COMMAND - 2 - len(name))}"


@contextmanager
def one_line_about(path: str | PathLike[str], *others: type[Exception]) -> Iterator[None]:
    """Turn any exception but `others` into a ValueError of one line that names the file.

    The exception can be anything, because a file may call for an object of a class of the user's.
    """
    try:
        yield
    except others:
        raise
    except Exception as error:
        text = str(error) if type(error) is ValueError else ""
        name = type(error).__name__
        text = text or f"expected a file that fastdrop has saved, got {name}: {error}"
        raise ValueError(about(path, text)) from (None if text == str(error) else error)


def near_miss(word: str, known: Iterable[str]) -> str:
    """Return what to say behind "got" when a known word may have been meant; else nothing."""
    names = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), names, 1)
    return f"; did you mean {names[near[0]]}?" if near else ""
