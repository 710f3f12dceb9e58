"""Tables as text, CSV and TSV, gzipped or not: says of them what Arrow's reader does not.

That is: which encoding it is, NUL bytes, names that are there twice, a file that somebody writes to
while it is read, and in which line and column something is wrong.
"""

from __future__ import annotations

import csv
import io
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import csv as arrow_csv

from fastdrop._messages import about, shown
from fastdrop.datasets import MISSING

__all__ = ["WORDS", "TextSource", "check_names", "shown"]

HEAD = 1 << 20  # bytes that are looked at before the others are read; the header is among them
BLOCK = 1 << 20  # bytes that are read at once
SMALL_BLOCK = 1 << 18  # where all rows are kept: less memory beside them
GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
NULLS = sorted(
    {form for word in MISSING for form in (word, word.lower(), word.upper(), word.capitalize())}
    | set(arrow_csv.ConvertOptions().null_values)
)
ALL_WORDS = 2**31 - 1  # however many different ones there are
NO_UTF8 = (
    "expected text in UTF-8, got another encoding; of Latin-1, iconv -f LATIN1 -t UTF-8 makes UTF-8"
)
NO_UTF16 = "expected text in UTF-8, got UTF-16; iconv -f UTF-16 -t UTF-8 makes UTF-8 of it"


