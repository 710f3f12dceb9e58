"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
    path = Path(os.path.realpath(path))  # a link stays one
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "expected a file, got a device or the like", str(path))
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with open(temporary, "xb") as file:
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
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems don't
            raise
    finally:
        os.close(folder)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep other processes that claim the folder out of it, where the file system can.

    Parameters
    ----------
    folder : Path
        An existing one.

    Raises
    ------
    OSError
        When another process has claimed it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(
                f"--out: expected a folder that nobody else writes to, got {folder}, where another "
                "fastdrop train is at work"
            ) from None
        except OSError:
            pass  # no locks here
        yield
    finally:
        os.close(descriptor)


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
