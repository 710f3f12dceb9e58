"""Callbacks that report: the history, files, the progress bar."""

from __future__ import annotations

import csv
import io
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from tqdm import tqdm

from fastdrop import _html
from fastdrop._checks import check_choice
from fastdrop._messages import about, one_line, shown
from fastdrop._output import of_the_path
from fastdrop.callbacks.base import Callback, Logs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "CSVLogger",
    "EpochLines",
    "History",
    "ProgressBar",
    "format_logs",
    "reports_of",
]


def format_logs(logs: Logs) -> str:
    """Return figures as one line: ``loss: 0.1234 - accuracy: 0.9876``."""
    return " - ".join(
        f"{name}: {value:.4f}" if abs(value) >= 1e-3 or value == 0 else f"{name}: {value:.1e}"
        for name, value in logs.items()
    )


class History(Callback):
    """The figures of every epoch, which `fit` returns.

    Attributes
    ----------
    epoch : list of int
        Numbers of the epochs, counted from 0.
    history : dict of str to list of float
        A list with one figure per epoch for "loss", for every metric and, with validation data, for
        the same names with the prefix ``val_``. Training figures are means over the epoch's
        batches, while the model learns and drops. ``evaluate`` measures the model as it is used.
    """

    epoch: list[int]
    history: dict[str, list[float]]

    def __init__(self) -> None:
        self.epoch, self.history = [], {}

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        self.epoch.append(epoch)
        for name, value in logs.items():
            # What other callbacks have added may be NumPy's numbers, which JSON does not know.
            number = value.item() if isinstance(value, np.generic | np.ndarray) else value
            self.history.setdefault(name, []).append(number)

    def __repr__(self) -> str:
        if not self.__dict__.get("epoch"):
            return super().__repr__()
        last = {name: values[-1] for name, values in self._numbers().items()}
        epochs = "1 epoch" if len(self.epoch) == 1 else f"{len(self.epoch)} epochs"
        return f"<{type(self).__name__} of {epochs}, the last one {format_logs(last)}>"

    def plot(self) -> Figure:
        """Draw loss and metrics over the epochs, training beside validation.

        Returns
        -------
        matplotlib.figure.Figure
            Notebooks show it; ``history.plot().savefig("history.png")`` writes it. It needs no
            display.

        Raises
        ------
        ImportError
            When matplotlib is missing.
        ValueError
            When there is no epoch.
        """
        from fastdrop.callbacks.curves import draw_history

        return draw_history(self.epoch, self._numbers())

    def _repr_html_(self) -> str:
        """Return a table of the figures for notebooks."""
        header = ("", "first", "last", "lowest", "highest", "from epoch to epoch")
        rows = []
        for name, values in self._numbers().items():
            finite = [value for value in values if math.isfinite(value)]
            extremes = []
            for value in (min(finite, default=math.nan), max(finite, default=math.nan)):
                place = f" (epoch {self._epoch_of(values, value)})" if finite else ""
                extremes.append(f"{value:.4g}{place}")
            ends = (f"{values[0]:.4g}", f"{values[-1]:.4g}")
            rows.append((name, *ends, *extremes, _html.curve(values)))
        return _html.table(f"History, epochs: {len(self.epoch)}", header, rows, graphic=5)

    def _numbers(self) -> dict[str, list[float]]:
        """Return the figures that are numbers, as far as there are any of a name."""
        return {
            name: values
            for name, values in self.history.items()
            if values and all(isinstance(value, int | float) for value in values)
        }

    def _epoch_of(self, values: list[float], value: float) -> int:
        """Return the number, from 1, of the epoch with this value; the last epoch has the last."""
        return self.epoch[values.index(value) - len(values)] + 1


