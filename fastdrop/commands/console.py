"""Where a command speaks: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

__all__ = ["Console"]

BOLD, PLAIN = "\033[1m", "\033[0m"


class Console:
    """The two streams of a command.

    Parameters
    ----------
    quiet : bool
        Whether to say nothing of how far the command is.
    as_json : bool
        Whether results are for a program to read.
    """

    def __init__(self, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet, self.as_json = quiet, as_json

    @property
    def bars(self) -> bool:
        """Whether a bar that moves can be seen: a file or a pipe would be filled with it."""
        return not self.quiet and _is_terminal(sys.stderr)

    def tell(self, line: str) -> None:
        """Say how far the command is, or what it wrote."""
        if not self.quiet:
            self.error(line)

    def error(self, line: str) -> None:
        """Say what went wrong, on standard error if there is one."""
        if sys.stderr is None:
            return
        try:
            print(line, file=sys.stderr, flush=True)
        except OSError:  # nobody listens any longer, which is no reason to stop
            sys.stderr = None

    def result(self, text: str, facts: Any) -> None:
        """Print a result: as text, or with ``--json`` the facts in it.

        Parameters
        ----------
        text : str
        facts : object
            What JSON can hold.
        """
        print(json.dumps(facts, indent=1, allow_nan=False) if self.as_json else text, flush=True)

    def strong(self, text: str) -> str:
        """Set a result's most important words off, where that can be seen and is wanted."""
        if self.as_json or os.environ.get("NO_COLOR") or not _is_terminal(sys.stdout):
            return text
        return f"{BOLD}{text}{PLAIN}"


def _is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a stream, which a daemon may not have, is a terminal that can move back."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
