import gzip
import struct

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


@pytest.mark.parametrize("content", [gzip.compress(b"\0" * 99)[:-9], b"no gzip"])
def test_bad_gzip(idx_folder, content):
    (idx_folder / IMAGES).unlink()
    (idx_folder / f"{IMAGES}.gz").write_bytes(content)
    with pytest.raises(ValueError, match=f"{IMAGES}.gz: expected a whole gzip file"):
        load_idx(idx_folder)


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
    "objects": ({"x": np.array([None]), "y": np.ones(1)}, "data.npz: Object arrays"),
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


BAD_CSV = {
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
    with pytest.raises(ValueError, match="data.csv.*" + message):
        load_csv(csv(text))


def test_missing_csv(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected an existing file"):
        load_csv(tmp_path / "none.csv")
