import gzip
import io
import re
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from idx_files import idx, idx_arrays

from fastdrop.datasets import IDX_STEMS, load_csv, load_digits, load_idx, load_npz


def test_digits():
    x, y = load_digits()
    assert x.shape == (1797, 8, 8)
    assert y.shape == (1797,)
    assert x.dtype == y.dtype == np.uint8
    assert (x.min(), x.max()) == (0, 16)
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.fixture
def idx_folder(tmp_path):
    for stem, array in zip(IDX_STEMS, idx_arrays()):
        (tmp_path / stem).write_bytes(idx(array))
    return tmp_path


@pytest.mark.parametrize("zipped", [False, True])
def test_idx(idx_folder, zipped):
    if zipped:
        for stem in IDX_STEMS:
            path = idx_folder / stem
            (idx_folder / f"{stem}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    (x_train, y_train), (x_test, y_test) = load_idx(idx_folder)
    for got, expected in zip((x_train, y_train, x_test, y_test), idx_arrays()):
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, expected)


IMAGES, LABELS = IDX_STEMS[:2]
BAD_IDX = {
    "truncated": (IMAGES, idx(idx_arrays()[0])[:-1], "expected 30 bytes .* got 29"),
    "too long": (IMAGES, idx(idx_arrays()[0]) + b"x", "expected 30 bytes .* got 31"),
    "header": (IMAGES, b"\0\0\x08", "expected an IDX file"),
    "empty": (IMAGES, b"", "expected an IDX file"),
    "other file": (IMAGES, b"PK\3\4" * 9, "expected an IDX file"),
    "axes": (IMAGES, idx(idx_arrays()[1]), "3 axes"),
    "counts": (LABELS, idx(idx_arrays()[3]), "got 5 images and 2 labels"),
    "huge": (IMAGES, struct.pack(">4B3I", 0, 0, 8, 3, *[2**32 - 1] * 3), "bytes of data"),
}


@pytest.mark.parametrize(("stem", "content", "message"), BAD_IDX.values(), ids=list(BAD_IDX))
def test_bad_idx(idx_folder, stem, content, message):
    (idx_folder / stem).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_idx(idx_folder)


WHOLE = idx(idx_arrays()[0])
ZIPPED = gzip.compress(WHOLE)
BAD_GZIP = {
    "no gzip": (b"no gzip", "a whole gzip file"),
    "empty": (b"", "an IDX file"),
    "truncated": (ZIPPED[:-9], "a whole gzip file"),
    "truncated in the checksum": (ZIPPED[:-1], "a whole gzip file"),
    "wrong checksum": (ZIPPED[:-8] + b"\0" * 4 + ZIPPED[-4:], "a whole gzip file"),
    "something behind it": (ZIPPED + b"more", "a whole gzip file"),
    "a part of the data": (gzip.compress(WHOLE[:-1]), "30 bytes of data .* got 29"),
    "more data": (gzip.compress(WHOLE + b"\0"), "30 bytes of data .* got 31 or more"),
    "more data in a second member": (ZIPPED + ZIPPED, "30 bytes of data .* got 31 or more"),
    "half a second member": (ZIPPED + ZIPPED[:8], "a whole gzip file"),
    "more than it can hold": (
        gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 2**20, 2**10, 2**10)),
        "1099511627776 bytes .* got a file that is too short",
    ),
}


@pytest.mark.parametrize(("content", "message"), BAD_GZIP.values(), ids=list(BAD_GZIP))
def test_bad_gzip(idx_folder, content, message):
    (idx_folder / IMAGES).unlink()
    (idx_folder / f"{IMAGES}.gz").write_bytes(content)
    with pytest.raises(ValueError, match=f"{IMAGES}.gz: expected {message}"):
        load_idx(idx_folder)


def test_gzip_in_several_members(idx_folder):
    (idx_folder / IMAGES).unlink()
    members = [gzip.compress(part) for part in (WHOLE[:7], b"", WHOLE[7:20], WHOLE[20:], b"")]
    (idx_folder / f"{IMAGES}.gz").write_bytes(b"".join(members) + b"\0" * 512)  # padding is allowed
    np.testing.assert_array_equal(load_idx(idx_folder)[0][0], idx_arrays()[0])


def test_a_gzip_bomb_is_read_no_further_than_its_header_says(idx_folder):
    (idx_folder / IMAGES).unlink()
    with gzip.open(idx_folder / f"{IMAGES}.gz", "wb", 1) as file:
        file.write(WHOLE)
        for _ in range(200):
            file.write(bytes(1_000_000))
    assert "got 31 or more" in peak_of(load_idx, idx_folder, limit=20e6)


