"""Columns as a network's inputs, and back from JSON.

Numbers are standardised: (number - mean) / deviation, both of the rows to train on. A missing one
is 0 then, the mean; where the rows to train on lacked some, a flag, 0 or 1, is beside it. Of words
each has a place that is 1 where it stands; one more place is for words that are rare or unseen, and
one for missing ones where the rows to train on lacked some.

Rows lie in memory as numbers and as codes of words, a byte each. `EncodedRows` makes of them the
rows that a network takes, batch by batch: those of all rows would be many times the table.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from fastdrop._checks import check_flag, check_number, lookup
from fastdrop._messages import shown
from fastdrop.layers import Array
from fastdrop.tables.kinds import ROUNDING, TYPES, WORDS, Words, floats, words

__all__ = ["EncodedRows", "Encoding", "NumberColumn", "WordColumn"]

MOST_PLACES = 254  # of words of a column; codes are bytes, and two more places may be needed
RARE = 0.001  # a word that a smaller share of the rows has
RARE_ROWS = 2  # or fewer rows
LONGEST = 200  # characters of a word: longer ones are texts, which nobody repeats

NUMBERS = ("number", "flag", "date", "time")


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers.

    Attributes
    ----------
    name : str
    kind : {"number", "flag", "date", "time"}
    mean, deviation : float
        Of the rows to train on; of dates in days since 1970, of times in seconds.
    flag : bool
        Whether a flag beside it says that it is missing.
    reads : str
        Name of the type that it is read as, see `fastdrop.tables.kinds.TYPES`.
    """

    form: ClassVar = "numbers"
    name: str
    kind: str
    mean: float
    deviation: float
    flag: bool
    reads: str

    @classmethod
    def fitted(cls, name: str, kind: str, values: Array, reads: str) -> NumberColumn | None:
        """Return the column that these values make, those to train on; None if all are the same."""
        present = values[~np.isnan(values)]
        flag = len(present) < len(values)
        scale = float(np.abs(present).max(initial=0.0)) or 1.0  # squares are in range then
        scaled = present / scale
        if not len(present) or np.ptp(scaled) <= ROUNDING:
            return None
        mean, deviation = float(scaled.mean()) * scale, float(scaled.std()) * scale
        return cls(name, kind, mean, max(deviation, np.finfo(float).tiny), flag, reads)

    @property
    def width(self) -> int:
        return 1 + self.flag

    @property
    def type(self) -> pa.DataType:
        return TYPES[self.reads]

    @property
    def done(self) -> str:
        """What is done to the column, for people."""
        unit = {"date": ", in days", "time": ", in seconds"}.get(self.kind, "")
        filled = f", the mean where missing{' and a flag' if self.flag else ''}"
        return f"standardised{unit}{filled if self.flag else ''}"

    def standardised(self, values: Array) -> Array:
        """Return float32, with 0 for what is missing.

        Raises
        ------
        ValueError
            When float32 does not hold a number.
        """
        halves = (values / 2 - self.mean / 2) / (self.deviation / 2)  # no difference overflows
        if np.fmax.reduce(np.abs(halves), initial=0) > np.finfo(np.float32).max:  # without NaN
            worst = values[int(np.nanargmax(np.abs(halves)))]
            raise ValueError(
                f"column {shown(self.name)}: expected numbers about as large as those to train "
                f"on, got {worst:g}"
            )
        standardised = halves.astype(np.float32)
        standardised[np.isnan(values)] = 0
        return standardised

    def told(self, numbers: Array) -> str:
        """Return what stood in a cell that has become a number, and a flag where there are some."""
        if self.flag and numbers[1]:
            return "missing"
        value = float(numbers[0]) * self.deviation + self.mean
        if self.kind == "flag":
            return str(value > 0.5).lower()
        if self.kind == "date":
            # float32 may not hold the seconds
            exact = self.deviation * 86400 * np.finfo(np.float32).eps
            seconds = next((step for step in (1, 60) if 4 * exact < step), 86400)
            date = np.datetime64(round(value * 86400 / seconds) * seconds, "s")
            return str(date).removesuffix("T00:00:00")
        return f"{value:.6g}"

    def check(self) -> None:
        """Refuse what no column has, in a file."""
        lookup("kind", self.kind, dict(zip(NUMBERS, NUMBERS)))
        check_number("mean", abs(self.mean))
        check_number("deviation", self.deviation, above_zero=True)
        lookup("reads", self.reads, TYPES)
        check_flag("flag", self.flag)


