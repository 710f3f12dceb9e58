"""Files of arrays and a configuration, in the format safetensors: data only, nothing is executed.

The metadata of a file are two texts::

    "fastdrop"    {"format": 2, "version": "0.1.0", "kind": "model", "config": {...}}
    "crc32"       "3735928559"

The checksum covers the first text, and the name, type, shape and bytes of each array, in the order
of the names. In format 1 it is in the first text, and covers the configuration and the bytes of the
arrays. docs/reference/file_format.md tells what the number of a format promises.

Whatever a file contains, reading it gives what was written, or a ValueError of one line. It takes
hardly more memory than the file has bytes.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import NoneType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastdrop._checks import check_keys, is_count
from fastdrop._messages import NotFiniteError, about, one_line_about, shown
from fastdrop._output import replace_file
from fastdrop._version import __version__

__all__ = ["OPTIMIZER", "read", "write"]

FORMAT = 2
KEY, CHECKSUM = "fastdrop", "crc32"
OPTIMIZER = "optimizer/"  # starts the names of an optimiser's arrays
LENGTH, BRACE = 8, b"{"  # bytes that tell the length of the header, which begins with a brace
HEADER = 1 << 21  # bytes; Python's objects for the JSON may be thirty times as large
DEPTH = 100  # levels of JSON, of which a `Residual` takes three
AXES = 32  # the most axes of an array in all versions of NumPy

# safetensors' names. The bytes in a file are little-endian.
TYPES = {
    name: np.dtype(code)
    for name, code in (
        *(("BOOL", "?"), ("U8", "u1"), ("I8", "i1")),
        *(("U16", "<u2"), ("I16", "<i2"), ("F16", "<f2")),
        *(("U32", "<u4"), ("I32", "<i4"), ("F32", "<f4")),
        *(("U64", "<u8"), ("I64", "<i8"), ("F64", "<f8")),
    )
}
TYPE_NAMES = {dtype: name for name, dtype in TYPES.items()}

Array = NDArray[Any]


def write(
    path: str | PathLike[str], kind: str, config: Mapping[str, Any], arrays: Mapping[str, Array]
) -> None:
    """Write a file, so that its name always stands for the whole new file or for the old one.

    Parameters
    ----------
    path : path
        The file.
    kind : str
        What the file is, for `read`.
    config : mapping
        A configuration that JSON can hold: text, flags, finite numbers, and whole numbers of at
        most 64 bits.
    arrays : mapping of str to ndarray
        Arrays of numbers of at most 64 bits.

    Raises
    ------
    NotFiniteError
        When numbers that are not finite would replace a file of finite numbers. An optimiser's
        numbers do not count.
    ValueError
        When a file cannot hold the configuration or an array.
    OSError
        When the file cannot be written.
    """
    from safetensors.numpy import save

    fault = _fault(config)
    if fault is not None:
        raise ValueError(kind + fault)
    stored = {name: _as_stored(name, array) for name, array in arrays.items()}
    text = json.dumps({"format": FORMAT, "version": __version__, "kind": kind, "config": config})
    content = save(stored, {KEY: text, CHECKSUM: str(_checksum(text, stored))})
    size = int.from_bytes(content[:8], "little")
    if size > HEADER:
        raise ValueError(
            f"{kind}: expected a configuration and names of arrays of at most {HEADER} bytes, "
            f"got {size}"
        )
    spoilt = _not_finite(stored)
    if spoilt is not None and _is_finite(path):
        text = f"expected finite numbers to replace finite ones, got others in {spoilt!r}"
        raise NotFiniteError(about(path, text))
    replace_file(path, content)


def read(
    path: str | PathLike[str], kinds: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read a file that `write` wrote.

    Parameters
    ----------
    path : path
        The file.
    kinds : sequence of str
        What the file may be.

    Returns
    -------
    config : dict
        The configuration.
    arrays : dict of str to ndarray
        The arrays by name.

    Raises
    ------
    ValueError
        When the file is damaged, of another kind, or of another version of the format.
    OSError
        When the file cannot be read.
    """
    kind, config, arrays = _read(path)
    with one_line_about(path):
        if kind not in kinds:
            raise ValueError(f"expected a file of kind {' or '.join(kinds)}, got one of {kind}")
        if not isinstance(config, dict):
            raise ValueError(f"expected a dict as configuration, got {shown(config)}")
    return config, arrays


