"""Small tables for tests, as columns and as files."""

import gzip
import io

import numpy as np


def columns(rows=120, seed=0):
    """Columns of each kind, and two targets: a number and a word."""
    rng = np.random.default_rng(seed)
    size = rng.normal(50, 10, rows).round(3)
    town = rng.choice(["Bonn", "Jena", "Ulm"], rows)
    sold = np.datetime64("2024-01-01") + rng.integers(0, 300, rows).astype("timedelta64[D]")
    new = rng.random(rows) < 0.5
    price = (1000 * (size + 20 * (town == "Ulm") + 5 * new + rng.normal(0, 1, rows))).round(1)
    return {
        "size": size,
        "town": town,
        "sold": sold,
        "new": new,
        "price": price,
        "verdict": np.where(price > np.median(price), "dear", "cheap"),
    }


def text(table, delimiter=","):
    """The columns as CSV; None and NaN are empty cells."""

    def cell(value):
        if value is None or value != value:
            return ""
        return str(value).lower() if isinstance(value, bool | np.bool_) else str(value)

    lines = [table, *zip(*table.values())]
    return "".join(delimiter.join(map(cell, line)) + "\n" for line in lines)


def written(path, table):
    """The path of a file, of the kind that its name says, which holds the columns."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table(dict(table)), path)
        return path
    content = text(table, "\t" if name.endswith(".tsv") else ",").encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


class Standard:
    """Standard input of these bytes, of which a pipe gives a few at a time."""

    def __init__(self, content):
        self.buffer = _Slow(content)


class _Slow(io.BytesIO):
    def read(self, size=-1):
        return super().read(min(size, 100) if size > 0 else size)
