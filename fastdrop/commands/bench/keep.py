"""Benchmarks that keep what they have measured: whoever stops one gets a table of what there is."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeAlias, TypeVar

from tqdm import tqdm

from fastdrop._output import replace_file
from fastdrop.commands.console import Console

__all__ = ["ENDS", "keep"]

T = TypeVar("T")
Files: TypeAlias = "Callable[[str], Mapping[str, str | bytes]]"

FIRST = 75.0  # seconds until a table is printed, whole or not: less than two minutes with a step
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def keep(
    steps: Sequence[tuple[str, T]],
    rounds: int,
    measure: Callable[[T, int], object],
    files: Files,
    out: Path | None = None,
    failures: Mapping[str, str] | None = None,
    console: Console | None = None,
) -> str | None:
    """Measure round by round; write and print what there is, also when something ends that early.

    Files are written after each round; the table is printed after the first one, and before it is
    over where it takes more than FIRST seconds. Both are done at the end, whatever brings it about.

    Parameters
    ----------
    steps : sequence of (str, object)
        Steps of each round, each behind what is missing without it, in words.
    rounds : int
        How often all steps are done.
    measure : callable
        Measures a step, in a round: 1, 2, ...
    files : callable
        From what is missing, in words, to the contents of files by name; the first is the table,
        at whose end these words are put. None while there is nothing.
    out : Path, optional
        The folder; without one nothing is written.
    failures : mapping of str to str, optional
        Who has failed, and why; it may grow while measuring.
    console : Console, optional
        Where the last table is a result, and others are news.

    Returns
    -------
    str or None
        The failures, in words, if any.

    Raises
    ------
    SystemExit
        After SIGINT, SIGTERM or SIGHUP, with the status that shells give: 128 and its number.
    """
    console = console or Console()
    report = _Report(steps, rounds, files, out, {} if failures is None else failures, console)
    late = time.monotonic() + FIRST
    with _signals_raise() as ignore:
        reason = ""
        try:
            with _bar(rounds * len(steps), console) as bar:
                for number in range(1, rounds + 1):
                    for _, step in steps:
                        measure(step, number)
                        report.done += 1
                        bar.update()
                        if number == 1 and time.monotonic() > late:
                            report.update(show=True)
                            late = math.inf
                    report.update(show=number == 1)
        except BaseException as error:
            reason = _reason(error)
            raise
        finally:
            ignore()
            report.finish(reason)
    return report.failed() or None


class _Report:
    """What is written and printed."""

    def __init__(
        self,
        steps: Sequence[tuple[str, Any]],
        rounds: int,
        files: Files,
        out: Path | None,
        failures: Mapping[str, str],
        console: Console,
    ) -> None:
        self._names, self._rounds = [name for name, _ in steps], rounds
        self._files, self._out, self._failures = files, out, failures
        self._console = console
        self.done = 0

    def missing(self, reason: str) -> str:
        """What failed, and what was not done."""
        number = self.done // len(self._names) + 1
        left = [] if number > 1 else list(dict.fromkeys(self._names[self.done :]))
        number = max(number, 2)
        if number == self._rounds:
            left.append(f"round {number}")
        elif number < self._rounds:
            left.append(f"rounds {number} to {self._rounds}")
        words = f"{', '.join(left)} ({reason})" if left else ""
        return "; ".join(filter(None, [self.failed(), words]))

    def failed(self) -> str:
        return "; ".join(f"{who}: {why}" for who, why in self._failures.items())

    def update(self, show: bool) -> None:
        """Where that is not the end, write the files, and print the table if asked to."""
        if self.done == self._rounds * len(self._names):
            return
        table, *_ = self._write("still to come")
        if table and show:
            with tqdm.external_write_mode(sys.stderr):
                self._console.tell(table)

    def finish(self, reason: str) -> None:
        """Write the files, print the table and where they are."""
        table, paths, facts = self._write(reason)
        if not table:
            self._console.error(f"nothing was measured: {reason or self.failed()}")
            return
        self._console.result(table, facts)
        for path in paths:
            self._console.tell(f"written: {path}")

    def _write(self, reason: str) -> tuple[str, list[Path], object]:
        """Return the table, the files that were written, and what is in that of JSON."""
        missing = self.missing(reason)
        contents = dict(self._files(missing))
        if not contents:
            return "", [], None
        name, table = next(iter(contents.items()))
        table = f"{table!s}\n\nMissing: {missing}." if missing else str(table)
        contents[name] = f"{table}\n"
        facts = [json.loads(text) for name, text in contents.items() if name.endswith(".json")]
        paths = [] if self._out is None else [self._out / name for name in contents]
        for path, content in zip(paths, contents.values()):
            replace_file(path, content if isinstance(content, bytes) else content.encode())
        return table, paths, facts[0] if facts else None


def _reason(error: BaseException) -> str:
    if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code > 128:
        return f"stopped by {signal.Signals(error.code - 128).name}"
    return f"{type(error).__name__} {error}".strip()


@contextmanager
def _signals_raise() -> Iterator[Callable[[], None]]:
    """The first signal to end raises an exception in the block; returns what ignores all others."""
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in ENDS}
    ours = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    def ignore() -> None:
        for number in ours:
            signal.signal(number, signal.SIG_IGN)

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        ignore()  # some senders do it twice
        raise SystemExit(128 + number)

    for number in ours:
        signal.signal(number, stop)
    try:
        yield ignore
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _bar(total: int, console: Console) -> tqdm[NoReturn]:
    return tqdm(total=total, dynamic_ncols=True, disable=not console.bars)
