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
from typing import BinaryIO

from fastdrop._messages import one_line

_PREFIX = ".fastdrop-"  # starts the names of files that are being written
# A file that can be written cannot always be replaced: its folder may be read-only or sticky, it
# may be a mount point, or its path may leave no room for another name.
_IRREPLACEABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.ENAMETOOLONG)
_EXPECTED = {
    errno.ENOENT: "a file in an existing folder, got",
    errno.ENOTDIR: "a file in an existing folder, got",
    errno.EEXIST: "a file in an existing folder, got",
    errno.EISDIR: "a file, got the folder",
}


def make_writable(folder: Path, names: Iterable[str] = ()) -> None:
    """Make the folder if it is missing, and check at once that files can be written to it.

    Parameters
    ----------
    folder : Path
        The folder.
    names : iterable of str
        The names of the files.

    Raises
    ------
    OSError
        When they cannot be written.
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
    """Write a file, so that its name always stands for the whole new file or for the old one.

    That also holds if the process is killed or the power fails. A killed process leaves a hidden
    file, which is removed when a file of the same name is written again. An existing file keeps
    its mode, owner and group as far as the system allows. A link stays a link, and the file that it
    leads to is written.

    Where no other file can take the place of this one (a device, a pipe, or a folder that one may
    not write to), it is overwritten, as by `open`.

    Parameters
    ----------
    path : path
        The file.
    content : bytes
        All of its content.

    Raises
    ------
    OSError
        When the file cannot be written. The error names `path`.
    """
    path = Path(os.fsdecode(path))
    try:
        target, before = _behind(path)
        if before is None or _is_the_file(target, before):
            try:
                with _replacement(target, before) as file:
                    file.write(content)
                return
            except OSError as error:
                if error.errno not in _IRREPLACEABLE:
                    raise
        _write_into(path, content)
    except OSError as error:
        raise of_the_path(error, path) from None


def of_the_path(error: OSError, path: Path, argument: str = "path") -> OSError:
    """Return what to raise where a file cannot be written, with the path that the user knows.

    Parameters
    ----------
    error : OSError
        What happened; it may name a temporary file.
    path : Path
    argument : str
        What gave the path.
    """
    if error.errno is None:  # it says all
        return error
    expected = _EXPECTED.get(error.errno)
    if expected is None:
        return OSError(error.errno, error.strerror, str(path))
    said = type(error)(one_line(f"{argument}: expected {expected} {path}"))
    said.errno = error.errno
    return said


@contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[BinaryIO]:
    """Give a file to write to part by part; see `replace_file` for what is under its name when.

    Parameters
    ----------
    path : path

    Raises
    ------
    OSError
        When it cannot be written; it names `path`.
    """
    path = Path(path)
    try:
        target, before = _behind(path)
        whole = before is None or _is_the_file(target, before)
        with _replacement(target, before) if whole else open(path, "wb") as file:
            yield file
    except OSError as error:
        theirs = error.filename is not None and not Path(error.filename).name.startswith(_PREFIX)
        if theirs:  # of whoever writes, about something else
            raise
        raise of_the_path(error, path) from None


def _behind(path: Path) -> tuple[Path, os.stat_result | None]:
    """Return what a link leads to, and the status of the file if there is one."""
    try:
        before = path.stat()
    except FileNotFoundError:
        before = None
    target = path
    while target.is_symlink():
        target = target.parent / target.readlink()
    return target, before


def _is_the_file(target: Path, status: os.stat_result) -> bool:
    """Tell whether an ordinary file has this name (the file behind /dev/stdout may have none)."""
    return (
        stat.S_ISREG(status.st_mode) and target.exists() and os.path.samestat(status, target.stat())
    )


@contextmanager
def _replacement(target: Path, before: os.stat_result | None) -> Iterator[BinaryIO]:
    """Give a file that takes the target's place when it is written."""
    _remove_leftovers(target)
    temporary, descriptor = _create_temporary(target, 0o666 if before is None else 0o600)
    with open(descriptor, "wb") as file:
        try:
            if before is not None:
                for owner, group in ((before.st_uid, -1), (-1, before.st_gid)):
                    with suppress(OSError):  # if it cannot be given away, it is kept
                        os.fchown(descriptor, owner, group)
                shutil.copystat(target, temporary)
            yield file
            file.flush()
            os.fsync(descriptor)
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    with suppress(OSError):  # the file is saved, and not every folder can be synchronised
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name
        finally:
            os.close(folder)


def _create_temporary(target: Path, mode: int) -> tuple[Path, int]:
    """Create a file beside `target`, locked while it is open, to show that its writer is alive."""
    while True:
        temporary = target.with_name(_temporary_name(target.name, os.urandom(8).hex()))
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = os.fstat(descriptor).st_nlink > 0
        except BlockingIOError:
            there = False
        except OSError:
            there = True  # there are no locks here, so nobody takes the file for a leftover
        if there:
            return temporary, descriptor
        os.close(descriptor)  # somebody took it for a leftover before it was locked


def _temporary_name(name: str, salt: str) -> str:
    """Return a name that no other file has by chance, and that is short even for a long `name`."""
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
            with suppress(OSError):  # no permission, no locks here, or the writer is alive
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    # a shared lock, because NFS gives no other for reading
                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    path.unlink()
                finally:
                    os.close(descriptor)


def _write_into(path: Path, content: bytes) -> None:
    """Overwrite a file that cannot be replaced, unless there is no room for the new content."""
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
        An existing folder.

    Raises
    ------
    OSError
        When another process has claimed the folder.
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
