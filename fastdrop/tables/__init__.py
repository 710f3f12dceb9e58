"""Tables: from CSV, TSV, Parquet or a DataFrame to a model, and from a model to predictions.

`TableModel` is at the root, too: ``from fastdrop import TableModel``. docs/how-to/tables.md has the
details.
"""

try:
    import pyarrow as _pyarrow  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"fastdrop.tables needs pyarrow: pip install 'fastdrop-nn[tables]' ({error})"
    ) from None

from fastdrop.tables.model import TableModel

__all__ = ["TableModel"]
