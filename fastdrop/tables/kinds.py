"""What a column holds, and whether a network can use it.

Kinds that are used: "number", "flag" (true and false), "date" (a date, or a date and a time),
"time" (of a day), "words". What is of no use is left out and told: constant columns, those that
number or name the rows, dates that are written in another form than 2020-12-31. What could be
meant in two ways is refused: numbers and words in one column, decimal commas.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastdrop._messages import shown
from fastdrop.layers import Array
from fastdrop.tables.text import WORDS

__all__ = [
    "ROUNDING",
    "TYPES",
    "WORDS",
    "Examined",
    "Words",
    "check_one_kind",
    "examined",
    "floats",
    "kind_of",
    "read_as",
    "words",
]

ID_LEAST = 20  # rows: in fewer of them numbers in a row, or words that all differ, mean nothing
ID_NAME = re.compile(r"(^|[_\W])(id|uuid|guid|index|rownum|nr|no)$", re.IGNORECASE)
MOSTLY = 0.9  # a share of the cells that makes the others mistakes
NEARLY_ALL = 0.99  # a share of one value that makes a column near-constant
FEW_NUMBERS = 10  # so many different numbers may be names among other words: "1st", "2", "3a"
ROUNDING = 1e-12  # how far numbers may be apart, beside the largest, that only rounding made differ

NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
COMMA = r"^[+-]?[0-9]+([.'  ][0-9]{3})*,[0-9]+$"
ISO_DATE = r"^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([T ].*)?$"
OTHER_DATE = r"^([0-9]{1,2}[./-][0-9]{1,2}[./-][0-9]{2,4}|[0-9]{4}[./][0-9]{1,2}[./][0-9]{1,2})"

DAY = 86_400_000_000  # microseconds

TYPES = {
    str(dtype): dtype
    for dtype in (
        *(pa.float64(), pa.bool_(), pa.time32("s")),
        *(pa.timestamp(unit, zone) for unit in ("us", "ns") for zone in (None, "UTC")),
    )
}
_BY_KIND = {"number": "double", "flag": "bool", "time": "time32[s]"}


@dataclass(frozen=True)
class Examined:
    """What a column holds.

    Attributes
    ----------
    kind : str
        See the module.
    left_out : str
        Why it cannot be used; empty where it can.
    note : str
        What else is to be told.
    """

    kind: str
    left_out: str = ""
    note: str = ""


@dataclass(frozen=True)
class Words:
    """A column of words.

    Attributes
    ----------
    distinct : list of str
        Without blanks around them.
    codes : ndarray of int32, (rows,)
        Their numbers; -1 where there is none.
    """

    distinct: list[str]
    codes: Array

    def counts(self, rows: Array | None = None) -> Array:
        """Return how often each word is there, among some rows or all."""
        codes = self.codes if rows is None else self.codes[rows]
        return np.bincount(codes[codes >= 0], minlength=len(self.distinct))

    def present(self) -> Words:
        """Return the same column, without words that no row has."""
        there = self.counts() > 0
        numbers = np.append(np.where(there, np.cumsum(there) - 1, -1), -1).astype(np.int32)
        return Words([w for w, each in zip(self.distinct, there) if each], numbers[self.codes])


def kind_of(name: str, dtype: pa.DataType) -> str:
    """Return the kind of a column of this type.

    Raises
    ------
    ValueError
        When it has none.
    """
    is_a = pa.types
    if is_a.is_boolean(dtype):
        return "flag"
    if is_a.is_integer(dtype) or is_a.is_floating(dtype) or is_a.is_decimal(dtype):
        return "number"
    if is_a.is_null(dtype):
        return "number"
    if is_a.is_date(dtype) or is_a.is_timestamp(dtype):
        return "date"
    if is_a.is_time(dtype):
        return "time"
    if is_a.is_dictionary(dtype) and is_a.is_string(dtype.value_type):
        return "words"
    raise ValueError(f"column {shown(name)}: expected numbers, words or dates, got {dtype}")


def read_as(kind: str, dtype: pa.DataType) -> str:
    """Return the name in `TYPES` of what a column of this kind is read as when rows come again."""
    if kind != "date":
        return _BY_KIND[kind]
    unit = "ns" if getattr(dtype, "unit", "") == "ns" else "us"  # ns: from 1678 to 2262 only
    return f"timestamp[{unit}{', tz=UTC' if getattr(dtype, 'tz', None) else ''}]"


def floats(name: str, column: Any, rows: Sequence[int] | Array | None = None) -> Array:
    """Return a column of numbers, flags, dates (days since 1970) or times (seconds) as float64.

    What is missing is NaN.

    Parameters
    ----------
    name : str
    column : Arrow's array
    rows : sequence of int, optional
        What the rows are called in messages; by default they count from 1.

    Raises
    ------
    ValueError
        When there are infinities, or what float64 cannot hold.
    """
    dtype = column.type
    try:
        if pa.types.is_date(dtype) or pa.types.is_timestamp(dtype):
            column = column.cast(pa.timestamp("us", tz=getattr(dtype, "tz", None)), safe=False)
            return _as_array(column.cast(pa.int64()).cast(pa.float64(), safe=False)) / DAY
        if pa.types.is_time(dtype):
            column = column.cast(pa.time64("us"), safe=False).cast(pa.int64())
            return _as_array(column.cast(pa.float64(), safe=False)) / 1e6
        values = _as_array(column.cast(pa.float64(), safe=False))
    except pa.ArrowException as error:
        raise ValueError(f"column {shown(name)}: expected numbers, got: {error}") from None
    if np.isinf(values).any():
        place = int(np.argmax(np.isinf(values)))
        row = place + 1 if rows is None else rows[place]
        raise ValueError(
            f"column {shown(name)}: expected finite numbers, got {values[place]} in row {row}"
        )
    return values


def _as_array(column: Any) -> Array:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    parts = whole.chunks if isinstance(whole, pa.ChunkedArray) else [whole]
    arrays = [part.to_numpy(zero_copy_only=False) for part in parts]
    return np.asarray(arrays[0] if len(arrays) == 1 else np.concatenate(arrays), np.float64)


def words(column: Any) -> Words:
    """Return a column of dictionary-encoded words; words that are blanks only are missing."""
    if isinstance(column, pa.ChunkedArray):
        column = column.unify_dictionaries().combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # of no chunks, or of several where it is large
            column = pa.concat_arrays(column.chunks) if column.num_chunks else _NO_WORDS
    trimmed = pc.utf8_trim_whitespace(column.dictionary)
    trimmed = pc.if_else(pc.equal(trimmed, ""), None, trimmed)
    codes = _numbers_of(column.indices)
    again = trimmed.dictionary_encode()
    if len(again.dictionary) < len(trimmed):  # some are the same without blanks, or none
        codes = np.append(_numbers_of(again.indices), np.int32(-1))[codes]
    return Words(again.dictionary.to_pylist(), codes)


def _numbers_of(indices: pa.Array) -> Array:
    """Return indices into a dictionary, with -1 for none."""
    filled = indices.fill_null(-1) if indices.null_count else indices
    return np.asarray(filled.to_numpy(), np.int32)


_NO_WORDS = pa.array([], WORDS)


def examined(name: str, kind: str, values: Array | Words) -> Examined:
    """Find out whether a column can be used.

    Parameters
    ----------
    name, kind : str
    values : ndarray or Words
        As `floats` or `words` returned them.

    Raises
    ------
    ValueError
        When it has to be made of one kind first.
    """
    if isinstance(values, Words):
        return _examined_words(name, values)
    present = np.sort(values[~np.isnan(values)])
    if not len(present):
        return Examined(kind, "empty")
    scale = np.abs(present[[0, -1]]).max()
    half_span = present[-1] / 2 - present[0] / 2  # the span may be out of range
    if half_span <= ROUNDING / 2 * scale:
        return Examined(kind, f"constant: {present[0]:g}" if kind == "number" else "constant")
    begins = np.flatnonzero(np.append(True, present[1:] != present[:-1]))
    counts = np.diff(np.append(begins, len(present)))
    whole = kind == "number" and bool((present == np.floor(present)).all())
    if whole and len(counts) == len(values) >= ID_LEAST:
        in_a_row = half_span == (len(present) - 1) / 2
        if in_a_row or ID_NAME.search(name):
            return Examined(kind, "an id: a different whole number in every row")
    most = f"{present[begins[int(counts.argmax())]]:g}" if kind == "number" else "the same"
    return Examined(kind, note=_near_constant(most, counts, len(present)))


def _near_constant(value: str, counts: Array, present: int) -> str:
    share = counts.max() / present
    if share < NEARLY_ALL:
        return ""
    return f"near-constant: {100 * share:.4g} % are {value}"


def check_one_kind(name: str, values: Words) -> None:
    """Refuse numbers or dates among words, and numbers with decimal commas.

    Raises
    ------
    ValueError
        When most cells are of such a kind, so that the others look like mistakes.
    """
    counts = values.counts()
    number, comma, date = (_like(values, pattern) for pattern in (NUMBER, COMMA, ISO_DATE))
    if comma.any() and _share(counts, number | comma) >= MOSTLY:
        raise ValueError(
            f"column {shown(name)}: expected numbers with a decimal point, "
            f"got {shown(_first(values.distinct, comma))} with a comma"
        )
    if 0.5 <= _share(counts, number) < 1 and number.sum() > FEW_NUMBERS:
        _refuse_mixed(name, "numbers", values.distinct, number)
    if 0.5 <= _share(counts, date) < 1 and not _like(values, OTHER_DATE).any():
        _refuse_mixed(name, "dates", values.distinct, date)


def _examined_words(name: str, values: Words) -> Examined:
    counts = values.counts()
    present, distinct = int(counts.sum()), int((counts > 0).sum())
    if not present:
        return Examined("words", "empty")
    check_one_kind(name, values)
    if _share(counts, _like(values, ISO_DATE) | _like(values, OTHER_DATE)) >= MOSTLY:
        return Examined(
            "words", "dates, but not all such as 2020-12-31, the form that is read as dates"
        )
    most = shown(values.distinct[int(counts.argmax())])
    if distinct == 1:
        return Examined("words", f"constant: {most}")
    if distinct > present / 2 and present >= ID_LEAST:
        return Examined(
            "words", f"an id or free text: {distinct} different words in {present} rows"
        )
    return Examined("words", note=_near_constant(most, counts, present))


def _like(values: Words, pattern: str) -> Array:
    """Return which of the distinct words match."""
    distinct = pa.array(values.distinct, pa.string())
    matches: Array = pc.match_substring_regex(distinct, pattern).to_numpy(zero_copy_only=False)
    return matches.astype(bool)


def _share(counts: Array, which: Array) -> float:
    total = counts.sum()
    return float(counts[which].sum() / total) if total else 0.0


def _first(distinct: list[str], which: Array) -> str:
    return distinct[int(which.argmax())]


def _refuse_mixed(name: str, kind: str, distinct: list[str], of_kind: Array) -> None:
    raise ValueError(
        f"column {shown(name)}: expected one kind of cells, or the column ignored, "
        f"got {kind} such as {shown(_first(distinct, of_kind))} and words such as "
        f"{shown(_first(distinct, ~of_kind))}"
    )
