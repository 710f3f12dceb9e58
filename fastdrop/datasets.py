"""Data sets: the embedded digits, and readers for common files."""

from __future__ import annotations

import csv
import gzip
import math
import struct
import warnings
import zipfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from os import PathLike
from pathlib import Path
from typing import Any, TextIO, TypeAlias

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from fastdrop._messages import about, one_line

__all__ = ["load_csv", "load_digits", "load_idx", "load_npz"]

Array: TypeAlias = NDArray[Any]

IDX_STEMS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
INFLATION = 1032  # a byte of deflated data stands for so many bytes at most
CHUNK = 1 << 20  # bytes
LONGEST_LINE = 1 << 24  # characters of a CSV file
# Texts that stand for a missing label in pandas, R and the UCI repository
MISSING = {"", ".", "?", "#n/a", "#na", "<na>", "n/a", "na", "nan", "-nan", "null", "None"}
FEW = 10  # up to so many classes may have one sample each, as in a small example


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
    """Read a folder with MNIST's four IDX files, gzipped or not.

    Parameters
    ----------
    folder : path
        The folder with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte
        and t10k-labels-idx1-ubyte, each as it is or with .gz at the end.

    Returns
    -------
    (x_train, y_train), (x_test, y_test) : tuples of ndarray, uint8
        Images, of shape (samples, height, width), and labels, of shape (samples,).

    Raises
    ------
    FileNotFoundError
        When the folder or one of the files is missing.
    ValueError
        When a file is truncated or is not an IDX file of unsigned bytes, or the numbers of images
        and labels differ.

    References
    ----------
    Y. LeCun, C. Cortes and C. Burges, The MNIST database of handwritten digits: file formats.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(about(folder, "expected an existing folder"))
    x_train, y_train, x_test, y_test = (_read_idx(_find_idx(folder, stem)) for stem in IDX_STEMS)
    for part, x, y in (("train", x_train, y_train), ("t10k", x_test, y_test)):
        if len(x) != len(y):
            raise ValueError(
                about(
                    folder,
                    f"expected a label for each {part} image, "
                    f"got {len(x)} images and {len(y)} labels",
                )
            )
    return (x_train, y_train), (x_test, y_test)


def load_npz(path: str | PathLike[str]) -> dict[str, Array]:
    """Read the arrays x and y, and x_val and y_val if there are any, from a NumPy .npz file.

    Parameters
    ----------
    path : path
        A file written by numpy.savez. Pickled objects are refused.

    Returns
    -------
    dict of str to ndarray
        "x" and "y", and "x_val" and "y_val" if the file has both.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When the file is not an .npz file, is damaged or lacks an array.
    """
    path = _existing_file(path)
    with _reading(path, "NumPy .npz file"):
        if not zipfile.is_zipfile(path):
            raise _ContentError("expected a NumPy .npz file, got something else or a part of one")
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            names = {name.removesuffix(".npy") for name in members if name.endswith(".npy")}
            validation = names & {"x_val", "y_val"}
            missing = {"x", "y"} - names or (len(validation) == 1 and {"x_val", "y_val"} - names)
            if missing:
                found = ", ".join(sorted(names)) or "none"
                raise _ContentError(
                    f"expected arrays x, y[, x_val, y_val], got {one_line(found, 60)}"
                )
            return {name: _read_member(archive, name) for name in ("x", "y", *sorted(validation))}


def load_csv(path: str | PathLike[str], label: str = "label") -> tuple[Array, Array, list[str]]:
    """Read a CSV file with a header line, a column of labels and columns of numbers.

    Parameters
    ----------
    path : path
        A file of UTF-8 text, with commas between the cells.
    label : str
        Name of the label column. Its distinct values are the classes. They are whole numbers or any
        other text. Numbers are equal if their values are, and blanks around a text do not count.

    Returns
    -------
    x : ndarray, float64, (samples, columns)
        The columns of numbers.
    y : ndarray, int64, (samples,)
        Class numbers, which are indices into `classes`.
    classes : list of str
        The labels, each as it was first written. They are sorted, by value if all are numbers.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When a column name occurs twice, the label column is missing, a cell is not a finite number,
        a label is missing or is a number that is not whole, there are about as many classes as
        samples, a line has too few or too many cells, or there are no lines or no columns of
        numbers.
    """
    path = _existing_file(path)
    with (
        _reading(path, "CSV file in UTF-8"),
        open(path, newline="", encoding="utf-8-sig") as file,
    ):
        reader = csv.reader(_lines(file), strict=True)
        try:
            return _read_table(reader, label.strip())
        except csv.Error as error:
            raise _ContentError(
                f"line {reader.line_num}: expected cells of CSV: {error}"
            ) from error


def _read_table(reader: Any, label: str) -> tuple[Array, Array, list[str]]:
    header = [name.strip() for name in next(reader, [])]
    if label not in header:
        some = ", ".join(header[:5]) + (", ..." if len(header) > 5 else "")
        raise _ContentError(
            f"expected a label column {_shown(label)}, got columns {one_line(some, 60) or 'none'}"
        )
    for name, count in Counter(header).most_common(1):
        if count > 1:
            raise _ContentError(f"expected one column {_shown(name)}, got {count}")
    column = header.index(label)
    features = header[:column] + header[column + 1 :]
    classes = _Classes()
    values, labels = array("d"), array("q")
    for cells in filter(None, reader):
        if len(cells) != len(header):
            raise _ContentError(
                f"line {reader.line_num}: expected {len(header)} cells as in the header, "
                f"got {len(cells)}"
            )
        text = cells.pop(column).strip()
        try:
            labels.append(classes.number(text))
        except ValueError as error:
            raise _ContentError(
                f"line {reader.line_num}, column {_shown(label)}: {error}, got {_shown(text)}"
            ) from None
        wrong = _add_numbers(cells, values)
        if wrong is not None:
            raise _ContentError(
                f"line {reader.line_num}, column {_shown(features[wrong])}: "
                f"expected a finite number, got {_shown(cells[wrong])}"
            )
    if not labels or not features:
        raise _ContentError(
            f"expected a header, lines of data and a column besides {_shown(label)}"
        )
    names, ranks = classes.sorted()
    y = ranks[np.array(labels)]
    check_classes(f"column {_shown(label)}", y)
    return np.frombuffer(values).reshape(len(y), -1), y, names


def check_classes(argument: str, y: Array) -> None:
    """Refuse labels that hardly ever repeat: a quantity, a date or the names of samples.

    Parameters
    ----------
    argument : str
        The name of the labels, for messages.
    y : ndarray
        The labels.

    Raises
    ------
    ValueError
        When there are fewer than two samples for each distinct label, and more than a few labels.
    """
    distinct = len(np.unique(y))
    if distinct > max(FEW, y.size / 2):
        raise _ContentError(
            f"{argument}: expected classes of several samples each, "
            f"got {distinct} distinct labels of {y.size} samples"
        )


class _ContentError(ValueError):
    """An error in the content of a file, in our own words."""


@contextmanager
def _reading(path: Path, kind: str) -> Iterator[None]:
    """Turn errors about a file's content, from any source, into a line that names the file."""
    try:
        # Python and NumPy warn about headers that damage has made odd.
        with warnings.catch_warnings(action="ignore"):
            yield
    except _ContentError as error:
        raise ValueError(about(path, error)) from error
    except MemoryError as error:
        raise ValueError(about(path, f"expected data that fit in memory: {error}")) from error
    except Exception as error:  # zipfile, zlib, NumPy and what they call raise a dozen types
        if isinstance(error, OSError) and error.filename is not None:
            raise  # the file cannot be opened
        text = str(error) or type(error).__name__
        raise ValueError(about(path, f"expected a whole {kind}: {text}")) from error


