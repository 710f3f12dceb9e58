"""Tables as Arrow reads them: CSV and TSV, Parquet, standard input, DataFrames.

A `Source` is read whole, to learn of it, or block by block, to predict; then only the columns that
are needed, each as the type that it had when the model was trained.

pyarrow reads, as it alone of the well-kept readers streams CSV in bounded memory, numbers words
while it reads them, finds the types of columns from all rows, and lends its memory to NumPy. It
takes DataFrames of pandas, polars and others as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from fastdrop._messages import about, shown
from fastdrop.tables.kinds import kind_of
from fastdrop.tables.text import TextSource, check_names

__all__ = ["PARQUET", "STANDARD", "MemorySource", "Source", "source_of"]

STANDARD = "-"  # standard input, or output
PARQUET, PARQUET_BEGINS = ".parquet", b"PAR1"
ROWS = 1 << 15  # of a block of what is no text


class Source(Protocol):
    """A table that can be read."""

    name: str

    def names(self) -> list[str]:
        """Return the columns' names."""
        ...

    def read(self, ignored: Sequence[str] = ()) -> pa.Table:
        """Return the whole table, words dictionary-encoded, without the columns `ignored`."""
        ...

    def blocks(self, types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Give the columns of `types`, of these types, some rows at a time."""
        ...


def source_of(table: Any) -> Source:
    """Return what reads a table.

    Parameters
    ----------
    table : path, "-", DataFrame, pyarrow.Table or mapping of str to array_like
        "-" is standard input.

    Raises
    ------
    TypeError, ValueError
        When it is no table.
    OSError
        When there is no such file.
    """
    if not isinstance(table, str | PathLike):
        return MemorySource(_arrow_table(table))
    if str(table) == STANDARD:
        return TextSource(None)
    path = Path(table)
    if not path.exists() or path.is_dir():
        raise FileNotFoundError(about(path, "expected an existing file"))
    if path.suffix.lower() == PARQUET or _begins_with(path, PARQUET_BEGINS):
        return _ParquetSource(path)
    return TextSource(path)


def _begins_with(path: Path, text: bytes) -> bool:
    if not path.is_file():  # a pipe, of which nothing may be lost
        return False
    with open(path, "rb") as file:
        return file.read(len(text)) == text


class MemorySource:
    """A table in memory."""

    name = "table"

    def __init__(self, table: pa.Table) -> None:
        check_names(table.column_names)
        self._table = table

    def names(self) -> list[str]:
        return list(self._table.column_names)

    def read(self, ignored: Sequence[str] = ()) -> pa.Table:
        return _with_words_numbered(self._table.drop_columns(list(ignored)))

    def blocks(self, types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        for block in self._table.select(list(types)).to_batches(ROWS):
            yield _as_types(block, types)


class _ParquetSource:
    """A file of Parquet."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        try:
            self._file = parquet.ParquetFile(path)
        except pa.ArrowException as error:
            raise ValueError(about(path, f"expected a whole Parquet file, got: {error}")) from None
        self._columns = list(self._file.schema_arrow.names)
        try:
            check_names(self._columns)
        except ValueError as error:
            raise ValueError(about(path, error)) from None

    def names(self) -> list[str]:
        return self._columns

    def read(self, ignored: Sequence[str] = ()) -> pa.Table:
        wanted = [name for name in self._columns if name not in ignored]
        try:
            return _with_words_numbered(self._file.read(wanted))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(about(self.name, f"expected a whole file, got: {error}")) from None

    def blocks(self, types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        try:
            for block in self._file.iter_batches(ROWS, columns=list(types)):
                yield _as_types(block, types)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(about(self.name, f"expected a whole file, got: {error}")) from None
        except ValueError as error:
            raise ValueError(about(self.name, error)) from None


def _arrow_table(table: Any) -> pa.Table:
    """Return the table of pyarrow that a DataFrame or the like is."""
    try:
        if isinstance(table, pa.Table):
            return table
        if type(table).__module__.partition(".")[0] == "pandas" and hasattr(table, "columns"):
            return pa.Table.from_pandas(table, preserve_index=False)
        if isinstance(table, Mapping):
            return pa.table({str(name): values for name, values in table.items()})
        if hasattr(table, "__arrow_c_stream__"):
            return pa.table(table)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise ValueError(
            about("table", f"expected columns of one kind each, got: {error}")
        ) from None
    raise TypeError(
        "table: expected a path, a DataFrame, a table of pyarrow or a dict of columns, "
        f"got {type(table).__name__}"
    )


def _with_words_numbered(table: pa.Table) -> pa.Table:
    """Return the table with all text dictionary-encoded, and no other column so."""
    for number, (name, column) in enumerate(zip(table.column_names, table.columns)):
        table = table.set_column(number, name, _words_numbered(column))
    return table.unify_dictionaries()


def _words_numbered(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        parts = [_decoded(part) for part in column.chunks]
        column = pa.chunked_array(parts, parts[0].type if parts else column.type.value_type)
    if not _is_text(column.type):
        return column
    column = column.cast(pa.string())
    dates = _dates(column)
    return column.dictionary_encode() if dates is None else dates


def _dates(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Return text that is all dates such as 2020-12-31 as dates, as it is read from CSV."""
    if column.null_count == len(column):
        return None
    for dtype in (pa.date32(), pa.timestamp("s")):
        try:
            return column.cast(dtype)
        except pa.ArrowInvalid:
            pass
    return None


_KINDS = {
    "number": "numbers",
    "flag": "true and false",
    "date": "dates",
    "time": "times of a day",
    "words": "words",
}
_VALUE = re.compile(r"'(.*)' as a scalar|value: (.*)", re.DOTALL)


def _as_types(block: pa.RecordBatch, types: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    """Return the block's columns as these types, or others of the same kinds."""
    columns = [_as_type(name, block.column(name), dtype) for name, dtype in types.items()]
    return pa.RecordBatch.from_arrays(columns, list(types))


def _as_type(name: str, column: pa.Array, dtype: pa.DataType) -> pa.Array:
    """Return a column as what it was when the model was trained; text may be numbers or dates."""
    if pa.types.is_dictionary(column.type):
        column = _decoded(column)
    kind = kind_of(name, dtype)
    empty, text = pa.types.is_null(column.type), _is_text(column.type)
    found = "words" if text else kind if empty else kind_of(name, column.type)
    if kind == "words":
        return column.cast(pa.string()).dictionary_encode()
    expected = f"column {shown(name)}: expected {_KINDS[kind]}, as when the model was trained"
    if found == kind and not empty:
        here, there = (getattr(each, "tz", None) for each in (column.type, dtype))
        if (here is None) == (there is None):
            return column
        raise ValueError(f"{expected}, {_zoned(there)}, got some {_zoned(here)}")
    if found == "number" and kind == "flag":
        others = pc.filter(column, pc.invert(pc.is_in(column, pa.array([0, 1, None], column.type))))
        if len(others):
            raise ValueError(f"{expected}, got {others[0]}")
    elif not (empty or (text and kind != "time") or (found, kind) == ("flag", "number")):
        raise ValueError(f"{expected}, got {_KINDS[found]}")
    try:
        return column.cast(dtype)
    except pa.ArrowException as error:
        value = _VALUE.search(str(error))
        got = shown(next(filter(None, value.groups()), "")) if value else error
        raise ValueError(f"{expected}, got {got}") from None


def _decoded(column: pa.DictionaryArray) -> pa.Array:
    """Return a column without its dictionary, and text as the type that Arrow casts."""
    values = column.dictionary
    return (values.cast(pa.string()) if _is_text(values.type) else values).take(column.indices)


def _zoned(zone: str | None) -> str:
    return f"with{'' if zone else 'out'} a zone"


def _is_text(dtype: pa.DataType) -> bool:
    is_a = pa.types
    return bool(is_a.is_string(dtype) or is_a.is_large_string(dtype) or is_a.is_string_view(dtype))
