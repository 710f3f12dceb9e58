"""What `fastdrop train` trains on: the embedded digits, or what is in a folder or file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastdrop._messages import about
from fastdrop._splits import by_chance
from fastdrop.datasets import check_classes, load_digits, load_idx, load_npz
from fastdrop.layers import Array
from fastdrop.losses import SparseCategoricalCrossentropy
from fastdrop.training.batches import ArrayBatches
from fastdrop.training.expected import Expected

if TYPE_CHECKING:
    from fastdrop.tables.preparation import Prepared

__all__ = ["Data", "is_table", "load"]

DIGITS_TRAINING_SAMPLES = 1400  # the others were written by people whom the net has not seen
TABLES = (".csv", ".tsv", ".parquet")
KINDS = ", ".join([*TABLES, "gzipped, too, or - for standard input"])
SPLIT_NAMES = ("x", "y", "x", "y")  # what both parts are called in the file


class Data(NamedTuple):
    """A training and a validation part.

    Attributes
    ----------
    name : str
        Of the file or folder.
    task : str
        "classification" or "regression".
    classes : tuple of str
        What the class numbers in y stand for; none for a regression.
    x, x_val : ndarray, (samples, ...), or EncodedRows of a table
    y, y_val : ndarray, (samples,)
        Class numbers, or the numbers that a regression is to predict.
    numbers_val : ndarray of int, (samples,)
        What the samples to validate on are called: the numbers of their rows in a table, from 1
        below its header, or their indices in the arrays that they come from.
    scale : float
        What 1 in y is in the units of a regression's target.
    table : Prepared or None
        What was done to a table.
    """

    name: str
    task: str
    classes: tuple[str, ...]
    x: Any
    y: Array
    x_val: Any
    y_val: Array
    numbers_val: Array
    scale: float = 1.0
    table: Prepared | None = None

    def __str__(self) -> str:
        parts = f"{len(self.x)} training and {len(self.x_val)} validation samples"
        kind = f"{len(self.classes)} classes" if self.classes else "a number to predict"
        return f"{self.name}: {parts}, {kind}"

    @property
    def weight(self) -> Array | None:
        """Factors of the training samples' losses, of a table that has some."""
        return None if self.table is None else self.table.weight

    @property
    def validation(self) -> tuple[Any, ...]:
        """What `Sequential.fit` takes as ``validation_data``."""
        return (self.x_val, self.y_val) if self.table is None else self.table.validation

    @property
    def metric(self) -> str:
        """Name of what is reported beside the loss."""
        return "accuracy" if self.task == "classification" else "root_mean_squared_error"

    @property
    def checksum(self) -> str:
        """SHA-256 of both parts, in hexadecimal digits."""
        digest = hashlib.sha256()
        arrays = [self.x, self.y, self.x_val, self.y_val]
        if self.table is not None:
            arrays = self.table.arrays()
        for array in arrays:
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def facts(self) -> dict[str, Any]:
        """Return what results say of the data."""
        return {
            "name": self.name,
            "checksum": self.checksum,
            "training": len(self.x),
            "validation": len(self.x_val),
            "task": self.task,
            "metric": self.metric,
            "classes": list(self.classes),
            "roles": None if self.table is None else self.table.roles.facts(),
        }