def _read(path: str | PathLike[str]) -> tuple[Any, Any, dict[str, Array]]:
    """Return a file's kind, configuration and arrays."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(about(path, "expected a file, got a folder"))
    if not path.is_file():
        raise FileNotFoundError(about(path, "expected an existing file"))
    with open(path, "rb") as file, one_line_about(path, OSError):
        metadata, entries = _read_header(file)
        header = _parsed(metadata[KEY])
        if not isinstance(header, dict) or "format" not in header:
            raise ValueError(f"expected a file that fastdrop has saved, got {shown(header)}")
        form = header["format"]
        if not is_count(form) or form > FORMAT:
            raise ValueError(
                f"expected a format of at most {FORMAT}, got {shown(form)} of fastdrop "
                f"{header.get('version')}"
            )
        stored = (header if form == 1 else metadata).pop(CHECKSUM, None)
        check_keys("metadata", metadata, [KEY])
        check_keys(f"metadata, {KEY}", header, ["format", "version", "kind", "config"])
        arrays = _read_arrays(file, entries)
        config = header["config"]
        checksum = (
            _checksum(metadata[KEY], arrays)
            if form > 1
            else _checksum(json.dumps(config), arrays, described=False)
        )
        if str(stored) != str(checksum):
            raise ValueError("expected the bytes that were saved, got a damaged file")
    native = {name: a.astype(a.dtype.newbyteorder("="), copy=False) for name, a in arrays.items()}
    return header["kind"], config, native


def _read_header(file: BinaryIO) -> tuple[dict[str, str], dict[str, Any]]:
    """Return a file's metadata, and its description of the arrays in the order of their bytes."""
    size = os.fstat(file.fileno()).st_size
    if not size:
        raise ValueError("expected a file that fastdrop has saved, got an empty one")
    head = file.read(LENGTH + len(BRACE))
    if head[LENGTH:] != BRACE:
        raise ValueError(
            f"expected a file that fastdrop has saved, got one of {size} bytes that begins with "
            f"{head!r}"
        )
    length = int.from_bytes(head[:LENGTH], "little")
    if length > HEADER:
        raise ValueError(
            f"expected a file that fastdrop has saved, with a header of at most {HEADER} bytes, "
            f"got one of {length}"
        )
    if length > size - LENGTH:
        raise ValueError(
            f"expected a whole safetensors file, got one of {size} bytes, which ends in its header"
        )
    file.seek(LENGTH)
    entries = _parsed(str(file.read(length), "utf-8"))
    if not isinstance(entries, dict):
        raise ValueError("expected a whole safetensors file, got one without a header")
    metadata = entries.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get(KEY), str):
        raise ValueError("expected a file that fastdrop has saved, got another safetensors file")
    for name, entry in entries.items():
        check_keys(repr(name), entry, ["dtype", "shape", "data_offsets"])
    entries = dict(sorted(entries.items(), key=lambda entry: entry[1]["data_offsets"]))
    end = 0
    for name, entry in entries.items():
        dtype, shape, place = entry["dtype"], entry["shape"], entry["data_offsets"]
        whole = all(is_count(number, least=0) for number in (*shape, *place))
        if dtype not in TYPES or len(shape) > AXES or not whole:
            raise ValueError(
                f"{name!r}: expected a type and a shape, got {shown(dtype)} and {shape!r}"
            )
        start, end = end, end + TYPES[dtype].itemsize * math.prod(shape)
        if place != [start, end]:
            raise ValueError(f"{name!r}: expected bytes {start} to {end}, got {shown(place)}")
    if LENGTH + length + end != size:
        raise ValueError(
            f"expected a whole safetensors file of {LENGTH + length + end} bytes, got {size}"
        )
    return metadata, entries


