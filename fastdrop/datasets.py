"""Data sets: the embedded digits, and readers for common files."""

from __future__ import annotations

import csv
import gzip
import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastdrop import _namesake

_namesake.require_ours()

__all__ = ["load_csv", "load_digits", "load_idx", "load_npz"]

Array: TypeAlias = NDArray[Any]

IDX_STEMS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def load_digits() -> tuple[Array, Array]:
    """Return the UCI handwritten digits, which are part of the package.

    Returns
    -------
    x : ndarray, uint8, (1797, 8, 8)
        Grey values from 0 to 16.
    y : ndarray, uint8, (1797,)
        Digits from 0 to 9.

    References
    ----------
    E. Alpaydin and C. Kaynak 1998, Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository, https://doi.org/10.24432/C50P49, CC BY 4.0.
    """
    with np.load(Path(__file__).parent / "data" / "digits.npz") as arrays:
        return arrays["x"], arrays["y"]


def load_idx(folder: str | PathLike[str]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Read a folder of MNIST's four IDX files, gzipped or not.

    Parameters
    ----------
    folder : path
        Holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
        t10k-labels-idx1-ubyte, each plain or with .gz at the end.

    Returns
    -------
    (x_train, y_train), (x_test, y_test) : tuples of ndarray, uint8
        Images (samples, height, width) and labels (samples,).

    Raises
    ------
    FileNotFoundError
        When the folder or one of the files is missing.
    ValueError
        When a file is truncated or is no IDX file of unsigned bytes, or images and labels differ
        in number.

    References
    ----------
    Y. LeCun, C. Cortes and C. Burges, The MNIST database of handwritten digits: file formats.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"folder: expected an existing folder, got {folder}")
    x_train, y_train, x_test, y_test = (_read_idx(_find_idx(folder, stem)) for stem in IDX_STEMS)
    for part, x, y in (("train", x_train, y_train), ("t10k", x_test, y_test)):
        if len(x) != len(y):
            raise ValueError(
                f"{folder}: expected a label for each {part} image, "
                f"got {len(x)} images and {len(y)} labels"
            )
    return (x_train, y_train), (x_test, y_test)


def load_npz(path: str | PathLike[str]) -> dict[str, Array]:
    """Read the arrays x and y, and x_val and y_val where present, of a NumPy .npz file.

    Parameters
    ----------
    path : path
        A file as numpy.savez writes it. Pickled objects are refused.

    Returns
    -------
    dict of str to ndarray
        "x" and "y", and "x_val" and "y_val" if the file has both.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When it is no .npz file, is damaged or lacks an array.
    """
    path = _existing_file(path)
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: expected a NumPy .npz file, got something else or a part of one")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = set(arrays.files)
            validation = names & {"x_val", "y_val"}
            missing = {"x", "y"} - names or (len(validation) == 1 and {"x_val", "y_val"} - names)
            if missing:
                found = ", ".join(sorted(names)) or "none"
                raise ValueError(f"expected arrays x, y[, x_val, y_val], got {found}")
            loaded = {name: arrays[name] for name in ("x", "y", *sorted(validation))}
            for name, array in loaded.items():
                if not isinstance(array, np.ndarray):
                    raise ValueError(f"expected an array as {name}, got something else")
            return loaded
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from error  # RuntimeError: encrypted, or unheard of
    except MemoryError as error:
        raise ValueError(f"{path}: expected arrays that fit in memory, got {error}") from error


def load_csv(path: str | PathLike[str], label: str = "label") -> tuple[Array, Array, list[str]]:
    """Read a CSV file with a header line; one column holds the labels, all others numbers.

    Parameters
    ----------
    path : path
        UTF-8 text, commas between cells.
    label : str
        Name of the label column. Its distinct values, numbers or any other text, are the classes.

    Returns
    -------
    x : ndarray, float64, (samples, columns)
    y : ndarray, int64, (samples,)
        Class numbers: indices into `classes`.
    classes : list of str
        The labels as written, sorted, as numbers if all are.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When the label column is missing or there twice, a cell is not a finite number, a line has
        too few or too many cells, or there are no lines or no columns of numbers.
    """
    path = _existing_file(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: expected CSV text in UTF-8: {error}") from error
    if label not in header:
        some = ", ".join(header[:5]) + (", ..." if len(header) > 5 else "")
        raise ValueError(f"{path}: expected a label column {label!r}, got columns {some or 'none'}")
    if header.count(label) > 1:
        raise ValueError(f"{path}: expected one column {label!r}, got {header.count(label)}")
    column = header.index(label)
    features = header[:column] + header[column + 1 :]
    if not lines or not features:
        raise ValueError(f"{path}: expected a header, lines of data and a column besides {label!r}")
    for number, cells in lines:
        if len(cells) != len(header):
            raise ValueError(
                f"{path}, line {number}: expected {len(header)} cells as in the header, "
                f"got {len(cells)}"
            )
    labels = [cells.pop(column) for _, cells in lines]
    try:
        x = np.array([cells for _, cells in lines], np.float64)
    except ValueError:
        x = np.array([[_to_float(cell) for cell in cells] for _, cells in lines])
    wrong = np.argwhere(~np.isfinite(x))
    if len(wrong):
        row, feature = wrong[0]
        number, cells = lines[row]
        raise ValueError(
            f"{path}, line {number}, column {features[feature]!r}: expected a finite number, "
            f"got {cells[feature]!r}"
        )
    classes = _sorted_classes(labels)
    index = {text: i for i, text in enumerate(classes)}
    return x, np.array([index[text] for text in labels], np.int64), classes


def _existing_file(path: str | PathLike[str]) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: expected an existing file, got {path}")
    return path


def _find_idx(folder: Path, stem: str) -> Path:
    for name in (stem, f"{stem}.gz"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder}: expected an IDX file {stem} or {stem}.gz, found neither")


def _read_idx(path: Path) -> Array:
    """Read one file: zero, zero, type, number of axes, sizes as 4 big-endian bytes each, data."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path}: expected a whole gzip file: {error}") from error
    axes = int(path.name.removesuffix(".gz").split("idx")[1][0])
    start = 4 + 4 * axes
    if len(data) < start or data[:4] != bytes((0, 0, 8, axes)):
        raise ValueError(f"{path}: expected an IDX file of unsigned bytes with {axes} axes")
    shape = struct.unpack(f">{axes}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise ValueError(
            f"{path}: expected {math.prod(shape)} bytes of data for shape {shape}, "
            f"got {len(data) - start}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy()  # writeable


def _to_float(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _sorted_classes(labels: Sequence[str]) -> list[str]:
    distinct = set(labels)
    numeric = all(math.isfinite(_to_float(text)) for text in distinct)
    return sorted(distinct, key=(lambda text: (_to_float(text), text)) if numeric else None)
