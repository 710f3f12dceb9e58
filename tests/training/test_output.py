"""Results are written whole or not at all, under every name that `open` takes."""

import errno
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fastdrop._output import replace_file

NAMES = {
    "one letter": "m",
    "255 bytes": "x" * 255,
    "254 bytes in 127 letters": "\u00e4" * 127,
    "a dot": ".hidden",
    "dots": "...",
    "a dash": "-rf",
    "in no encoding": "a\udcff",
    "a line's end": "a\nb",
    "a pattern": "[a]*?",
    "blanks": "  ",
    "bytes": b"\xff",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=list(NAMES))
def test_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for content in (b"one", b"", b"three"):
        replace_file(name, content)
        assert os.listdir() == [os.fsdecode(name)]
        assert Path(os.fsdecode(name)).read_bytes() == content


def test_a_relative_name_counts_from_where_the_process_is(tmp_path, monkeypatch):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        replace_file("m", folder.encode())
    assert [(tmp_path / folder / "m").read_bytes() for folder in "ab"] == [b"a", b"b"]


def test_a_path_that_leaves_no_room_for_another_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    deep = "/".join(["d" * 250] * 16)
    Path(deep).mkdir(parents=True)
    path = deep + "/" + (4095 - len(deep) - 2) // 2 * "./"
    for content in (b"one", b"two"):
        replace_file(f"{path}m", content)
        assert (Path(deep) / "m").read_bytes() == content
    assert os.listdir(deep) == ["m"]


BAD_NAMES = {
    "256 bytes": ("x" * 256, errno.ENAMETOOLONG),
    "a folder": (".", errno.EISDIR),
    "in no folder": ("none/m", errno.ENOENT),
    "below a file": ("file/m", errno.ENOTDIR),
    "a loop": ("loop", errno.ELOOP),
}


@pytest.mark.parametrize(("name", "number"), BAD_NAMES.values(), ids=list(BAD_NAMES))
def test_bad_names(tmp_path, monkeypatch, name, number):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    with pytest.raises(OSError, match=f"(expected a file.* |'){re.escape(name)}'?$") as error:
        replace_file(name, b"content")
    assert error.value.errno == number
    assert type(error.value) is type(OSError(number, ""))
    assert sorted(os.listdir()) == ["file", "loop"]


# Links, and what is no file


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("elsewhere", ["folder", "/dev/shm"])
def test_links(tmp_path, monkeypatch, there, elsewhere):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    if not os.access(elsewhere, os.W_OK):
        pytest.skip(f"no {elsewhere}")
    target = Path(elsewhere, f"fastdrop-test-{os.getpid()}")
    Path("folder", "second").symlink_to(Path("..") / target)
    Path("first").symlink_to("folder/second")
    if there:
        target.write_bytes(b"before")
    try:
        replace_file("first", b"content")
        assert target.read_bytes() == b"content"
        assert os.readlink("first") == "folder/second"
        assert Path("folder", "second").is_symlink()
    finally:
        target.unlink()


def test_a_pipe(tmp_path):
    pipe, content, read = tmp_path / "pipe", os.urandom(1 << 20), []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    replace_file(pipe, content)
    reader.join()
    assert read == [content]
    assert os.listdir(tmp_path) == ["pipe"]


def test_devices():
    replace_file("/dev/null", b"content")
    if os.path.exists("/dev/full"):
        with pytest.raises(OSError, match=r"'/dev/full'$") as error:
            replace_file("/dev/full", b"content")
        assert error.value.errno == errno.ENOSPC


@pytest.mark.parametrize("to", ["pipe", "file", "deleted file"])
def test_standard_output(tmp_path, to):
    code = "from fastdrop._output import replace_file as r; r('/dev/stdout', b'content')"
    with open(tmp_path / "out", "w+b") as file:
        if to == "deleted file":
            (tmp_path / "out").unlink()
        stdout = subprocess.PIPE if to == "pipe" else file
        done = subprocess.run([sys.executable, "-c", code], stdout=stdout, check=True)
        written = {
            "pipe": lambda: done.stdout,
            "file": (tmp_path / "out").read_bytes,
            "deleted file": file.read,
        }[to]()
    assert written == b"content"
    assert os.listdir(tmp_path) == ([] if to == "deleted file" else ["out"])


# Modes and owners


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o664, 0o444, 0o755, 0o000])
@pytest.mark.parametrize("umask", [0o022, 0o000, 0o077])
def test_the_mode_stays(tmp_path, mode, umask):
    path = tmp_path / "m"
    path.write_bytes(b"before")
    path.chmod(mode)
    before = os.umask(umask)
    try:
        replace_file(path, b"content")
        replace_file(tmp_path / "new", b"content")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o666 & ~umask


def test_a_private_file_is_private_while_it_is_written(tmp_path, monkeypatch):
    path, modes, fsync = tmp_path / "m", [], os.fsync
    path.touch(0o600)

    def look(descriptor):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    replace_file(path, b"content")
    assert modes == [0o600]


root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs the rights of root")


@root_only
def test_owner_and_group_stay(tmp_path):
    path = tmp_path / "m"
    path.touch()
    os.chown(path, 1234, 2345)
    path.chmod(0o640)
    replace_file(path, b"content")
    after = path.stat()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (1234, 2345, 0o640)