def peak_of(function, *arguments, limit):
    """The error that a function ends with, if it takes no more memory than that."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="expected") as error:
            function(*arguments)
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()
    return str(error.value)


def test_missing_idx(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected an existing folder"):
        load_idx(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=IMAGES):
        load_idx(tmp_path)


@pytest.mark.parametrize("names", [("x", "y"), ("x", "y", "x_val", "y_val", "other")])
def test_npz(tmp_path, names):
    path = tmp_path / "data.npz"
    np.savez(path, **{name: np.arange(i + 1) for i, name in enumerate(names)})
    arrays = load_npz(path)
    assert set(arrays) == set(names) - {"other"}
    for i, name in enumerate(names[:4]):
        np.testing.assert_array_equal(arrays[name], np.arange(i + 1))


BAD_NPZ = {
    "no y": ({"x": np.ones(3)}, "expected arrays x, y.* got x"),
    "half a validation": (dict.fromkeys(("x", "y", "x_val"), np.ones(3)), "expected arrays x, y"),
    "objects": (
        {"x": np.array([None]), "y": np.ones(1)},
        "data.npz: expected an array of numbers as x, got Python objects",
    ),
}


@pytest.mark.parametrize(("arrays", "message"), BAD_NPZ.values(), ids=list(BAD_NPZ))
def test_bad_npz(tmp_path, arrays, message):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_npz(tmp_path / "data.npz")


def test_damaged_npz(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.ones(100), y=np.ones(100))
    content = path.read_bytes()
    for damaged in (content[:-30], b"", content[:300] + b"\xff" * 50 + content[350:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"data\.npz: "):
            load_npz(path)
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        load_npz(tmp_path / "none.npz")


def member(array, **changed):
    """An array as a member of an .npz file, with another header if given."""
    file = io.BytesIO()
    np.save(file, array)
    content = file.getvalue()
    for old, new in changed.items():
        content = content.replace(old.encode(), new.encode().ljust(len(old)))
    return content


def with_members(path, compression=zipfile.ZIP_DEFLATED, **contents):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(f"{name}.npy", content)


ONES = np.ones(1000)
HEADER = "'shape': (1000,), }"
BAD_MEMBERS = {
    "LZMA": ({"compression": zipfile.ZIP_LZMA}, "x as numpy.savez .* compression of type 14"),
    "bzip2": ({"compression": zipfile.ZIP_BZIP2}, "x as numpy.savez .* compression of type 12"),
    "no array": ({"x": b"text"}, "a whole NumPy .npz file: "),
    "empty": ({"x": b""}, "a whole NumPy .npz file: "),
    "too few": ({"x": member(ONES)[:-8]}, r"7992 bytes as x, got shape \(1000,\) of float64"),
    "too many": ({"x": member(ONES) + b"\0" * 8}, "8008 bytes as x"),
    "huge": ({"x": member(ONES, **{HEADER: "'shape': (10**9,), }"})}, "a whole NumPy"),
    "large": ({"x": member(ONES, **{HEADER: "'shape':(9**9,9),}"})}, "a whole NumPy"),
    "larger": ({"x": member(ONES, **{HEADER: "'shape':(9999999,)}"})}, "8000 bytes as x"),
    "negative": ({"x": member(np.ones(4), **{"'shape': (4,), }": "'shape':(-2,-2)}"})}, "a whole"),
    "objects": ({"x": member(ONES, **{"'<f8'": "'|O'"})}, "an array of numbers as x"),
    "no type": ({"x": member(ONES, **{"'<f8'": "'<x9'"})}, "a whole NumPy"),
    "no header": ({"x": member(ONES, **{"{'descr'": "(((((((("})}, "a whole NumPy"),
    "odd header": ({"x": member(ONES, **{"'descr'": "'\\desc'"})}, "a whole NumPy"),
}


@pytest.mark.parametrize(("changed", "message"), BAD_MEMBERS.values(), ids=list(BAD_MEMBERS))
def test_bad_members(tmp_path, changed, message):
    path = tmp_path / "data.npz"
    with_members(path, **{"x": member(ONES), "y": member(ONES)} | changed)
    assert re.search(f"data.npz: expected {message}", peak_of(load_npz, path, limit=20e6))


def test_encrypted_members(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=ONES, y=ONES)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1  # the flag, in the directory
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"data\.npz: expected x as .* got it encrypted"):
        load_npz(path)


def test_a_bomb_in_an_npz_file(tmp_path):
    """The directory and the array's header say 8000 bytes, the data are 200 million."""
    path = tmp_path / "data.npz"
    with_members(path, x=member(ONES) + bytes(200_000_000), y=member(ONES))
    content = bytearray(path.read_bytes())
    sizes = struct.pack("<I", len(member(ONES)) + 200_000_000)
    for _ in range(2):  # before the data, and in the directory
        at = content.index(sizes)
        content[at : at + 4] = struct.pack("<I", len(member(ONES)))
    path.write_bytes(content)
    assert "data.npz: expected a whole" in peak_of(load_npz, path, limit=20e6)


