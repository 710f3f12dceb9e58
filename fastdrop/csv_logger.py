"""`CSVLogger`: figures of epochs in a file of comma-separated values."""

from __future__ import annotations

import csv
import io
from os import PathLike
from pathlib import Path
from typing import TextIO

from fastdrop._messages import about, one_line
from fastdrop.hooks import Callback, Logs

__all__ = ["CSVLogger"]


class CSVLogger(Callback):
    """Write a line of figures for every epoch to a CSV file.

    Parameters
    ----------
    filename : path
        The first column is the epoch, from 0, the others are the figures of the first epoch.
    separator : str
        Stands between cells.
    append : bool
        Whether an existing file is gone on with: its columns and lines stay as they are. If its
        last line has no end, the next one starts on a line of its own.

    Raises
    ------
    ValueError
        When `separator` is not one character, or a quote or the end of a line, or in training when
        the file is no CSV file in UTF-8 whose first column is "epoch".
    """

    def __init__(
        self, filename: str | PathLike[str], separator: str = ",", append: bool = False
    ) -> None:
        if not isinstance(separator, str) or len(separator) != 1 or separator in '"\r\n':
            raise ValueError(
                f"separator: expected one character, no quote and no end of line, got {separator!r}"
            )
        self.filename = Path(filename)
        self.separator = separator
        self.append = append
        self._file: TextIO | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        begun = self.append and self.filename.is_file()
        text, self._columns = self._begun() if begun else ("", [])
        self._end = "\r\n" if "\r\n" in text else "\n"
        self._gap = self._end if text and not text.endswith("\n") else ""
        self._file = self.filename.open("a" if text else "w", newline="", encoding="utf-8")
        self._writer: csv.DictWriter[str] | None = None

    def _begun(self) -> tuple[str, list[str]]:
        """Return the file's text and columns, nothing if the line of the columns is not whole."""
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
        self._writer.writerow({"epoch": epoch, **logs})
        self._file.flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._file is not None:
            self._file.close()
