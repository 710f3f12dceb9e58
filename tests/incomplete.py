"""What `numpy.asarray` would make an array of, but without a part of it; and what only looks so."""

import numpy as np


class Sparse:
    """SciPy's interface of a sparse matrix."""

    def __init__(self, array):
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype

    def __len__(self):
        raise TypeError("sparse array length is ambiguous; use shape[0]")

    def __getitem__(self, rows):
        return Sparse(self._array[rows])

    def toarray(self):
        return self._array


class Extension:
    """The name of a dtype that is not NumPy's, as pandas has them."""

    def __init__(self, name):
        self.name = name


class Column:
    """pandas' interface of a column."""

    def __init__(self, array, missing=None, dtype=None):
        self._array = np.asarray(array)
        self._missing = np.zeros(len(self._array), bool) if missing is None else missing
        self.dtype = self._array.dtype if dtype is None else Extension(dtype)
        self.shape = self._array.shape

    def __len__(self):
        return len(self._array)

    def isna(self):
        return self._missing

    def __array__(self, dtype=None, copy=None):
        return np.array(self._array, dtype)


class Table:
    """pandas' interface of a table."""

    def __init__(self, *columns):
        self._columns = columns
        self.columns = range(len(columns))
        self.dtypes = [column.dtype for column in columns]
        self.shape = (len(columns[0]), len(columns))

    def __len__(self):
        return self.shape[0]

    def isna(self):
        return np.stack([column.isna() for column in self._columns], axis=1)

    def items(self):
        return enumerate(self._columns)

    def __array__(self, dtype=None, copy=None):
        return np.array([np.asarray(column) for column in self._columns], dtype).T


class Unconvertible:
    """As a tensor of a device of its own, or one that requires a gradient."""

    shape = (4, 2)

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.\nUse detach().")


def masked(array):
    array = np.array(array)
    mask = np.zeros(array.shape, bool)
    mask.flat[0] = True
    return np.ma.array(array, mask=mask)


def table(array, **first):
    """A `Table` of a 2-d array, its first column with further arguments."""
    rest = (Column(column) for column in np.transpose(array)[1:])
    return Table(Column(np.asarray(array)[:, 0], **first), *rest)


def _missing(array):
    return np.arange(len(array)) == 1


# of a 2-d array: what is refused, and what the message says
INCOMPLETE = {
    "masked": (masked, r"no masked values, got 1 of \d+; \.filled\(value\)"),
    "rows masked": (lambda a: list(masked(a)), r"no masked values, got 1 of 2; \.filled\(value\)"),
    "masked constant": (
        lambda a: [[np.ma.masked, *a[0, 1:].tolist()], *a[1:].tolist()],
        r"no masked values, got 1 of 1; \.filled\(value\)",
    ),
    "sparse": (Sparse, r"dense array, got Sparse; \.toarray\(\)"),
    "rows sparse": (lambda a: [Sparse(row) for row in a], r"got Sparse; \.toarray\(\)"),
    "missing": (
        lambda a: table(a, missing=_missing(a), dtype="Float64"),
        r"no missing values, got 1 of \d+; \.fillna\(value\)",
    ),
    "categories": (lambda a: table(a, dtype="category"), r"got categories; \.cat\.codes"),
    "unconvertible": (
        lambda a: Unconvertible(),
        r"expected an array, got Unconvertible: Can't .* requires grad\. Use detach",
    ),
    "ragged": (lambda a: [[1.0], [1.0, 2.0]], "got sequences of different lengths"),
}

# and what is taken, as the array itself
COMPLETE = {
    "masks nothing": np.ma.array,
    "mask of nothing": lambda a: np.ma.array(a, mask=np.zeros(a.shape, bool)),
    "matrix": lambda a: a.view(np.matrix),
    "rows that mask nothing": lambda a: list(np.ma.array(a)),
    "table": table,
    "nothing missing": lambda a: table(a, dtype="Float64"),
}


def _records(a):
    return np.array([tuple(row) for row in a], [(f"column {i}", float) for i in range(a.shape[1])])


# no numbers, which a cast would make some of
NO_NUMBERS = {
    "complex": lambda a: a + 1j,
    "dates": lambda a: np.full(a.shape, "2026-01-01", "M8[D]"),
    "time": lambda a: np.full(a.shape, 1, "m8[s]"),
    "digits": lambda a: np.full(a.shape, "1"),
    "bytes": lambda a: np.full(a.shape, b"1"),
    "objects": lambda a: a.astype(object),
    "None": lambda a: np.where(a == a[0, 0], None, a),
    "records": _records,
    "generator": lambda a: (row for row in a),
    "dict": lambda a: {"x": a},
    "set": lambda a: set(a.ravel().tolist()),
    "nothing": lambda a: None,
}