def _existing_file(path: str | PathLike[str]) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(about(path, "expected an existing file"))
    return path


def _find_idx(folder: Path, stem: str) -> Path:
    for name in (stem, f"{stem}.gz"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        about(folder, f"expected an IDX file {stem} or {stem}.gz, found neither")
    )


def _read_idx(path: Path) -> Array:
    """Read a file: 0, 0, type, number of axes, sizes as 4 big-endian bytes each, data."""
    zipped = path.suffix == ".gz"
    axes = int(path.name.removesuffix(".gz").split("idx")[1][0])
    with (
        _reading(path, "gzip file" if zipped else "IDX file"),
        gzip.open(path) if zipped else open(path, "rb") as file,
    ):
        header = file.read(4 + 4 * axes)
        if len(header) < 4 + 4 * axes or header[:4] != bytes((0, 0, 8, axes)):
            raise _ContentError(f"expected an IDX file of unsigned bytes with {axes} axes")
        shape = struct.unpack(f">{axes}I", header[4:])
        size = math.prod(shape)
        expected = f"expected {size} bytes of data for shape {shape}"
        if size > path.stat().st_size * (INFLATION if zipped else 1):
            raise _ContentError(f"{expected}, got a file that is too short for them")
        data = np.empty(size, np.uint8)
        room, filled = data.data, 0
        while part := file.readinto(room[filled : filled + CHUNK]):
            filled += part
        if filled < size:
            raise _ContentError(f"{expected}, got {filled}")
        if file.read(1):
            raise _ContentError(f"{expected}, got {size + 1} or more")
        return data.reshape(shape)