def load(path: Path | None, target: str, seed: int, roles: Mapping[str, Any]) -> Data:
    """Load what ``--data`` names.

    Parameters
    ----------
    path : Path or None
        A folder of IDX files, an .npz file, or a table; None for the embedded digits.
    target : str
        The column of a table that is to be predicted.
    seed : int
        Fixes the split where there is no validation part.
    roles : mapping of str to object
        What else `fastdrop.tables.preparation.Roles` takes, of a table.

    Returns
    -------
    Data

    Raises
    ------
    ValueError, OSError
        For what cannot be read or trained on.
    """
    if path is None:
        x, y = load_digits()
        x = (x / 16).astype(np.float32)
        n = DIGITS_TRAINING_SAMPLES
        numbers = np.arange(n, len(x))
        return _data("embedded digits", x[:n], y[:n], x[n:], y[n:], numbers)
    if not path.exists() and str(path) != "-":
        raise FileNotFoundError(about(path, "expected an existing folder or file"))
    if path.is_dir():
        train, test = load_idx(path)
        with _naming(path):
            return _data(path.resolve().name, *train, *test, np.arange(len(test[1])))
    if path.suffix == ".npz":
        arrays = load_npz(path)
        x, y = arrays["x"], arrays["y"]
        with _naming(path):
            if len(arrays) == 4:
                x_val, y_val = arrays["x_val"], arrays["y_val"]
                return _data(path.name, x, y, x_val, y_val, np.arange(len(y_val)))
            return _data(path.name, *_split(x, y, seed), SPLIT_NAMES)
    if is_table(path):
        return _of_table(path, target, seed, roles)
    raise ValueError(f"--data: expected a folder, an .npz file or a table ({KINDS}), got {path}")


def is_table(path: Path) -> bool:
    """Tell whether a table is expected under this name."""
    return str(path) == "-" or path.name.lower().removesuffix(".gz").endswith(TABLES)


def _of_table(path: Path, target: str, seed: int, roles: Mapping[str, Any]) -> Data:
    from fastdrop.tables.preparation import Roles, prepare

    table = prepare(str(path), Roles(target, **roles), seed)
    return Data(
        "standard input" if str(path) == "-" else path.name,
        table.target.task,
        tuple(map(str, table.target.classes)),
        table.x,
        table.y,
        table.x_val,
        table.y_val,
        table.numbers_val,
        table.target.deviation,
        table,
    )


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in what is said of its arrays."""
    try:
        yield
    except ValueError as error:
        raise ValueError(about(path, error)) from error


def _split(x: Array, y: Array, seed: int) -> tuple[Array, Array, Array, Array, Array]:
    """Set samples apart for validation, in an order that the seed fixes."""
    if x.ndim < 2 or y.shape[:1] != x.shape[:1] or len(x) < 2:
        raise ValueError(
            f"expected x of shape (samples, ...) and a label in y for each of at least 2 samples, "
            f"got x {x.shape} and y {y.shape}"
        )
    first, rest = by_chance(len(x), seed)
    return x[first], y[first], x[rest], y[rest], rest


def _data(
    name: str,
    x: Array,
    y: Array,
    x_val: Array,
    y_val: Array,
    numbers_val: Array,
    names: Sequence[str] = ("x", "y", "x_val", "y_val"),
) -> Data:
    """Make class numbers of the labels; refuse what cannot be trained on, by the arrays' names."""

    def prepared(images: Array) -> Array:
        return images / np.float32(255) if images.dtype == np.uint8 else images

    for argument, labels in ((names[1], y), (names[3], y_val)):
        if labels.shape[1:] not in ((), (1,)):
            raise ValueError(
                f"{argument}: expected shape (samples,), one class number each, got {labels.shape}"
            )
    # Nobody has more classes than samples: a number or date was taken for a label.
    limit = (y.size + y_val.size,)
    loss = SparseCategoricalCrossentropy()
    y = loss.targets(y, limit, names[1])
    y_val = loss.targets(y_val, limit, names[3])
    check_classes(names[1], np.concatenate([y, y_val]))
    if y.size and y.min() == y.max():
        raise ValueError(
            f"{names[1]}: expected at least 2 classes among the samples to train on, "
            f"got {y[0]} only"
        )
    classes = [str(n) for n in range(1 + max(int(of.max(initial=0)) for of in (y, y_val)))]
    parts = prepared(x), y, prepared(x_val), y_val, numbers_val
    data = Data(name, "classification", tuple(classes), *parts)
    training = ArrayBatches(data.x, y, None, names[:2])
    expected = Expected(training.sample_shape, (len(classes),), np.dtype(np.float32), loss)
    training.check(expected)
    ArrayBatches(data.x_val, y_val, None, names[2:]).check(expected)
    return data
