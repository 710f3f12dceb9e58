"""Files that commands write."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def make_writable(folder: Path) -> None:
    """Make the folder if it is missing, and find out now whether files can be written to it.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    OSError
        If not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"--out: expected a folder that can be written, got {folder} ({error.strerror})"
        ) from error


def write(path: Path, content: bytes) -> None:
    """Write a file, so that under its name there is the whole of it or nothing, and say so.

    Parameters
    ----------
    path : Path
    content : bytes
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"written: {path}")
