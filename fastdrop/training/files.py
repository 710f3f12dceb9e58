"""Files of arrays and a configuration, in the format safetensors: data only, nothing is executed.

The configuration is JSON under the name "fastdrop" in the file's metadata:

    {"format": 1, "version": "0.1.0", "kind": "model", "crc32": 123, "config": {...}}

where crc32 is that of the configuration's text and the arrays' bytes, in the order of their names.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from fastdrop import __version__
from fastdrop._output import replace_file
from fastdrop.layers import Array

__all__ = ["read", "write"]

FORMAT = 1
KEY = "fastdrop"


def write(
    path: str | PathLike[str], kind: str, config: Mapping[str, Any], arrays: Mapping[str, Array]
) -> None:
    """Write a file, so that under its name there is the whole of it or what was there before.

    Parameters
    ----------
    path : path
    kind : str
        What the file is, for `read`.
    config : mapping
        What JSON can hold.
    arrays : mapping of str to ndarray
        Of any numeric dtype.

    Raises
    ------
    ValueError
        When JSON cannot hold the configuration.
    OSError
        When the file cannot be written.
    """
    from safetensors.numpy import save

    _check_plain(kind, config)
    dense = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    header = {
        "format": FORMAT,
        "version": __version__,
        "kind": kind,
        "crc32": _crc32(config, dense),
        "config": config,
    }
    replace_file(Path(path), save(dense, {KEY: json.dumps(header)}))


def read(
    path: str | PathLike[str], kinds: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read a file that `write` wrote.

    Parameters
    ----------
    path : path
    kinds : sequence of str
        What the file may be.

    Returns
    -------
    config : dict
    arrays : dict of str to ndarray

    Raises
    ------
    ValueError
        When the file is damaged, of another kind, or of another version of the format.
    OSError
        When it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: expected an existing file, got {path}")
    try:
        with safe_open(path, "np") as file:
            try:
                header = json.loads((file.metadata() or {})[KEY])
                version, kind, config = header["format"], header["kind"], header["config"]
            except (KeyError, RecursionError, TypeError, ValueError):
                raise ValueError(
                    f"{path}: expected a file that fastdrop has saved, got another safetensors file"
                ) from None
            arrays = {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: expected a whole safetensors file: {error}") from None
    if version != FORMAT:
        raise ValueError(
            f"{path}: expected format {FORMAT}, got {version}, of fastdrop {header.get('version')}"
        )
    if kind not in kinds:
        raise ValueError(f"{path}: expected a file of {' or '.join(kinds)}, got one of {kind}")
    if header.get("crc32") != _crc32(config, arrays):
        raise ValueError(f"{path}: expected the bytes that were saved, got a damaged file")
    return config, arrays


def _crc32(config: Mapping[str, Any], arrays: Mapping[str, Array]) -> int:
    checksum = zlib.crc32(json.dumps(config).encode())
    for name in sorted(arrays):
        checksum = zlib.crc32(arrays[name].tobytes(), checksum)
    return checksum


def _check_plain(argument: str, value: Any) -> None:
    """Refuse what JSON cannot hold, and name it."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_plain(f"{argument}.{key}", item)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_plain(f"{argument}[{i}]", item)
    elif not isinstance(value, str | int | float | None):
        raise ValueError(
            f"{argument}: expected numbers, text and lists, which a file can hold, got {value!r}"
        )
