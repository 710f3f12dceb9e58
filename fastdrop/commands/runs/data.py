"""What `fastdrop train` trains on: the embedded digits, or what is in a folder or file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastdrop._messages import about
from fastdrop.datasets import check_classes, load_csv, load_digits, load_idx, load_npz
from fastdrop.layers import Array
from fastdrop.losses import SparseCategoricalCrossentropy
from fastdrop.random import Key, permutation
from fastdrop.training.batches import ArrayBatches
from fastdrop.training.expected import Expected

__all__ = ["Data", "load"]

DIGITS_TRAINING_SAMPLES = 1400  # the others were written by people whom the net has not seen
VALIDATION_SHARE = 0.2
ROUNDING = 1e-12  # how far numbers in [0.5, 1) may be apart that only rounding has made different
SPLIT = 2**40  # folded into the seed for the split; no layer has this number
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
    x, x_val : ndarray, (samples, ...)
    y, y_val : ndarray, (samples,)
        Class numbers, or the numbers that a regression is to predict.
    scale : float
        What 1 in y is in the units of a regression's target.
    """

    name: str
    task: str
    classes: tuple[str, ...]
    x: Array
    y: Array
    x_val: Array
    y_val: Array
    scale: float = 1.0

    def __str__(self) -> str:
        parts = f"{len(self.x)} training and {len(self.x_val)} validation samples"
        kind = f"{len(self.classes)} classes" if self.classes else "a number to predict"
        return f"{self.name}: {parts}, {kind}"

    @property
    def metric(self) -> str:
        """Name of what is reported beside the loss."""
        return "accuracy" if self.task == "classification" else "root_mean_squared_error"

    @property
    def checksum(self) -> str:
        """SHA-256 of both parts, in hexadecimal digits."""
        digest = hashlib.sha256()
        for array in (self.x, self.y, self.x_val, self.y_val):
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
        }


def load(path: Path | None, label: str, seed: int) -> Data:
    """Load what ``--data`` names.

    Parameters
    ----------
    path : Path or None
        A folder of IDX files, an .npz or a .csv file; None for the embedded digits.
    label : str
        The column of labels of a .csv file.
    seed : int
        Fixes the split where there is no validation part.

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
        return _data("embedded digits", x[:n], y[:n], x[n:], y[n:])
    if not path.exists():
        raise FileNotFoundError(f"--data: expected an existing folder or file, got {path}")
    if path.is_dir():
        train, test = load_idx(path)
        with _naming(path):
            return _data(path.resolve().name, *train, *test)
    if path.suffix == ".npz":
        arrays = load_npz(path)
        x, y = arrays["x"], arrays["y"]
        with _naming(path):
            if len(arrays) == 4:
                return _data(path.name, x, y, arrays["x_val"], arrays["y_val"])
            return _data(path.name, *_split(x, y, seed), SPLIT_NAMES)
    if path.suffix == ".csv":
        x, y, classes = load_csv(path, label)
        with _naming(path):
            x, y, x_val, y_val = _split(x, y, seed)
            x, x_val = _standardised(x, x_val)
            return _data(path.name, x, y, x_val, y_val, SPLIT_NAMES, classes)
    raise ValueError(f"--data: expected a folder, an .npz or a .csv file, got {path}")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in what is said of its arrays."""
    try:
        yield
    except ValueError as error:
        raise ValueError(about(path, error)) from error


def _standardised(x: Array, x_val: Array) -> tuple[Array, Array]:
    """Subtract the mean of x, and divide by its deviation."""
    # By a power of two first, which changes no digit: of any numbers squares are in range then, and
    # a column is constant but for rounding if its values differ by little beside 1.
    _, exponent = np.frexp(np.abs(x).max(axis=0))
    with np.errstate(over="ignore"):  # what is out of range in the validation part is refused
        x, x_val = np.ldexp(x, -exponent), np.ldexp(x_val, -exponent)
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    deviation[np.ptp(x, axis=0) <= ROUNDING] = 1
    return (x - mean) / deviation, (x_val - mean) / deviation


def _split(x: Array, y: Array, seed: int) -> tuple[Array, Array, Array, Array]:
    """Set samples apart for validation, in an order that the seed fixes."""
    if x.ndim < 2 or y.shape[:1] != x.shape[:1] or len(x) < 2:
        raise ValueError(
            f"expected x of shape (samples, ...) and a label in y for each of at least 2 samples, "
            f"got x {x.shape} and y {y.shape}"
        )
    order = permutation(Key(seed).fold_in(SPLIT), len(x))
    held_out = math.ceil(len(x) * VALIDATION_SHARE)
    rest, first = order[:held_out], order[held_out:]
    return x[first], y[first], x[rest], y[rest]


def _data(
    name: str,
    x: Array,
    y: Array,
    x_val: Array,
    y_val: Array,
    names: Sequence[str] = ("x", "y", "x_val", "y_val"),
    classes: Sequence[str] = (),
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
    if not classes:
        classes = [str(n) for n in range(1 + max(int(of.max(initial=0)) for of in (y, y_val)))]
    data = Data(name, "classification", tuple(classes), prepared(x), y, prepared(x_val), y_val)
    training = ArrayBatches(data.x, y, None, names[:2])
    expected = Expected(training.sample_shape, (len(classes),), np.dtype(np.float32), loss)
    training.check(expected)
    ArrayBatches(data.x_val, y_val, None, names[2:]).check(expected)
    return data
