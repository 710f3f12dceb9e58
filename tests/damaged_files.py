"""Data files, ways to damage them, and what has to come of it: for the tests and a long fuzzer."""

import gzip
import io
import struct
import zipfile
from pathlib import Path
from random import Random

import numpy as np
from idx_files import idx, idx_arrays

from fastdrop.datasets import IDX_STEMS, load_csv, load_idx, load_npz

# Pieces that mean something to one of the formats
PIECES = (
    b"",
    b"\0",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\0\0\x08\3",
    b"PK\1\2",
    b"PK\3\4",
    b"PK\5\6",
    b"\x1f\x8b\x08\0",
    b"\x93NUMPY\1\0",
    b"'descr'",
    b"(99999999999,)",
    b"(-1,)",
    b"|O",
    b"<U9",
    b"\\x",
    b"((((",
    b"True",
    b'"',
    b",",
    b";",
    b"\n",
    b"\r",
    b"\xef\xbb\xbf",
    b"\xe4",
    b"nan",
    b"inf",
    b"1e999",
    b"1_0",
    b"label",
    b"\x1b[31m",
    b"9" * 200,
    b"x" * 140_000,
)


def damaged(draw: Random, content: bytes) -> bytes:
    """A copy with one or a few random changes."""
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        content = draw.choice(CHANGES)(draw, content)
    return content


def _span(draw, content):
    start = draw.randrange(len(content) + 1)
    return start, min(len(content), start + draw.choice((1, 2, 4, 8, 30, 1000)))


def _flip(draw, content):
    if not content:
        return content
    changed = bytearray(content)
    changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _cut(draw, content):
    return content[: draw.randrange(len(content) + 1)]


def _remove(draw, content):
    start, stop = _span(draw, content)
    return content[:start] + content[stop:]


def _repeat(draw, content):
    start, stop = _span(draw, content)
    return content[:stop] + content[start:stop] * draw.choice((1, 2, 50)) + content[stop:]


def _replace(draw, content):
    start, stop = _span(draw, content)
    return content[:start] + draw.randbytes(stop - start) + content[stop:]


def _insert(draw, content):
    start, _ = _span(draw, content)
    return content[:start] + draw.choice(PIECES) + content[start:]


def _overwrite(draw, content):
    start, piece = draw.randrange(len(content) + 1), draw.choice(PIECES)
    return content[:start] + piece + content[start + len(piece) :]


def _move(draw, content):
    start, stop = _span(draw, content)
    to, _ = _span(draw, content)
    return content[:to] + content[start:stop] + content[to:]


CHANGES = (_flip, _flip, _cut, _remove, _repeat, _replace, _insert, _overwrite, _move)

X = np.arange(12.0).reshape(6, 2)
Y = np.array([0, 1, 2, 0, 1, 2])
TABLE = b'a,"b, c",label\r\n' + b"".join(
    b'%d,"1.%d",%s\r\n' % (i, i, b"abc"[i % 3 :][:1]) for i in range(9)
)


def _member(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _npz(compression, *members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in zip(("x.npy", "y.npy", "more.npy"), members):
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return file.getvalue()


def _in_the_archive(compression):
    """Damage of an archive."""
    return lambda draw: damaged(draw, _npz(compression, _member(X), _member(Y)))


def _in_the_array(draw):
    """An archive, as such whole, of a damaged array."""
    return _npz(zipfile.ZIP_DEFLATED, damaged(draw, _member(X)), _member(Y))


def _in_the_images(draw):
    """A gzip file, as such whole, of damaged images or of much more than their header says."""
    content = damaged(draw, idx(idx_arrays()[0]))
    size = draw.choice((0, 0, 10_000_000))
    return gzip.compress(content + bytes(size), 1, mtime=0)


def _in_the_sizes(draw):
    sizes = [draw.choice((0, 1, 5, 2**10, 2**20, 2**32 - 1)) for _ in range(3)]
    return gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, *sizes), mtime=0)


# By name: the file that is damaged, its content as a function of a generator of random numbers,
# what reads it, and what it has to give if it gives anything (None: there is no checksum)
KINDS = {
    "idx": (IDX_STEMS[0], lambda draw: damaged(draw, idx(idx_arrays()[0])), load_idx, None),
    "labels": (IDX_STEMS[1], lambda draw: damaged(draw, idx(idx_arrays()[1])), load_idx, None),
    "gzip": (
        f"{IDX_STEMS[0]}.gz",
        lambda draw: damaged(draw, gzip.compress(idx(idx_arrays()[0]), mtime=0)),
        load_idx,
        lambda loaded: loaded[0][0].tobytes() == idx_arrays()[0].tobytes(),
    ),
    "gzip of damage": (f"{IDX_STEMS[0]}.gz", _in_the_images, load_idx, None),
    "gzip of sizes": (f"{IDX_STEMS[0]}.gz", _in_the_sizes, load_idx, None),
    **{
        f"npz, compression {compression}": (
            "data.npz",
            _in_the_archive(compression),
            load_npz,
            lambda loaded: [loaded[name].tobytes() for name in "xy"] == [X.tobytes(), Y.tobytes()],
        )
        for compression in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
            zipfile.ZIP_BZIP2,
            zipfile.ZIP_LZMA,
        )
    },
    "npz of damage": ("data.npz", _in_the_array, load_npz, None),
    "csv": ("data.csv", lambda draw: damaged(draw, TABLE), load_csv, None),
}


def check(folder: Path, kind: str, draw: Random) -> bool:
    """Write and read a damaged file; tell whether it was refused, raise where that was wrong."""
    name, content, load, right = KINDS[kind]
    if load is load_idx:
        for stem, array in zip(IDX_STEMS, idx_arrays()):
            (folder / f"{stem}.gz").unlink(missing_ok=True)
            (folder / stem).write_bytes(idx(array))
        (folder / name.removesuffix(".gz")).unlink()
    path = folder / name
    path.write_bytes(content(draw))
    try:
        loaded = load(folder if load is load_idx else path)
    except ValueError as error:
        said = str(error)
        assert len(said) <= 176, said
        assert said.isprintable(), ascii(said)
        # of images and labels that differ in number it names the folder
        assert f"{name}: " in said or f"{folder.name}: " in said, said
        return True
    assert right is None or right(loaded)
    if load is load_csv:
        x, y, classes = loaded
        assert np.isfinite(x).all()
        assert len(x) == len(y)
        assert set(y.tolist()) == {*range(len(classes))}
    return False