# Folders with few rights


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, without the rights of root."""
    monkeypatch.chdir(tmp_path)
    if os.geteuid() != 0:
        yield tmp_path
    else:
        os.chown(tmp_path, 65534, 65534)
        os.seteuid(65534)
        try:
            yield tmp_path
        finally:
            os.seteuid(0)
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("mode", [0o300, 0o500, 0o100])
@pytest.mark.parametrize("content", [b"new", b"something longer than before", b""])
def test_a_folder_that_lacks_rights(folder, mode, content):
    Path("m").write_bytes(b"what was before")
    os.chmod(".", mode)
    replace_file("m", content)
    assert Path("m").read_bytes() == content
    if mode & 0o200:
        replace_file("new", content)
    else:
        with pytest.raises(PermissionError, match=r"'new'$"):
            replace_file("new", content)
    os.chmod(".", 0o700)
    assert sorted(os.listdir()) == (["m", "new"] if mode & 0o200 else ["m"])


@root_only
def test_a_file_of_another_in_a_sticky_folder(tmp_path, folder):
    os.seteuid(0)
    os.chown(folder, 0, 0)
    os.chmod(folder, 0o1777)
    Path("m").write_bytes(b"what was before")
    os.chmod("m", 0o666)
    os.seteuid(65534)
    try:
        os.close(os.open("m", os.O_WRONLY | os.O_CREAT))
    except PermissionError:
        pytest.skip("fs.protected_regular")
    replace_file("m", b"content")
    assert Path("m").read_bytes() == b"content"
    assert os.listdir() == ["m"]


# No room


LIMITED = """
import os, resource, sys
from fastdrop._output import replace_file
if os.geteuid() == 0:
    os.setuid(65534)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    replace_file("m", bytes(101))
except OSError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("mode", [0o700, 0o500])
def test_without_room_the_file_stays(folder, mode):
    Path("m").write_bytes(b"before")
    os.chmod(".", mode)
    try:
        if os.getuid() == 0:
            os.seteuid(0)
        done = subprocess.run([sys.executable, "-c", LIMITED], stderr=subprocess.PIPE, text=True)
        assert done.stderr == "[Errno 27] File too large: 'm'\n"
        assert Path("m").read_bytes() == b"before"
        assert os.listdir() == ["m"]
    finally:
        os.chmod(".", 0o700)


# Leftovers


def start(path, signal_number):
    """Start a process that gets a signal when the new file is written and not yet in place."""
    code = f"""
import os
from fastdrop._output import replace_file
fsync = os.fsync
def stop(descriptor):
    fsync(descriptor)
    os.fsync = fsync
    os.kill(os.getpid(), {int(signal_number)})
os.fsync = stop
replace_file({os.fspath(path)!r}, b"of the process")
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        process.returncode = -os.WTERMSIG(status)
    return process


@pytest.mark.parametrize("name", ["m", "x" * 255])
def test_what_dead_processes_leave_is_removed(tmp_path, name):
    path, other = tmp_path / name, tmp_path / "other"
    for each in (path, path, other):
        assert start(each, signal.SIGKILL).returncode == -signal.SIGKILL
    (left_of_path, left_of_other) = sorted(
        tmp_path.iterdir(), key=lambda left: left.stat().st_mtime_ns
    )
    assert not path.exists()  # what the first has left, the second has removed
    replace_file(path, b"content")
    assert sorted(tmp_path.iterdir()) == sorted([path, left_of_other])
    assert not left_of_path.exists()
    replace_file(other, b"content")
    assert sorted(os.listdir(tmp_path)) == sorted([name, "other"])


def test_what_a_living_process_writes_stays(tmp_path):
    path = tmp_path / "m"
    process = start(path, signal.SIGSTOP)
    try:
        (temporary,) = os.listdir(tmp_path)
        replace_file(path, b"content")
        assert sorted(os.listdir(tmp_path)) == sorted([temporary, "m"])
        assert path.read_bytes() == b"content"
    finally:
        process.send_signal(signal.SIGCONT)
    assert process.wait() == 0
    assert path.read_bytes() == b"of the process"
    assert os.listdir(tmp_path) == ["m"]


@root_only
def test_what_dead_processes_of_others_leave_is_removed(tmp_path, folder):
    os.seteuid(0)
    start("m", signal.SIGKILL)
    assert len(os.listdir()) == 1
    os.seteuid(65534)
    replace_file("m", b"content")
    assert os.listdir() == ["m"]


OTHERS = (".m.12345678", ".m.swp", ".m", "m~", ".fastdrop-", f".fastdrop-{'0' * 32}", ".fastdrop-m")


def test_files_of_others_stay(tmp_path):
    for name in OTHERS:
        (tmp_path / name).touch()
    replace_file(tmp_path / "m", b"content")
    assert sorted(os.listdir(tmp_path)) == sorted([*OTHERS, "m"])


@pytest.mark.slow
def test_a_process_may_be_killed_at_any_moment(tmp_path):
    """Also between the creation of the temporary file and its lock."""
    path = tmp_path / "m"
    path.write_bytes(bytes(1 << 20))
    code = f"""
import os
from fastdrop._output import replace_file
print(flush=True)
while True:
    replace_file({os.fspath(path)!r}, os.urandom(1) * (1 << 20))
"""
    for i in range(30):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        process.stdout.readline()
        process.stdout.close()
        threading.Event().wait(0.003 * i)
        process.kill()
        process.wait()
        content = path.read_bytes()
        assert len(content) == 1 << 20
        assert content == content[:1] * len(content)
    replace_file(path, b"content")
    assert os.listdir(tmp_path) == ["m"]