class TextSource:
    """A file of CSV or TSV, or standard input, which can be read once.

    Parameters
    ----------
    path : Path or None
        None stands for standard input.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.name = "standard input" if path is None else str(path)
        self._header: _Header | None = None
        self._standard: _Bytes | None = None

    def names(self) -> list[str]:
        """Return the columns' names."""
        with self._naming():
            return self._read_header().names

    def read(self, ignored: Sequence[str] = ()) -> pa.Table:
        """Return the whole table, words dictionary-encoded, without the columns `ignored`."""
        with self._naming():
            names = self.names()
            wanted = [name for name in names if name not in ignored]
            types: dict[str, pa.DataType] = {}

            def read(threads: bool) -> pa.Table:
                convert = _conversion(wanted, types)
                with self._taken() as (file, header):
                    options = (*_options(header, threads, SMALL_BLOCK), convert)
                    pool = pa.system_memory_pool()  # the usual one keeps what it has had
                    if self.path is None:  # which cannot be read again
                        return arrow_csv.read_csv(file, *options, pool)
                    reader = arrow_csv.open_csv(file, *options, pool)
                    return pa.Table.from_batches(list(reader), reader.schema)

            while True:
                try:
                    table = read(threads=True)
                    break
                except pa.ArrowInvalid as error:
                    looser = None if self.path is None else _looser(str(error), names)
                    if looser is None:
                        raise ValueError(self._explained(error, names, read)) from None
                    types |= looser
            for name, dtype in zip(table.column_names, table.schema.types):
                if pa.types.is_dictionary(dtype) and dtype.value_type == pa.binary():
                    raise ValueError(f"column {shown(name)}: {NO_UTF8}")
            return table.unify_dictionaries()

    def blocks(self, types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Give the columns of `types`, of these types, some rows at a time."""
        convert = _conversion(list(types), types)

        def read(threads: bool) -> Iterator[pa.RecordBatch]:
            with self._taken() as (file, header):
                yield from arrow_csv.open_csv(file, *_options(header, threads, BLOCK), convert)

        with self._naming():
            names = self.names()
            try:
                yield from read(threads=True)
            except pa.ArrowInvalid as error:
                again = lambda threads: [None for _ in read(threads)]  # noqa: E731
                raise ValueError(self._explained(error, names, again)) from None

    def _read_header(self) -> _Header:
        """Return the header; what can be read once stays open for its rows."""
        if self._header is None:
            file = _Bytes(self.path)
            try:
                self._header = _header(file.head, self.name.lower().removesuffix(".gz"))
            finally:
                if self.path is not None:
                    file.close()
            if self.path is None:
                self._standard = file
        return self._header

    @contextmanager
    def _taken(self) -> Iterator[tuple[pa.PythonFile, _Header]]:
        """Give the open file to a reader, who takes all of it."""
        header = self._read_header()
        file = self._standard or _Bytes(self.path)
        try:
            yield pa.PythonFile(file, "r"), header
        finally:
            file.close()

    def _explained(
        self, error: Exception, names: Sequence[str], read: Callable[[bool], Any]
    ) -> str:
        """Say in our words what Arrow found; it tells the line only where one thread reads."""
        text = str(error)
        if self.path is not None and self.path.is_file() and "Row #" not in text:
            try:
                read(False)
            except pa.ArrowInvalid as slowly:
                text = str(slowly)
        return _in_our_words(text, names)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Name the file in what is wrong with it, once."""
        try:
            yield
        except _NamedError:
            raise
        except UnicodeDecodeError:
            raise _NamedError(about(self.name, NO_UTF8)) from None
        except ValueError as error:
            raise _NamedError(about(self.name, error)) from None
        except OSError as error:
            if error.filename is not None:  # it cannot be opened
                raise
            raise _NamedError(about(self.name, f"expected a whole file, got: {error}")) from None


class _NamedError(ValueError):
    """What is wrong with a file, which it names."""


class _Bytes:
    """A file's bytes, unzipped, as Arrow asks for them; refuses those that are no text.

    Attributes
    ----------
    head : bytes
        The first ones, which are read again.
    """

    closed = False

    def __init__(self, path: Path | None) -> None:
        self._raw: Any = sys.stdin.buffer if path is None else open(path, "rb")  # noqa: SIM115
        try:
            file: Any = _Watched(self._raw)
            self.head = _some(file, HEAD)
            if self.head.startswith(GZIP):
                packed = pa.PythonFile(_Joined(self.head, file), "r")
                file = pa.CompressedInputStream(packed, "gzip")
                self.head = _some(file, HEAD)
            if self.head.startswith(ZIP):
                raise ValueError("expected text, got a zip file or a workbook; save it as CSV")
            if len(self.head) < HEAD and not self.head.endswith(b"\n"):
                self.head += b"\n"  # Arrow refuses a header without one that has no rows below it
            if self.head.startswith(UTF_16):
                raise ValueError(NO_UTF16)
            self._file = _Joined(self.head, file)
        except BaseException:
            self.close()
            raise

    def read(self, size: int = -1) -> bytes:
        part = self._file.read(size)
        if b"\0" in part:
            raise ValueError("expected text, got NUL bytes")
        return part

    def close(self) -> None:
        self.closed = True
        if self._raw is not sys.stdin.buffer:
            self._raw.close()


class _Watched:
    """The bytes of a file; refuses one that somebody writes to meanwhile."""

    def __init__(self, file: Any) -> None:
        self._file, self._read = file, 0
        try:
            status = os.fstat(file.fileno())
        except (AttributeError, OSError, ValueError):
            self._size = None
        else:
            self._size = status.st_size if stat.S_ISREG(status.st_mode) else None
        if self._size is not None:
            self._size -= file.tell()  # a shell may have read a part

    def read(self, size: int = -1) -> bytes:
        part: bytes = self._file.read(size)
        self._read += len(part)
        grew = self._size is not None and self._read > self._size
        if grew or (self._size is not None and not part and size and self._read < self._size):
            raise ValueError(
                f"expected a file that nobody writes to, got one of {self._size} bytes that "
                f"{'grew' if grew else 'shrank'} while it was read"
            )
        return part


class _Joined:
    """Bytes, and after them those of a file."""

    closed = False

    def __init__(self, head: bytes, file: Any) -> None:
        self._head, self._file = head, file

    def read(self, size: int = -1) -> bytes:
        if self._head:
            end = len(self._head) if size < 0 else size
            part, self._head = self._head[:end], self._head[end:]
            return part
        return bytes(self._file.read(size))

    def close(self) -> None:
        self.closed = True


def _some(file: Any, size: int) -> bytes:
    """Return so many bytes, or all that there are; a pipe gives them in small parts."""
    parts = []
    while size > 0 and (part := file.read(size)):
        parts.append(bytes(part))
        size -= len(part)
    return b"".join(parts)


class _Header(NamedTuple):
    names: list[str]
    delimiter: str


def _header(head: bytes, file_name: str) -> _Header:
    """Return the columns' names, and what stands between the cells."""
    if b"\0" in head:
        raise ValueError("expected text, got NUL bytes")
    text = head.decode("utf-8-sig", "replace")  # of the rows Arrow says which column is none
    first = next((line for line in text.splitlines() if line), "")
    if not first:
        raise ValueError("expected a header and rows, got an empty file")
    delimiter = "\t" if file_name.endswith(".tsv") else ","
    if delimiter not in first:
        delimiter = next((mark for mark in "\t;" if mark in first), delimiter)
    lines = io.StringIO(text, newline="")
    cells = next(filter(None, csv.reader(lines, delimiter=delimiter)))
    if any("\ufffd" in name for name in cells):
        raise ValueError(NO_UTF8)
    names = [name.strip() or f"column {number}" for number, name in enumerate(cells, 1)]
    check_names(names)
    return _Header(names, delimiter)


def check_names(names: Sequence[str]) -> None:
    """Refuse a name that two columns have."""
    seen = set()
    for name in names:
        if name in seen:
            raise ValueError(f"expected one column {shown(name)}, got {names.count(name)}")
        seen.add(name)


def _conversion(names: Sequence[str], types: Mapping[str, pa.DataType]) -> arrow_csv.ConvertOptions:
    return arrow_csv.ConvertOptions(
        include_columns=names,
        column_types=dict(types),
        null_values=NULLS,
        strings_can_be_null=True,
        auto_dict_encode=True,
        auto_dict_max_cardinality=ALL_WORDS,
    )


def _options(header: _Header, threads: bool, block: int) -> tuple[Any, Any]:
    return (
        arrow_csv.ReadOptions(
            use_threads=threads,
            block_size=block,
            column_names=header.names,
            skip_rows_after_names=1,
        ),
        arrow_csv.ParseOptions(delimiter=header.delimiter, newlines_in_values=True),
    )


WORDS = pa.dictionary(pa.int32(), pa.string())
_LOOSER = {  # by the type that is too narrow; words are the loosest
    "int64": pa.float64(),
    "date32[day]": pa.timestamp("s"),
    "timestamp[s]": pa.timestamp("ns"),
}
_CELLS = re.compile(r"(?:Row #(\d+): )?Expected (\d+) columns, got (\d+)")
_CELL = re.compile(
    r"In CSV column #(\d+): (?:Row #(\d+): )?CSV conversion error to ([^:]+): (.*)", re.DOTALL
)
_KINDS = {
    "bool": "true or false",
    "double": "a number, with a decimal point",
    "date32": "a date such as 2020-12-31",
    "time32": "a time such as 23:59:59",
    "timestamp": "a date such as 2020-12-31 or 2020-12-31T23:59:59",
}


def _looser(text: str, names: Sequence[str]) -> dict[str, pa.DataType] | None:
    """Return a type for the column that, other than its first block, is not of the type found.

    To find types from all rows at once, as Arrow also can, takes several times the memory.
    """
    found = _CELL.search(text)
    if found is None or "UTF8" in text:
        return None
    column, _, kind, what = found.groups()
    value = re.search(r"'(.*)'", what, re.DOTALL)
    dtype = _LOOSER.get(kind, WORDS)
    if kind == "null" and value is not None:  # nothing but missing cells before
        cell = value[1].replace('"', '""')
        alone = arrow_csv.read_csv(pa.BufferReader(f'"name"\n"{cell}"\n'.encode()))
        dtype = alone.schema.types[0]
        dtype = WORDS if dtype in (pa.string(), pa.null(), pa.binary()) else dtype
    return None if kind.startswith("dictionary") else {names[int(column)]: dtype}


def _in_our_words(text: str, names: Sequence[str]) -> str:
    """Return what Arrow says is wrong with a CSV file: the line, the column, what came."""
    if text.startswith("Empty CSV"):
        return "expected a header and rows, got an empty file"
    if found := _CELLS.search(text):
        line, expected, got = found.groups()
        place = f"line {line}: " if line else ""
        return f"{place}expected {expected} cells as in the header, got {got}"
    if not (found := _CELL.search(text)):
        return f"expected CSV, got: {text}"
    column, line, kind, what = found.groups()
    place = f"{f'line {line}, ' if line else ''}column {shown(names[int(column)])}"
    if "UTF8" in what:
        return f"{place}: {NO_UTF8}"
    kind = re.split(r"\W", kind)[0]
    value = re.search(r"'(.*)'", what, re.DOTALL)
    got = shown(value[1]) if value else what
    hint = ""
    if "zone offset" in what:
        hint = (
            f", {'with' if 'no zone' in what else 'without'} a zone, other than those to train on"
        )
    return f"{place}: expected {_KINDS.get(kind, kind)}, got {got}{hint}"
