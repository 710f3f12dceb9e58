"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path


def make_writable(folder: Path, names: Iterable[str] = ()) -> None:
    """Make the folder if it is missing, and find out now whether files can be written to it.

    Parameters
    ----------
    folder : Path
    names : iterable of str
        Of the files.

    Raises
    ------
    OSError
        If not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for name in names:
            if (folder / name).is_dir():
                raise IsADirectoryError(errno.EISDIR, f"{name} in it is a folder")
    except OSError as error:
        raise OSError(
            f"--out: expected a folder that can be written, got {folder} ({error.strerror})"
        ) from error


def replace_file(path: Path, content: bytes) -> None:
    """Write a file, so that under its name there is the whole of it or what was there before.

    That holds also when the process is killed, or the power fails.

    Parameters
    ----------
    path : Path
    content : bytes

    Raises
    ------
    OSError
        When it cannot be written; it names `path`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:  # of the temporary file, whose name nobody knows
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name
    finally:
        os.close(folder)


def remove_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Remove what `replace_file` has left of files of these names where a process was killed.

    Parameters
    ----------
    folder : Path
    names : iterable of str
    """
    for name in names:
        for path in folder.glob(f".{name}.*"):
            path.unlink(missing_ok=True)


def write(path: Path, content: bytes) -> None:
    """Write a result, see `replace_file`, and say so.

    Parameters
    ----------
    path : Path
    content : bytes
    """
    replace_file(path, content)
    print(f"written: {path}")
