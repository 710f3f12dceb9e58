"""What X and y may be."""

import time
import tracemalloc

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")
from scipy import sparse
from sklearn import neural_network
from sklearn.datasets import load_digits

import fastdrop
from fastdrop.sklearn import MLPClassifier, MLPRegressor
from fastdrop.sklearn.rows import Rows

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

VERSION = tuple(map(int, sklearn.__version__.split(".")[:2]))
X, Y = load_digits(return_X_y=True)
X, Y = X[:300] / 16, Y[:300]
NAMES = [f"pixel {i}" for i in range(64)]


def fitted(x, y=Y, **settings):
    given = {"hidden_layer_sizes": 8, "max_iter": 3, "random_state": 0, "dropout": 0.1} | settings
    return MLPClassifier(**given).fit(x, y)


def peak(call):
    """Return how many bytes a call takes at most."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def read_only(array, tmp_path):
    np.save(tmp_path / "array.npy", array)
    return np.load(tmp_path / "array.npy", mmap_mode="r")


def pandas_frame(array, _):
    return pytest.importorskip("pandas").DataFrame(array, columns=NAMES)


def polars_frame(array, _):
    return pytest.importorskip("polars").DataFrame(array, schema=NAMES)


def strided(array, _):
    return np.repeat(array, 2, axis=0)[::2]


def unaligned(array, _):
    memory = np.empty(array.nbytes + 1, np.uint8)
    copy = np.ndarray(array.shape, array.dtype, memory[1:])
    copy[...] = array
    assert not copy.flags.aligned
    return copy


KINDS = {
    "list": lambda array, _: array.tolist(),
    "Fortran's order": lambda array, _: np.asfortranarray(array),
    "strided": strided,
    "unaligned": unaligned,
    "other bytes": lambda array, _: array.astype(array.dtype.newbyteorder()),
    "memory map": read_only,
    "memory map in Fortran's order": lambda a, path: read_only(np.asfortranarray(a), path),
    "pandas": pandas_frame,
    "polars": polars_frame,
    "CSR matrix": lambda array, _: sparse.csr_matrix(array),
    "CSR array": lambda array, _: sparse.csr_array(array),
    "CSC": lambda array, _: sparse.csc_array(array),
}


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_of_any_kind(kind, early_stopping, tmp_path):
    x = KINDS[kind](X, tmp_path)
    expected, got = (fitted(each, early_stopping=early_stopping) for each in (X, x))
    for a, b in zip(expected.coefs_, got.coefs_):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(got.predict_proba(x), expected.predict_proba(X))


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_names_of_features(kind):
    frame = KINDS[kind](X, None)
    if VERSION < (1, 9) and kind == "polars" and not hasattr(frame, "__dataframe__"):
        pytest.skip("scikit-learn before 1.9 sees no names of columns in polars 2")
    net = fitted(frame)
    assert net.feature_names_in_.tolist() == NAMES
    other = frame[list(reversed(NAMES))]
    with pytest.raises(ValueError, match="feature names should match"):
        net.predict(other)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        net.predict(X)


@pytest.mark.parametrize(
    ("x", "dtype", "expected"),
    [
        (X, None, "float64"),
        (X.astype(np.float32), None, "float32"),
        (X, "float32", "float32"),
        (X.astype(np.float32), "float64", "float64"),
        ((X * 16).astype(np.uint8), None, "float64"),
        ((X * 16).astype(np.uint8), "float32", "float32"),
        (X.astype(np.float16), None, "float64"),
    ],
)
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_what_is_computed_in(x, dtype, expected, solver):
    net = MLPRegressor(hidden_layer_sizes=8, solver=solver, max_iter=2, dtype=dtype).fit(x, Y)
    assert {array.dtype.name for array in [*net.coefs_, *net.intercepts_]} == {expected}
    assert net.predict(x).dtype == expected


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_only_a_batch_of_a_sparse_matrix_becomes_dense(solver):
    """Memory stays that of the matrix, the network and a batch: dense, X has 1.6 GB."""
    rng = np.random.default_rng(0)
    x = sparse.random_array((4000, 50_000), density=1e-3, rng=rng, format="csr")
    y = rng.integers(0, 2, 4000)
    net = MLPClassifier(4, solver=solver, max_iter=1, max_fun=1, batch_size=20)
    most = peak(lambda: net.fit(x, y).predict(x))
    batch, network = 20 * 50_000 * 8, 8 * 50_000 * 4
    assert most < 60 * network + 4 * batch < 4000 * 50_000 * 8 / 8


THIN = X * (np.random.default_rng(0).random(X.shape) < 0.1)
FITS = {
    "dropout": {"dropout": 0.3},
    "dropout of the input": {"input_dropout": 0.4, "dropout": 0.1},
    "shared dropout": {"dropout": 0.3, "shared_dropout": True},
    "shared dropout of the input": {"input_dropout": 0.3, "shared_dropout": True},
    "batch normalisation": {"batch_norm": True},
    "max-norm": {"max_norm": 0.5},
    "weights of classes": {"class_weight": {3: 2.5, 7: 0}},
    "float32": {"dtype": "float32"},
    "sgd": {"solver": "sgd"},
    "lbfgs": {"solver": "lbfgs", "dropout": 0},
    "in order": {"shuffle": False, "batch_size": 70},
    "validates": {"early_stopping": True},
    "no hidden layer": {"hidden_layer_sizes": (), "dropout": 0},
}


@pytest.mark.parametrize("name", FITS)
def test_few_stored_numbers_are_as_the_dense_array(name):
    """The same weights, masks included, and the same predictions, for all methods."""
    tolerance = 1e-4 if FITS[name].get("dtype") == "float32" else 1e-9
    nets = []
    for x in (THIN, sparse.csr_array(THIN)):
        net = fitted(x, **FITS[name])
        if net.solver != "lbfgs" and not net.early_stopping:
            net.partial_fit(x[:100], Y[:100])
        found = [*net.coefs_, *net.intercepts_, net.loss_, net.predict_proba(x)]
        found += [net.predict_log_proba(x), net.score(x, Y)]
        if net.dropout or net.input_dropout:
            found += [net.predict_entropy(x), net.predict_proba(x, mc_samples=3)]
        nets.append(found)
    for a, b in zip(*nets, strict=True):
        np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool"])
@pytest.mark.parametrize("index", ["int32", "int64"])
def test_few_stored_numbers_of_any_type(dtype, index):
    x = sparse.csr_matrix((THIN * 3).astype(dtype))
    x.indptr, x.indices = x.indptr.astype(index), x.indices.astype(index)
    for array in (x.indptr, x.indices, x.data):
        array.flags.writeable = False
    tolerance = 1e-4 if dtype == "float32" else 1e-9
    for net in (fitted(x), fitted(THIN)):
        expected = net.predict_proba(x.toarray())
        np.testing.assert_allclose(net.predict_proba(x), expected, rtol=tolerance)


def test_stored_numbers_too_large_for_the_network():
    x = sparse.csr_array(THIN)
    net = fitted(x, dtype="float32")
    x.data[3] = 1e300
    with pytest.raises(ValueError, match="Input X contains infinity or a value too large"):
        net.predict(x)


def test_multilabel_sparse_indicators():
    y = sparse.csr_array(np.stack([Y > 4, Y % 2], axis=1).astype(int))
    predicted = fitted(X, y).predict(X)
    assert sparse.issparse(predicted)
    assert predicted.shape == y.shape


INDICATORS = {
    "0 and 1": lambda flags: flags.astype(int),
    "flags": lambda flags: flags,
    "1 and 2": lambda flags: flags + 1,
    "0 and 2": lambda flags: flags * 2,
    "-1 and 1": lambda flags: flags * 2 - 1,
    "floats": lambda flags: flags * 0.0 + 1,
    "bytes": lambda flags: flags.astype(np.uint8),
    "sparse": lambda flags: sparse.csr_matrix(flags.astype(int)),
    "sparse 0 and 2": lambda flags: sparse.csr_array(flags * 2),
}


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("kind", INDICATORS)
def test_several_labels(kind, early_stopping):
    """scikit-learn takes all numbers but 0 as 1."""
    y = INDICATORS[kind](np.stack([Y > 4, Y % 2 == 0], axis=1))
    theirs, mine = (
        net(8, max_iter=3, random_state=0, early_stopping=early_stopping).fit(X, y)
        for net in (neural_network.MLPClassifier, MLPClassifier)
    )
    for a, b in zip(theirs.coefs_, mine.coefs_):
        np.testing.assert_allclose(b, a, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(mine.predict_proba(X), theirs.predict_proba(X), rtol=1e-7)
    expected, got = theirs.predict(X), mine.predict(X)
    assert type(got) is type(expected)
    np.testing.assert_array_equal(
        *(a.toarray() if sparse.issparse(a) else a for a in (got, expected))
    )


@pytest.mark.parametrize("label", [7, "word", 2.0, True])
def test_one_class(label):
    net = fitted(X, [label] * len(X))
    assert net.classes_.tolist() == [label]
    assert net.predict(X).tolist() == [label] * len(X)
    assert (net.predict_proba(X) == 1).all()
    assert net.predict_proba(X).shape == (len(X), 1)


def test_a_column_of_numbers_is_one_output():
    with pytest.warns(Warning, match="column-vector"):
        net = MLPRegressor(hidden_layer_sizes=4, max_iter=2).fit(X, Y[:, np.newaxis])
    assert net.predict(X).shape == (len(X),)
    two = MLPRegressor(hidden_layer_sizes=4, max_iter=2).fit(X, np.stack([Y, Y], axis=1))
    assert two.predict(X).shape == (len(X), 2)


def test_a_batch_without_weight_teaches_nothing():
    weights = np.r_[np.ones(100), np.zeros(200)]
    some = MLPClassifier(8, max_iter=3, random_state=0, batch_size=100, shuffle=False)
    some.fit(X, Y, sample_weight=weights)
    few = MLPClassifier(8, max_iter=3, random_state=0, batch_size=100, shuffle=False)
    few.fit(X[:100], Y[:100])
    for a, b in zip(some.coefs_, few.coefs_):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def series(library, values, **options):
    return pytest.importorskip(library).Series(values, **options)


WORDS = ["one", "two", "three"]
LABELS = {
    "list": lambda: [WORDS[label % 3] for label in Y],
    "objects": lambda: np.array(WORDS, dtype=object)[Y % 3],
    "pandas": lambda: series("pandas", np.array(WORDS)[Y % 3]),
    "categories": lambda: series("pandas", np.array(WORDS)[Y % 3], dtype="category"),
    "polars": lambda: series("polars", np.array(WORDS)[Y % 3]),
    "flags": lambda: series("pandas", Y > 4),
    "negative numbers": lambda: Y - 5,
    "whole floats": lambda: (Y % 3) * 2.0,
    "bytes": lambda: (Y % 3).astype(np.uint8),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels(kind):
    y = LABELS[kind]()
    theirs, mine = (
        net(8, max_iter=3, random_state=0).fit(X, y)
        for net in (neural_network.MLPClassifier, MLPClassifier)
    )
    np.testing.assert_array_equal(mine.classes_, theirs.classes_)
    np.testing.assert_array_equal(mine.predict(X), theirs.predict(X))
    assert mine.predict(X).dtype == theirs.predict(X).dtype
    assert mine.score(X, y) == theirs.score(X, y)


def test_another_activation_counts_from_the_next_fit_on():
    net = fitted(X)
    before = net.predict_proba(X)
    net.set_params(activation="tanh")
    np.testing.assert_array_equal(net.predict_proba(X), before)
    assert not np.allclose(net.partial_fit(X, Y).predict_proba(X), before, atol=0.05)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", [np.array, sparse.csr_array])
def test_only_finite_numbers_to_predict_from(kind, value, dtype):
    net = fitted(X)
    x = THIN.astype(dtype)
    x[3, 4] = value
    x = kind(x)
    with sklearn.config_context(assume_finite=True), pytest.raises(ValueError, match="finite"):
        net.predict(x)


def test_batches_that_are_copied_ahead():
    X = np.random.default_rng(0).normal(size=(300, 700))
    rows = Rows(X)
    a, b, c, none = np.arange(200), np.arange(299, 99, -1), np.arange(50, 90), np.arange(0)
    before = fastdrop.get_num_threads()
    try:
        for threads in (1, 2):
            fastdrop.set_num_threads(threads)
            # the last two as after an interrupt: what was announced does not come
            for chosen, then in ((a, b), (b, c), (c, none), (a, b), (c, b), (a, None)):
                batch = rows.take(chosen, then)
                time.sleep(0.001)  # time to copy the next one
                np.testing.assert_array_equal(batch, X[chosen])
    finally:
        fastdrop.set_num_threads(before)


@pytest.mark.parametrize(
    ("order", "shuffle", "copies"), [("C", True, 0), ("F", False, 0), ("F", True, 1)]
)
def test_an_array_by_columns_is_copied_once_to_be_shuffled(order, shuffle, copies):
    X = np.zeros((20000, 250), np.float32, order)  # 20 MB
    y = np.arange(20000) % 2
    net = MLPClassifier((4,), max_iter=2, shuffle=shuffle, n_iter_no_change=5)
    assert copies * X.nbytes <= peak(lambda: net.fit(X, y)) < copies * X.nbytes + 8e6
    assert peak(lambda: net.predict(X)) < 8e6