def _read_arrays(file: BinaryIO, entries: Mapping[str, Any]) -> dict[str, Array]:
    arrays = {}
    for name, entry in entries.items():
        array = arrays[name] = np.empty(entry["shape"], TYPES[entry["dtype"]])
        if file.readinto(_bytes(array)) != array.nbytes:  # type: ignore[attr-defined]
            raise ValueError("expected a whole safetensors file, got one that is being written")
    return arrays


def _parsed(text: str) -> Any:
    """Return the object in JSON, if `write` could have written it."""
    try:
        parsed = json.loads(text, object_pairs_hook=_each_once, parse_int=_whole_number)
    except json.JSONDecodeError as error:
        raise ValueError(f"expected a whole safetensors file with JSON in it: {error}") from None
    except RecursionError:
        raise ValueError(f"expected JSON of at most {DEPTH} levels, got more") from None
    fault = _fault(parsed)
    if fault is not None:
        raise ValueError(f"JSON{fault}")
    return parsed


def _each_once(items: list[tuple[str, Any]]) -> dict[str, Any]:
    parsed = dict(items)
    if len(parsed) < len(items):
        raise ValueError("JSON: expected each name once, got one twice")
    return parsed


def _whole_number(digits: str) -> int:
    if len(digits) > 20:  # Python takes long to convert many digits
        raise ValueError("JSON: expected whole numbers of at most 64 bits, got a larger one")
    return int(digits)


_PLAIN = (str, bool, NoneType)


def _fault(value: Any, depth: int = DEPTH) -> str | None:
    """Return where a configuration has what a file cannot hold, and what; None if nowhere."""
    if isinstance(value, _PLAIN):
        return None
    if isinstance(value, int):
        fits = -(1 << 63) <= value < 1 << 64
        return None if fits else ": expected whole numbers of at most 64 bits, got a larger one"
    if isinstance(value, float):
        return None if math.isfinite(value) else f": expected finite numbers, got {shown(value)}"
    named = isinstance(value, Mapping)
    if not named and not isinstance(value, list | tuple):
        return f": expected numbers, text and lists, which a file can hold, got {shown(value)}"
    if not depth:  # the place would take a long text
        raise ValueError(f"expected JSON of at most {DEPTH} levels, got more")
    for key, item in value.items() if named else enumerate(value):
        if named and not isinstance(key, str):
            return f": expected names that are text, got {shown(key)}"
        fault = _fault(item, depth - 1)
        if fault is not None:
            return (f".{key}" if named else f"[{key}]") + fault
    return None


def _as_stored(name: str, array: Array) -> Array:
    """Return an array whose memory is as it is in a file."""
    array = np.asarray(array)
    stored = array.astype(array.dtype.newbyteorder("<"), "C", copy=False)
    if stored.dtype not in TYPE_NAMES:
        raise ValueError(
            f"{name}: expected an array of one of {', '.join(TYPES)}, got {array.dtype}"
        )
    return stored


def _bytes(array: Array) -> Array:
    """Return a contiguous array's memory."""
    return array.reshape(-1).view(np.uint8)


def _checksum(text: str, arrays: Mapping[str, Array], described: bool = True) -> int:
    """Return the checksum of a text and of arrays, `described` as in all formats but 1."""
    checksum = zlib.crc32(text.encode())
    for name, array in sorted(arrays.items()):
        if described:
            described_as = json.dumps([name, TYPE_NAMES[array.dtype], array.shape])
            checksum = zlib.crc32(described_as.encode(), checksum)
        checksum = zlib.crc32(_bytes(array).data, checksum)
    return checksum


def _not_finite(arrays: Mapping[str, Array]) -> str | None:
    """Return the name of an array that has NaN or infinity, or None."""
    return next(
        (
            name
            for name, array in arrays.items()
            if not name.startswith(OPTIMIZER)
            and array.dtype.kind == "f"
            and not np.isfinite(array).all()
        ),
        None,
    )


def _is_finite(path: str | PathLike[str]) -> bool:
    """Tell whether there is a file of finite arrays."""
    try:
        _, _, arrays = _read(path)
    except (OSError, ValueError):
        return False
    return bool(arrays) and _not_finite(arrays) is None
