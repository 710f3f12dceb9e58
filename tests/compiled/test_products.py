"""Matrix products: their values, and what their bits do not depend on."""

import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import run, status_of
from sleeping_blas import assert_they_sleep

import fastdrop
from fastdrop import layers, optimizers
from fastdrop.compiled._products import matmul
from fastdrop.models import Sequential

SMALL, LARGE = (5, 7, 6), (200, 80, 130)  # the large one is split


@pytest.fixture(autouse=True)
def three_threads():
    """Whatever the machine has."""
    before = fastdrop.get_num_threads()
    fastdrop.set_num_threads(3)
    yield
    fastdrop.set_num_threads(before)


def matrix(rows, columns, dtype, layout, seed=0):
    """A matrix whose elements lie in memory as `layout` says."""
    a = np.random.default_rng(seed).normal(size=(rows, columns))
    if layout == "transposed":
        return np.asarray(a.T, dtype, order="C").T
    if layout == "rows of a wider one":
        wide = np.zeros((rows + 2, columns + 3), dtype)
        wide[1 : rows + 1, 2 : columns + 2] = a
        return wide[1 : rows + 1, 2 : columns + 2]
    if layout == "every second column":
        spread = np.zeros((rows, 2 * columns), dtype)
        spread[:, ::2] = a
        return spread[:, ::2]
    if layout == "upside down":
        return np.asarray(a[::-1], dtype, order="C")[::-1]
    return a.astype(dtype)


LAYOUTS = ["plain", "transposed", "rows of a wider one", "every second column", "upside down"]


def assert_product(a, b, out):
    expected = a.astype(np.float64) @ b.astype(np.float64)
    out[...] = np.nan
    assert matmul(a, b, out) is out
    epsilon = np.finfo(out.dtype).eps
    bound = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)
    assert (abs(out - expected) <= epsilon * a.shape[1] * bound).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout_of_b", LAYOUTS)
@pytest.mark.parametrize("layout_of_a", LAYOUTS)
@pytest.mark.parametrize("shape", [SMALL, LARGE, LARGE[::-1]], ids=str)
def test_products_of_any_layout(shape, layout_of_a, layout_of_b, dtype):
    m, k, n = shape
    a, b = matrix(m, k, dtype, layout_of_a), matrix(k, n, dtype, layout_of_b, 1)
    for layout in ("plain", "rows of a wider one", "transposed"):
        assert_product(a, b, matrix(m, n, dtype, layout))


@given(*[st.integers(1, 200)] * 3, st.booleans(), st.booleans())
def test_products_of_any_shape(m, k, n, a_transposed, b_transposed):
    layouts = ["transposed" if turned else "plain" for turned in (a_transposed, b_transposed)]
    a, b = matrix(m, k, "float32", layouts[0]), matrix(k, n, "float32", layouts[1], 1)
    assert_product(a, b, np.empty((m, n), np.float32))


def test_what_lies_beside_the_output_stays():
    wide = np.full((LARGE[0] + 2, LARGE[2] + 5), 7, np.float32)
    out = wide[1:-1, 2:-3]
    a, b = matrix(*LARGE[:2], "float32", "plain"), matrix(*LARGE[1:], "float32", "plain")
    matmul(a, b, out)
    out[...] = 7
    assert (wide == 7).all()


@pytest.mark.parametrize(("m", "k", "n"), [(0, 3, 4), (3, 0, 4), (3, 4, 0)])
def test_empty_products(m, k, n):
    out = np.full((m, n), 7, np.float32)
    matmul(np.ones((m, k), np.float32), np.ones((k, n), np.float32), out)
    assert (out == 0).all()


def test_other_types_are_numpys():
    for a, b, out in (("float32", "float64", "float64"), ("int64", "int64", "int64")):
        result = np.zeros((2, 2), out)
        matmul(np.ones((2, 3), a), np.ones((3, 2), b), result)
        assert (result == 3).all()