@pytest.fixture
def csv(tmp_path):
    def write(text):
        path = tmp_path / "data.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def test_csv(csv):
    x, y, classes = load_csv(csv('a,kind,"b, c"\n1,cat,2.5\r\n-3e2,dog,0\n\n4,cat,1\n'), "kind")
    np.testing.assert_array_equal(x, [[1, 2.5], [-300, 0], [4, 1]])
    assert y.tolist() == [0, 1, 0]
    assert classes == ["cat", "dog"]


def test_csv_with_number_labels_and_byte_order_mark(csv):
    x, y, classes = load_csv(csv("\ufefflabel,a\n10,1\n9,2\n"))
    assert x.shape == (2, 1)
    assert classes == ["9", "10"]
    assert y.tolist() == [1, 0]


LABELS = {
    "words": (["b", "a", "b"], ["a", "b"], [1, 0, 1]),
    "blanks": (["cat", " cat", "cat "], ["cat"], [0, 0, 0]),
    "numbers": (["10", "9", "10"], ["9", "10"], [1, 0, 1]),
    "equal numbers": (["1", "1.0", "0", "01", "1e0"], ["0", "1"], [1, 1, 0, 1, 1]),
    "whole floats": (["2.0", "1.0", "2.0"], ["1.0", "2.0"], [1, 0, 1]),
    "holes": (["7", "0", "3"], ["0", "3", "7"], [2, 0, 1]),
    "negative": (["1", "-1", "-1"], ["-1", "1"], [1, 0, 0]),
    "signed zero": (["0", "-0", "1"], ["0", "1"], [0, 0, 1]),
    "large": (["9007199254740993", "9007199254740992"] * 2, None, [1, 0, 1, 0]),
    "numbers and words": (["10", "a", "9"], ["10", "9", "a"], [0, 2, 1]),
    "underscores": (["1_0", "10", "1_0"], ["10", "1_0"], [1, 0, 1]),
    "signs": (["+", "-", "+"], ["+", "-"], [0, 1, 0]),
    "quotes": (['"a,b"', "a", '"a,b"'], ["a", "a,b"], [1, 0, 1]),
    "letters": (["\u00e4", "z", "\u00e4"], ["z", "\u00e4"], [1, 0, 1]),
    "one sample in a class": (["a"] * 20 + ["b"], ["a", "b"], [0] * 20 + [1]),
    "two samples in each class": (list("abcdefghijklmnop") * 2, None, [*range(16)] * 2),
}


@pytest.mark.parametrize(("labels", "names", "numbers"), LABELS.values(), ids=list(LABELS))
def test_labels(csv, labels, names, numbers):
    lines = [f"{i},{label}\n" for i, label in enumerate(labels)]
    x, y, classes = load_csv(csv("a,label\n" + "".join(lines)))
    assert x[:, 0].tolist() == [*range(len(labels))]
    assert y.tolist() == numbers
    assert classes == (names or sorted(set(labels)))


MISSING = [
    "",
    " ",
    "?",
    ".",
    "nan",
    "NaN",
    "-nan",
    "NA",
    "na",
    "N/A",
    "n/a",
    "#N/A",
    "<NA>",
    "null",
]
NO_LABELS = {
    **{repr(label): (["cat", label, "dog"], "expected a label, got") for label in MISSING},
    "None": (["cat", "None"], "expected a label, got"),
    "among numbers": (["0", "nan", "1"], "expected a label, got"),
    "prices": (["0.31", "0.72", "0.11"], "expected a class, a word or a whole number"),
    "a part of one": (["1", "1.37", "2"], "expected a class, a word or a whole number"),
    "infinity": (["1", "inf", "2"], "expected a class, a word or a whole number"),
}


@pytest.mark.parametrize(("labels", "message"), NO_LABELS.values(), ids=list(NO_LABELS))
def test_no_labels(csv, labels, message):
    lines = [f"{i},{label}\n" for i, label in enumerate(labels)]
    bad = 2 if message.endswith("number") and labels[0].startswith("0.") else 3
    with pytest.raises(ValueError, match=f"data.csv: line {bad}, column 'label': {message}"):
        load_csv(csv("a,label\n" + "".join(lines)))