@dataclass(frozen=True)
class WordColumn:
    """A column of words.

    Attributes
    ----------
    name : str
    words : tuple of str
        Those that have a place.
    missing : bool
        Whether missing ones have a place.
    rare : int
        How many different words are in the place of the rare ones; 0 where none is there, and a
        network does not learn of it.
    """

    form: ClassVar = "words"
    name: str
    words: tuple[str, ...]
    missing: bool
    rare: int

    @classmethod
    def fitted(cls, name: str, values: Words, rows: Array) -> WordColumn | None:
        """Return the column that these rows' words make; None if all are the same."""
        counts = values.counts(rows)
        present = int(counts.sum())
        seen = int((counts > 0).sum())
        missing = present < len(rows)
        if seen + missing < 2:
            return None
        least = max(RARE_ROWS, RARE * len(rows))
        often = [i for i in np.argsort(-counts, kind="stable") if counts[i] >= least]
        kept = [values.distinct[i] for i in often if len(values.distinct[i]) <= LONGEST]
        kept = sorted(kept[:MOST_PLACES])
        return cls(name, tuple(kept), missing, seen - len(kept))

    @property
    def width(self) -> int:
        return len(self.words) + 1 + self.missing

    @property
    def type(self) -> pa.DataType:
        return WORDS

    @property
    def done(self) -> str:
        """What is done to the column, for people."""
        rare = f"; {self.rare} rare ones share a place" if self.rare else ""
        missing = "; missing ones have a place" if self.missing else ""
        return f"one-hot, {len(self.words)} words{rare}{missing}"

    def told(self, places: Array) -> str:
        """Return what stood in a cell that has become a place of its own."""
        place = int(places.argmax())
        return [*self.words, "a rare word", "missing"][place]

    def codes(self, values: Words) -> Array:
        """Return the number of each row's place, as bytes."""
        other = len(self.words)
        places = np.full(len(values.distinct) + 1, other, np.uint8)
        index = self._index
        places[:-1] = [index.get(word, other) for word in values.distinct]
        places[-1] = other + self.missing  # -1: no word
        return places[values.codes]

    @cached_property
    def _index(self) -> dict[str, int]:
        return {word: place for place, word in enumerate(self.words)}

    def check(self) -> None:
        """Refuse what no column has, in a file."""
        unique = len(set(self.words)) == len(self.words) <= MOST_PLACES
        if not unique or not all(isinstance(word, str) for word in self.words):
            raise ValueError(f"{self.name}: expected different words, at most {MOST_PLACES}")
        if not isinstance(self.missing, bool) or not isinstance(self.rare, int):
            raise ValueError(f"{self.name}: expected missing and rare as a flag and a number")


Column = NumberColumn | WordColumn
COLUMNS = {cls.form: cls for cls in (NumberColumn, WordColumn)}