def _read_member(archive: zipfile.ZipFile, name: str) -> Array:
    """Read an array of an .npz file after a check that it takes no more memory than it states."""
    info = archive.getinfo(f"{name}.npy")
    as_saved = f"expected {name} as numpy.savez or savez_compressed writes it"
    if info.flag_bits & 1:
        raise _ContentError(f"{as_saved}, got it encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # zipfile unpacks all data of the other kinds, even if it is asked for less.
        raise _ContentError(f"{as_saved}, got compression of type {info.compress_type}")
    with archive.open(info) as member:
        version = npy.read_magic(member)
        if version not in ((1, 0), (2, 0)):
            raise _ContentError(f"expected an array of numbers as {name}, got format {version}")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(member)
        size = info.file_size - member.tell()
    if dtype.hasobject:
        raise _ContentError(f"expected an array of numbers as {name}, got Python objects")
    if math.prod(shape) * dtype.itemsize != size or size > info.compress_size * INFLATION:
        raise _ContentError(f"expected {size} bytes as {name}, got shape {shape} of {dtype}")
    with archive.open(info) as member:
        return npy.read_array(member, allow_pickle=False)


def _lines(file: TextIO) -> Iterator[str]:
    """Yield the lines, one at a time, of a file that may not be a text."""
    number = 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        if "\0" in line:
            raise _ContentError(f"line {number}: expected text, got a NUL byte")
        if len(line) == LONGEST_LINE:
            raise _ContentError(
                f"line {number}: expected fewer than {LONGEST_LINE} characters, got more"
            )
        yield line


def _add_numbers(cells: Sequence[str], values: array[float]) -> int | None:
    """Append the numbers in the cells, or return the index of a cell without a finite number."""
    try:
        numbers = [*map(float, cells)]
        right = all(map(math.isfinite, numbers)) and "_" not in "".join(cells)
    except ValueError:
        right = False
    if not right:
        return next(i for i, cell in enumerate(cells) if not _is_number(cell))
    values.extend(numbers)
    return None


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell)) and "_" not in cell  # Python reads 1_000 as a number
    except ValueError:
        return False


class _Classes:
    """Numbers for labels, in the order in which the labels come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}  # by the text of every label so far
        self._firsts: dict[Decimal | str, tuple[int, str]] = {}  # by the value of the label

    def number(self, text: str) -> int:
        """Return a label's number, or raise an error with what was expected as a label."""
        if text not in self._numbers:
            value = self._value(text)
            number, _ = self._firsts.setdefault(value, (len(self._firsts), text))
            self._numbers[text] = number
        return self._numbers[text]

    def sorted(self) -> tuple[list[str], Array]:
        """Return the names of the classes, and the place of each number's class among them."""
        numeric = all(isinstance(value, Decimal) for value in self._firsts)
        order = sorted(self._firsts.items(), key=lambda item: item[0] if numeric else item[1][1])
        ranks = np.empty(len(order), np.int64)
        ranks[[number for _, (number, _) in order]] = np.arange(len(order))
        return [text for _, (_, text) in order], ranks

    @staticmethod
    def _value(text: str) -> Decimal | str:
        if text in MISSING or text.lower() in MISSING:
            raise ValueError("expected a label")
        try:
            value = Decimal(text)  # exact for whole numbers of any size
        except InvalidOperation:
            return text
        if "_" in text:  # Python reads 1_000 as a number, others as a word
            return text
        if not value.is_finite() or value != value.to_integral_value():
            raise ValueError("expected a class, a word or a whole number")
        return value


def _shown(text: str) -> str:
    return one_line(repr(text), 30)
