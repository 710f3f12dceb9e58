"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path

_PREFIX = ".fastdrop-"  # of files that are being written
# Why a file that can be written cannot be replaced: its folder is read-only or sticky, it is a
# mount point, or the folder's path leaves no room for another name.
_IRREPLACEABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.ENAMETOOLONG)


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


def replace_file(path: str | bytes | PathLike[str], content: bytes) -> None:
    """Write a file, so that under its name there is the whole of it or what was there before.

    That holds also when the process is killed, or the power fails. The hidden file that a killed
    process leaves is removed when a file of the same name is written again. Mode, owner and group
    of a file that was there stay, as far as they may. A link stays one, and what it leads to is
    written.

    Where there can be no other file that takes its place (a device, a pipe, a folder in which one
    may not write), it is written as it stands, as `open` does.

    Parameters
    ----------
    path : path
    content : bytes

    Raises
    ------
    OSError
        When it cannot be written; it names `path`.
    """
    path = Path(os.fsdecode(path))
    try:
        try:
            before = path.stat()
        except FileNotFoundError:
            before = None
        target = path
        while target.is_symlink():
            target = target.parent / target.readlink()
        if before is None or _is_the_file(target, before):
            try:
                _replace(target, content, before)
                return
            except OSError as error:
                if error.errno not in _IRREPLACEABLE:
                    raise
        _write_into(path, content)
    except OSError as error:  # perhaps of the temporary file, whose name nobody knows
        raise OSError(error.errno, error.strerror, str(path)) from None


def _is_the_file(target: Path, status: os.stat_result) -> bool:
    """Tell whether an ordinary file has this name (that behind /dev/stdout may have none)."""
    return (
        stat.S_ISREG(status.st_mode) and target.exists() and os.path.samestat(status, target.stat())
    )


def _replace(target: Path, content: bytes, before: os.stat_result | None) -> None:
    _remove_leftovers(target)
    temporary, descriptor = _create_temporary(target, 0o666 if before is None else 0o600)
    with open(descriptor, "wb") as file:
        try:
            if before is not None:
                for owner, group in ((before.st_uid, -1), (-1, before.st_gid)):
                    with suppress(OSError):  # who may not give it away keeps it
                        os.fchown(descriptor, owner, group)
                shutil.copystat(target, temporary)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    with suppress(OSError):  # it is saved; not all folders can do that
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name
        finally:
            os.close(folder)


def _create_temporary(target: Path, mode: int) -> tuple[Path, int]:
    """Create a file beside `target`, locked for as long as it is open: its writer lives."""
    while True:
        temporary = target.with_name(_temporary_name(target.name, os.urandom(8).hex()))
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = os.fstat(descriptor).st_nlink > 0
        except BlockingIOError:
            there = False
        except OSError:
            there = True  # no locks here: then nobody takes it for a leftover either
        if there:
            return temporary, descriptor
        os.close(descriptor)  # somebody took it for a leftover before it was locked


def _temporary_name(name: str, salt: str) -> str:
    """A name that no other file has by chance, and that is not longer for a long one."""
    text = f"{salt} {name}".encode(errors="surrogateescape")
    return f"{_PREFIX}{salt}{hashlib.blake2b(text, digest_size=8).hexdigest()}"


def _remove_leftovers(target: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote `target`."""
    try:
        names = os.listdir(target.parent)
    except OSError:
        return
    for name in names:
        if name.startswith(_PREFIX) and name == _temporary_name(
            target.name, name[len(_PREFIX) :][:16]
        ):
            path = target.with_name(name)
            with suppress(OSError):  # no right to, no locks here, or its writer lives
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    # a shared one, as NFS gives no other for reading
                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    path.unlink()
                finally:
                    os.close(descriptor)


def _write_into(path: Path, content: bytes) -> None:
    """Write what cannot be replaced; a file stays as it was if there is no room for the new one."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), "wb") as file:
        before = os.fstat(file.fileno())
        regular = stat.S_ISREG(before.st_mode)
        if regular and content and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, len(content))
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    os.ftruncate(file.fileno(), before.st_size)
                    raise
        file.write(content)
        file.flush()
        if regular:
            file.truncate(len(content))
            os.fsync(file.fileno())


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