class CSVLogger(Callback):
    """Write a line of figures for every epoch to a CSV file.

    Parameters
    ----------
    filename : path
        The file. Its first column is the epoch, counted from 0, and its other columns are the
        figures that the first epoch has.
    separator : str
        The character between cells.
    append : bool
        Whether to append to an existing file, whose columns and lines stay as they are. If its last
        line has no end, the next one still starts on a line of its own.

    Raises
    ------
    ValueError
        When `separator` is not one character, or is a quote or the end of a line. In training, when
        the file is not a CSV file in UTF-8 whose first column is "epoch".
    """

    def __init__(
        self, filename: str | PathLike[str], separator: str = ",", append: bool = False
    ) -> None:
        if not isinstance(separator, str) or len(separator) != 1 or separator in '"\r\n':
            raise ValueError(
                f"separator: expected one character, no quote and no end of line, "
                f"got {shown(separator)}"
            )
        self.filename = Path(filename)
        self.separator = separator
        self.append = append
        self._file: TextIO | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        with self._naming():
            self._open()

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise of_the_path(error, self.filename, "filename") from None

    def _open(self) -> None:
        begun = self.append and self.filename.is_file()
        text, self._columns = self._begun() if begun else ("", [])
        self._end = "\r\n" if "\r\n" in text else "\n"
        self._gap = self._end if text and not text.endswith("\n") else ""
        self._file = self.filename.open("a" if text else "w", newline="", encoding="utf-8")
        self._writer: csv.DictWriter[str] | None = None

    def _begun(self) -> tuple[str, list[str]]:
        """Return the file's text and columns, or nothing if the line of columns is incomplete."""
        try:
            text = self.filename.read_bytes().decode("utf-8-sig")
            file = io.StringIO(text, newline="")
            rows = [*filter(None, csv.reader(file, delimiter=self.separator, strict=True))]
        except (UnicodeDecodeError, csv.Error) as error:
            message = f"expected a CSV file in UTF-8 to append to: {error}"
            raise ValueError(about(self.filename, message)) from error
        columns = rows[0] if rows else []
        if columns and columns[0] != "epoch":
            raise ValueError(
                one_line(
                    "filename: expected a file whose first column is 'epoch', got "
                    f"{self.filename} with {self.separator.join(columns)}"
                )
            )
        cut = len(rows) == 1 and not text.endswith(("\n", "\r"))
        return ("", []) if cut else (text, columns)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        assert self._file is not None
        if self._writer is None:
            self._file.write(self._gap)
            self._writer = csv.DictWriter(
                self._file,
                self._columns or ["epoch", *logs],
                restval="NA",
                extrasaction="ignore",
                delimiter=self.separator,
                lineterminator=self._end,
            )
            if not self._columns:
                self._writer.writeheader()
        with self._naming():
            self._writer.writerow({"epoch": epoch, **logs})
            self._file.flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._file is not None:
            with self._naming():
                self._file.close()


class ProgressBar(Callback):
    """One bar for the whole of `fit`, with the latest figures and the time left.

    Parameters
    ----------
    title : str
        What stands before the bar.
    leave : bool
        Whether the full bar stays on the screen.
    """

    def __init__(self, title: str = "fit", leave: bool = True) -> None:
        self.title, self.leave = title, leave
        self._bar: Any = None

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        epochs, steps = self.params["epochs"], self.params["steps"]
        if self._bar is None:
            there = sys.stderr is not None  # a daemon may have none
            self._interval = 0.1 if there and sys.stderr.isatty() else 10  # a log wants few lines
            self._bar = tqdm(
                total=steps and epochs * steps,
                initial=(steps and epoch * steps) or 0,
                unit="step",
                dynamic_ncols=True,
                mininterval=self._interval,
                disable=not there,
                leave=self.leave,
            )
            self._validation: Logs = {}
            self._due = 0.0
        self._description = f"{self.title}, epoch {epoch + 1}/{epochs}"
        self._last: Logs = {}

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        if time.monotonic() >= self._due:
            self._show(logs, self._validation)
        self._bar.update()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        self._validation = {name: logs[name] for name in logs if name.startswith("val_")}
        self._last = logs
        if time.monotonic() >= self._due:
            self._show(logs)

    def _show(self, logs: Logs, more: Logs | None = None) -> None:
        """Put figures beside the bar. This takes as long as some steps of a small network."""
        start = time.monotonic()
        self._bar.set_description(self._description, refresh=False)
        self._bar.set_postfix({**logs, **(more or {})}, refresh=False)
        end = time.monotonic()  # at most a twentieth of the time
        self._due = end + max(self._interval, 20 * (end - start))

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._bar is not None:
            if self._last:
                self._show(self._last)
            self._bar.close()
            self._bar = None


class EpochLines(Callback):
    """Print one line per epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        seconds = time.perf_counter() - self._start
        print(f"Epoch {epoch + 1}/{self.params['epochs']} - {seconds:.1f}s - {format_logs(logs)}")


def reports_of(verbose: str | int) -> list[Callback]:
    """Return the callbacks that report what the argument `verbose` of `fit` asks for."""
    check_choice("verbose", verbose, "auto", 0, 1, 2)
    if not verbose:
        return []
    return [EpochLines() if verbose == 2 else ProgressBar()]
