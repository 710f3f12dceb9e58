"""Tables as files of CSV, TSV or Parquet, or to standard output: whole or not at all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from fastdrop._output import replacing
from fastdrop.tables.reading import PARQUET, STANDARD

__all__ = ["check_output", "safe", "writing"]

DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": ","}
# What a spreadsheet runs, unless it is a number
FORMULA = "^[\\t\\r\\n ]*[=+\\-@\uff1d\uff0b\uff0d\uff20]"
NUMBER = r"^[+-]?[0-9]*\.?[0-9]+([eE][+-]?[0-9]+)?$"


def check_output(path: str, force: bool) -> None:
    """Refuse a file that exists, unless it may be replaced, and one of no kind that is written.

    Raises
    ------
    ValueError, OSError
    """
    if path == STANDARD:
        return
    file = Path(path)
    if file.is_dir() or not file.parent.is_dir():
        raise FileNotFoundError(f"--out: expected a file in an existing folder, got {path}")
    if file.is_file() and not force:
        raise FileExistsError(
            f"--out: expected a file that does not exist, or --force to replace it, got {path}"
        )
    known = [*DELIMITERS, PARQUET]
    if not file.exists() and file.suffix.lower() not in known:
        raise ValueError(f"--out: expected a name that ends with one of {known}, got {path}")


@contextmanager
def writing(path: str, schema: pa.Schema) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Give a function that writes blocks of a table; the file is there once all are written.

    Parameters
    ----------
    path : str
        "-" is standard output, to which CSV is written.
    schema : pyarrow.Schema
        Names and types of the columns.
    """
    if path == STANDARD:
        with _writer(sys.stdout.buffer, "", schema) as write:
            yield write
        sys.stdout.buffer.flush()
        return
    with replacing(path) as file, _writer(file, Path(path).suffix.lower(), schema) as write:
        yield write


@contextmanager
def _writer(
    file: Any, suffix: str, schema: pa.Schema
) -> Iterator[Callable[[pa.RecordBatch], None]]:
    sink = pa.PythonFile(file, "w")
    if suffix == PARQUET:
        with parquet.ParquetWriter(sink, schema) as table:
            yield table.write_batch
        return
    options = arrow_csv.WriteOptions(delimiter=DELIMITERS.get(suffix, ","))
    plain = pa.schema([(str(safe(pa.array([f.name]))[0]), f.type) for f in schema])
    with arrow_csv.CSVWriter(sink, plain, write_options=options) as table:
        yield lambda block: table.write_batch(
            pa.RecordBatch.from_arrays([safe(column) for column in block.columns], schema=plain)
        )


def safe(column: pa.Array) -> pa.Array:
    """Return a column whose words no spreadsheet runs: ' is before those that are formulas."""
    if not pa.types.is_string(column.type):
        return column
    runs = pc.and_not(
        pc.match_substring_regex(column, FORMULA), pc.match_substring_regex(column, NUMBER)
    )
    if not pc.any(runs).as_py():
        return column
    return pc.if_else(runs, pc.binary_join_element_wise("'", column, ""), column)