class Encoding:
    """What is done to a table's columns.

    Parameters
    ----------
    columns : sequence of NumberColumn or WordColumn
    missing : {"fill", "error"}
        Whether what is missing is filled or refused.

    Attributes
    ----------
    types : dict of str to pyarrow.DataType
        What each column is to be read as.
    width : int
        Inputs of a network.
    """

    def __init__(self, columns: Iterable[Column], missing: str) -> None:
        self.columns = tuple(columns)
        self.missing = missing
        self.numbers = [each for each in self.columns if isinstance(each, NumberColumn)]
        self.words = [each for each in self.columns if isinstance(each, WordColumn)]
        self.types = {each.name: each.type for each in self.columns}
        self.width = sum(each.width for each in self.columns)
        self.flags = sum(each.flag for each in self.numbers)
        widths = [each.width for each in self.words]
        begin = len(self.numbers) + self.flags
        self.offsets = begin + np.cumsum([0, *widths])[: len(widths)]

    def encoded(self, block: pa.RecordBatch, before: int = 0) -> EncodedRows:
        """Return the rows of a block that has the columns of `types`.

        Parameters
        ----------
        block : pyarrow.RecordBatch
        before : int
            How many rows there were in the blocks before it, for messages.

        Raises
        ------
        ValueError
            When a number is not finite, or missing and not to be filled.
        """
        values: dict[str, Array | Words] = {}
        for column in self.columns:
            read = block.column(column.name)
            if isinstance(column, NumberColumn):
                rows = range(before + 1, before + 1 + block.num_rows)
                values[column.name] = floats(column.name, read, rows)
            else:
                values[column.name] = words(read)
        return self.rows(values, block.num_rows)

    def rows(self, values: dict[str, Array | Words], count: int) -> EncodedRows:
        """Return the rows of columns that have been read, which are taken out of `values`."""
        numbers = np.empty((count, len(self.numbers) + self.flags), np.float32)
        flag = len(self.numbers)
        for place, column in enumerate(self.numbers):
            each: Any = values.pop(column.name)
            lacking = np.isnan(each)
            self._check_missing(column.name, lacking)
            numbers[:, place] = column.standardised(each)
            if column.flag:
                numbers[:, flag] = lacking
                flag += 1
        codes = np.empty((count, len(self.words)), np.uint8)
        for place, word_column in enumerate(self.words):
            each = values.pop(word_column.name)
            self._check_missing(word_column.name, each.codes < 0)
            codes[:, place] = word_column.codes(each)
        return EncodedRows(self.width, self.offsets, numbers, codes)

    def untrained(self) -> Array:
        """Return the inputs that no row to train on has: the places of rare words where none is."""
        return np.array(
            [
                offset + len(column.words)
                for offset, column in zip(self.offsets, self.words)
                if not column.rare
            ],
            np.intp,
        )

    def places(self) -> list[list[int]]:
        """Return for each column the inputs of a network that it becomes."""
        flag = itertools.count(len(self.numbers))
        by_name = {
            each.name: [place, next(flag)] if each.flag else [place]
            for place, each in enumerate(self.numbers)
        }
        for offset, column in zip(self.offsets.tolist(), self.words):
            by_name[column.name] = [*range(offset, offset + column.width)]
        return [by_name[each.name] for each in self.columns]

    def cells(self, row: Array) -> list[str]:
        """Return what stood in a row's columns, as people read it, up to float32's rounding.

        Parameters
        ----------
        row : ndarray, (width,)
            What a network is given.
        """
        return [
            column.told(row[places])
            for column, places in zip(self.columns, self.places(), strict=True)
        ]

    def _check_missing(self, name: str, lacking: Array) -> None:
        if self.missing == "error" and lacking.any():
            raise ValueError(
                f"column {shown(name)}: expected a value in every row, as missing is 'error', "
                f"got {int(lacking.sum())} without"
            )

    def config(self) -> dict[str, Any]:
        """Return what `from_config` makes an equal encoding of."""
        columns = [{"form": each.form, **asdict(each)} for each in self.columns]
        return {"columns": columns, "missing": self.missing}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Encoding:
        """Make an encoding of what `config` returned."""
        lookup("missing", config["missing"], dict(zip(("fill", "error"), ("fill", "error"))))
        columns = []
        for each in config["columns"]:
            facts: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in each.items()
                if name != "form"
            }
            column = lookup("form", each["form"], COLUMNS)(**facts)
            if not isinstance(column.name, str):
                raise ValueError(f"name: expected text, got {shown(column.name)}")
            column.check()
            columns.append(column)
        encoding = cls(columns, config["missing"])
        if len(encoding.types) < len(columns) or not columns:
            raise ValueError("columns: expected one or more of different names")
        return encoding


class EncodedRows:
    """Rows as a network takes them, made when they are asked for; like an array on disk.

    Parameters
    ----------
    width : int
    offsets : sequence of int
        Where the places of each column of words begin.
    numbers : ndarray of float32, (rows, numbers and flags)
    codes : ndarray of uint8, (rows, columns of words)
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self, width: int, offsets: Sequence[int] | Array, numbers: Array, codes: Array
    ) -> None:
        self.numbers, self.codes = numbers, codes
        self._offsets = np.asarray(offsets, np.intp)
        self.shape = (len(numbers), width)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Array:
        numbers, codes = self.numbers[rows], self.codes[rows]
        encoded = np.zeros((len(numbers), self.shape[1]), np.float32)
        encoded[:, : numbers.shape[1]] = numbers
        places = codes + self._offsets
        places += np.arange(0, encoded.size, self.shape[1])[:, np.newaxis]
        encoded.reshape(-1)[places] = 1
        return encoded

    def part(self, rows: Array | slice) -> EncodedRows:
        """Return some rows."""
        return EncodedRows(self.shape[1], self._offsets, self.numbers[rows], self.codes[rows])

    def followed_by(self, others: EncodedRows) -> EncodedRows:
        """Return these rows and others of the same columns."""
        numbers = np.concatenate([self.numbers, others.numbers])
        codes = np.concatenate([self.codes, others.codes])
        return EncodedRows(self.shape[1], self._offsets, numbers, codes)