def test_errors_are_numpys():
    ones = np.ones((3, 4), np.float32)
    with pytest.raises(ValueError, match="mismatch in its core dimension"):
        matmul(ones, ones, np.empty((3, 4), np.float32))
    with pytest.raises(ValueError, match="mismatch in its core dimension"):
        matmul(ones, ones.T, np.empty((3, 4), np.float32))
    fixed = np.empty((3, 3), np.float32)
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        matmul(ones, ones.T, fixed)


# Around the sizes of tiles, panels and blocks of every instruction set, for any number of rows.
SHAPES = [
    (m, k, n)
    for m in (1, 2, 6, 7, 13, 50)
    for k, n in [(1, 1), (3, 5), (255, 8), (256, 17), (257, 33), (600, 9), (5, 300), (300, 131)]
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_depend_on_nothing_but_a_row_and_a_column(shape, dtype, isa):
    m, k, n = shape
    a, b = matrix(m, k, dtype, "plain"), matrix(k, n, dtype, "plain", 1)
    expected = reference(a, b)
    if dtype == "float64":  # no type of NumPy's holds these products
        with fastdrop.use_isa("generic"):
            generic = matmul(a, b)
        np.testing.assert_allclose(generic, expected, rtol=1e-10, atol=1e-13)
        expected = generic
    for layout_of_a in LAYOUTS[:3]:
        for layout_of_b in LAYOUTS[:3]:
            got = matmul(matrix(m, k, dtype, layout_of_a), matrix(k, n, dtype, layout_of_b, 1))
            np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(matmul(a[m // 2 :], b), expected[m // 2 :])
    np.testing.assert_array_equal(matmul(a, b[:, n // 2 :]), expected[:, n // 2 :])


def reference(a, b):
    """Sums of at most 256 products in their order, each product added without rounding it."""
    total = 0
    for start in range(0, a.shape[1], 256):
        part = np.zeros((len(a), b.shape[1]), a.dtype)
        for i in range(start, min(start + 256, a.shape[1])):
            exact = np.multiply.outer(a[:, i].astype(np.longdouble), b[i].astype(np.longdouble))
            part = (part + exact).astype(a.dtype)
        total = part + total
    return total


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [LARGE, LARGE[::-1], (64, 300, 2000)], ids=str)
def test_threads_change_no_bit(shape, dtype, isa):
    m, k, n = shape
    a, b = matrix(m, k, dtype, "plain"), matrix(k, n, dtype, "transposed", 1)
    results = []
    for threads in (1, 2, 3, 7):
        fastdrop.set_num_threads(threads)
        results.append(matmul(a, b).tobytes())
    assert len(set(results)) == 1


def test_values_that_are_not_finite_stay_in_their_rows_and_columns():
    a, b = matrix(20, 30, "float32", "plain"), matrix(30, 17, "float32", "plain", 1)
    expected = matmul(a, b)
    a[3, 5], b[7, 16] = np.nan, np.inf
    got = matmul(a, b)
    assert np.isnan(got[3]).all()
    assert np.isinf(np.delete(got[:, 16], 3)).all()
    kept = np.delete(np.arange(20), 3)
    np.testing.assert_array_equal(got[kept, :16], expected[kept, :16])


def work(seed=0):
    """Some products and updates, all of them split."""
    a, out = matrix(256, 256, "float32", "plain", seed), np.empty((256, 256), np.float32)
    w, optimizer = matrix(512, 256, "float32", "plain", seed + 1), optimizers.Adam(0.1)
    for _ in range(20):
        matmul(a, a.T, out)
        optimizer.update({"w": w}, {"w": np.vstack([out, out])})
    return w.tobytes()


def test_threads_that_work_at_once_do_not_disturb_each_other():
    expected, results = [work(seed) for seed in range(4)], {}

    def run(seed):
        results[seed] = work(seed)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[seed] for seed in range(4)] == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_works():
    expected = work()
    child = os.fork()
    if child == 0:
        os._exit(0 if work() == expected else 1)
    assert status_of(child) == 0
    assert work() == expected


def network():
    model = Sequential(
        [
            layers.Input((80,)),
            layers.Dense(192, activation="relu"),
            layers.Dropout(0.5, shared_axes=(0,)),
            layers.Dense(140, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(4, activation="softmax"),
        ],
        seed=1,
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def test_a_fit_has_the_same_bits_with_any_threads_and_instruction_set(isa):
    x = matrix(400, 80, "float32", "plain")
    y = np.arange(400) % 4
    results = []
    for threads in (1, 2, 3):
        fastdrop.set_num_threads(threads)
        model = network()
        model.fit(x, y, 100, 2, shuffle=False, verbose=0)
        results.append(b"".join(w.tobytes() for w in model.get_weights()))
    batches = network()
    with fastdrop.use_isa(fastdrop.available_isas()[0]):
        for epoch in range(2):
            for start in range(0, 400, 100):
                batches.train_on_batch(x[start : start + 100], y[start : start + 100])
            batches.epoch = epoch + 1
    results.append(b"".join(w.tobytes() for w in batches.get_weights()))
    assert len(set(results)) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_so_wide_that_threads_share_what_lies_between_products(isa, dtype):
    x, results = matrix(800, 20, dtype, "plain"), set()
    for threads in (1, 2, 3, 5):
        fastdrop.set_num_threads(threads)
        hidden = [layers.Dropout(0.1), layers.Dense(300, "relu"), layers.Dropout(0.4)]
        hidden += [layers.Dense(257, "tanh"), layers.Dropout(0.2), layers.Dense(1)]
        model = Sequential([layers.Input((20,)), *hidden], seed=1, dtype=dtype)
        model.compile("adam", "mse")
        model.fit(x, x[:, :1], 400, 2, verbose=0)
        results.add(b"".join(w.tobytes() for w in model.get_weights()))
    assert len(results) == 1


TRAINED = """
import zlib

import numpy as np
from fastdrop import Sequential
from fastdrop.layers import BatchNormalization, Dense, Dropout

x = np.random.default_rng(0).normal(size=(300, 40))
for loss, units, activation, y in [
    ("sparse_categorical_crossentropy", 3, "softmax", np.abs(x[:, :3]).argmax(axis=1)),
    ("binary_crossentropy", 1, "sigmoid", x[:, :1] > 0),
    ("mse", 2, "tanh", x[:, :2]),
]:
    for dtype in ("float32", "float64"):
        hidden = [Dense(60, "relu"), Dropout(0.3), Dense(50), BatchNormalization()]
        outer = [Dense(20, "silu"), Dense(units, activation)]
        model = Sequential([*hidden, *outer], seed=1, dtype=dtype)
        model.compile("adam", loss)
        model.fit(x.astype(dtype), y, epochs=2, verbose=0)
        print(dtype, loss, [zlib.crc32(w.tobytes()) for w in model.get_weights()])
"""


def test_weights_are_those_of_another_machine():
    """What NumPy and its BLAS compute with older instructions stands for other processors."""
    core = getattr(np, "_core", None) or np.core
    older = {
        "NPY_DISABLE_CPU_FEATURES": " ".join(core._multiarray_umath.__cpu_dispatch__),
        "OPENBLAS_CORETYPE": "Nehalem",
        "FASTDROP_ISA": "generic",
        "FASTDROP_NUM_THREADS": "1",
    }
    here, there = run(TRAINED), run(TRAINED, **older)
    assert here.returncode == there.returncode == 0, here.stderr + there.stderr
    assert here.stdout.count("\n") == 6
    assert here.stdout == there.stdout


@pytest.mark.parametrize("settings", ["", "l2=1e-3", "l1=1e-3, l2=1e-3", "max_norm=1.0"])
def test_numpys_threads_sleep_while_a_model_trains(settings):
    assert_they_sleep(f"""
from fastdrop import Sequential
from fastdrop.layers import Dense

model = Sequential([Dense(300, "relu", {settings}), Dense(3, "softmax")], seed=0, dtype="float64")
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
x, y = np.ones((400, 200)), np.zeros(400, int)


def train():
    model.fit(x, y, epochs=2, verbose=0, validation_split=0.5)
""")