@pytest.mark.parametrize("form", ["{}", "house {}", "{}.0", "2026-11-{}"])
def test_quantities_and_names_of_samples_are_no_classes(csv, form):
    lines = [f"{i},{form.format(100 + 7 * i)}\n" for i in range(300)]
    message = "data.csv: column 'label': expected classes of several .* got 300 distinct .* of 300"
    with pytest.raises(ValueError, match=message):
        load_csv(csv("a,label\n" + "".join(lines)))


BAD_CSV = {
    "a NUL byte": ("a,label\n1,0\n2\0,1\n", "line 3: expected text, got a NUL byte"),
    "zeros": (bytes(10**6), "line 1: expected text, got a NUL byte"),
    "UTF-16": ("a,label\n1,0\n".encode("utf-16"), "UTF-8"),
    "Latin-1": ("a,label\n1,\u00e4\n".encode("latin-1"), "UTF-8"),
    "a quote that is not closed": ('a,label\n1,0\n2,"1\n3,0\n', "line 4: expected cells"),
    "a quote that is closed late": ('a,label\n1,"0\n2,"1\n', "line 3: expected cells"),
    "a huge cell": ("a,label\n" + "1" * 200_000 + ",0\n", "line 2: expected cells of CSV: field"),
    "a long cell": ("a,label\n" + "z" * 100_000 + ",0\n", r"column 'a': .* got 'z+ \.\.\. z+'"),
    "a decimal comma": ("a,label\n1,5,0\n", "line 2: expected 2 cells .* got 3"),
    "a decimal comma in quotes": ('a,label\n"1,5",0\n', "line 2, column 'a': .* got '1,5'"),
    "another separator": ("a;label\n1;0\n", "got columns a;label"),
    "an underscore": ("a,label\n1_0,0\n", "column 'a': .* got '1_0'"),
    "a column twice": ("a,b,a,label\n1,2,3,0\n", "expected one column 'a', got 2"),
    "a long line": ("a,label\n1," + "0" * 2**24, "line 2: expected fewer than"),
    "a name with a line's end": ('"a\nb",lab\n1,0\n', r"got columns a b, lab"),
    "a name with colours": ("\x1b[31ma,lab\n1,0\n", r"got columns \\x1b\[31ma, lab"),
    "names without end": (",".join(["x" * 999] * 9), "got columns x+"),
    "a quoted name without end": ('"' + "x" * 200_000, "line 1: expected cells"),
    "no label": ("a,b\n1,2\n", "label column 'label', got columns a, b"),
    "many columns": ("a,b,c,d,e,f,g\n", r"a, b, c, d, e, \.\.\."),
    "empty": ("", "got columns none"),
    "two labels": ("a,label,label\n1,2,2\n", "expected one column 'label', got 2"),
    "no lines": ("a,label\n", "lines of data"),
    "label only": ("label\n1\n", "a column besides"),
    "text": ("a,b,label\n1,2,0\n1,x,0\n", "line 3, column 'b': expected a finite .* got 'x'"),
    "empty cell": ("a,label\n,0\n", "line 2, column 'a': .* got ''"),
    "NaN": ("a,label\nnan,0\n", "line 2, column 'a': .* got 'nan'"),
    "infinite": ("a,label\n1e999,0\n", "got '1e999'"),
    "short line": ("a,b,label\n1,2,0\n1,0\n", "line 3: expected 3 cells .* got 2"),
    "not UTF-8": (b"a,label\n\xff\xfe,0\n", "UTF-8"),
}


@pytest.mark.parametrize(("text", "message"), BAD_CSV.values(), ids=list(BAD_CSV))
def test_bad_csv(csv, text, message):
    with pytest.raises(ValueError, match="data.csv.*" + message) as error:
        load_csv(csv(text))
    assert len(str(error.value)) <= 176  # behind "fastdrop train: error: "
    assert str(error.value).isprintable()


@pytest.mark.parametrize("folder", ["d" * 200, "a\nb\x1b[31m", "a\udcff"])
@pytest.mark.parametrize("load", [load_csv, load_npz, load_idx])
def test_names_of_files_in_messages(tmp_path, folder, load):
    place = tmp_path / folder / folder
    name = f"{IMAGES}.gz" if load is load_idx else "data"
    with pytest.raises(FileNotFoundError) as error:
        load(place / name)
    check_message(error.value, name)
    place.mkdir(parents=True)
    for path in [*(place / stem for stem in IDX_STEMS[1:]), place / name]:
        path.write_bytes(b"\x1b\xff\n" * 99)
    with pytest.raises(ValueError, match="expected") as error:
        load(place if load is load_idx else place / name)
    check_message(error.value, name)


def check_message(error, name):
    assert len(str(error)) <= 176
    assert str(error).isprintable()
    assert f"{name}: expected" in str(error)


def test_missing_csv(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected an existing file"):
        load_csv(tmp_path / "none.csv")
