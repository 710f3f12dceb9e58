"""Matrix products on the trainer's own threads."""

import os
import threading

import numpy as np
import pytest
import threadpoolctl
from hypothesis import given
from hypothesis import strategies as st
from processes import status_of
from sleeping_blas import assert_they_sleep

from fastdrop import layers, optimizers
from fastdrop.models import Sequential
from fastdrop.training import blas

SMALL, LARGE = (5, 7, 6), (200, 80, 130)  # the large one is split


@pytest.fixture(autouse=True)
def three_threads():
    """Whatever the machine has."""
    with threadpoolctl.threadpool_limits(3, "blas"):
        yield


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
    assert blas.matmul(a, b, out) is out
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
    blas.matmul(a, b, out)
    out[...] = 7
    assert (wide == 7).all()


@pytest.mark.parametrize(("m", "k", "n"), [(0, 3, 4), (3, 0, 4), (3, 4, 0)])
def test_empty_products(m, k, n):
    out = np.full((m, n), 7, np.float32)
    blas.matmul(np.ones((m, k), np.float32), np.ones((k, n), np.float32), out)
    assert (out == 0).all()


def test_other_types_are_numpys():
    for a, b, out in (("float32", "float64", "float64"), ("int64", "int64", "int64")):
        result = np.zeros((2, 2), out)
        blas.matmul(np.ones((2, 3), a), np.ones((3, 2), b), result)
        assert (result == 3).all()


def test_errors_are_numpys():
    ones = np.ones((3, 4), np.float32)
    with pytest.raises(ValueError, match="mismatch in its core dimension"):
        blas.matmul(ones, ones, np.empty((3, 4), np.float32))
    with pytest.raises(ValueError, match="mismatch in its core dimension"):
        blas.matmul(ones, ones.T, np.empty((3, 4), np.float32))
    fixed = np.empty((3, 3), np.float32)
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        blas.matmul(ones, ones.T, fixed)


@pytest.mark.skipif(blas.NAME is None, reason="NumPy's BLAS is not the OpenBLAS of its wheels")
def test_numpys_number_of_threads_is_kept():
    def threads():
        return [lib["num_threads"] for lib in threadpoolctl.threadpool_info()]

    a, out = matrix(*LARGE[:2], "float32", "plain"), np.empty((LARGE[0],) * 2, np.float32)
    results = []
    for limit in (1, 2, 3):
        with threadpoolctl.threadpool_limits(limit, "blas"):
            before = threads()
            blas.matmul(a, a.T, out)
            assert threads() == before
            results.append(out.copy())
    for other in results[1:]:
        np.testing.assert_allclose(results[0], other, rtol=1e-5, atol=1e-5)


def work(seed=0):
    """Some products and updates, all of them split."""
    a, out = matrix(256, 256, "float32", "plain", seed), np.empty((256, 256), np.float32)
    w, optimizer = matrix(512, 256, "float32", "plain", seed + 1), optimizers.Adam(0.1)
    for _ in range(20):
        blas.matmul(a, a.T, out)
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


@pytest.mark.skipif(blas.NAME is None or not hasattr(os, "fork"), reason="nothing to restore")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_in_the_middle_of_a_product_has_its_threads_back():
    def threads():
        return [lib["num_threads"] for lib in threadpoolctl.threadpool_info()]

    stop, a, before = threading.Event(), np.ones((300, 300), np.float32), threads()

    def multiply():
        while not stop.is_set():
            blas.matmul(a, a, np.empty_like(a))

    thread = threading.Thread(target=multiply)
    thread.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                ok = threads() == before
                blas.matmul(a, a, np.empty_like(a))
                os._exit(0 if ok and threads() == before else 1)
            assert status_of(child) == 0
    finally:
        stop.set()
        thread.join()


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


def test_fit_gives_numpys_results_and_its_own_bits_again():
    x = matrix(400, 80, "float32", "plain")
    y = np.arange(400) % 4
    once, again, numpys = network(), network(), network()
    once.fit(x, y, 100, 2, shuffle=False, verbose=0)
    again.fit(x, y, 100, 2, shuffle=False, verbose=0)
    for epoch in range(2):
        for start in range(0, 400, 100):
            numpys.train_on_batch(x[start : start + 100], y[start : start + 100])
        numpys.epoch = epoch + 1
    for a, b, c in zip(once.get_weights(), again.get_weights(), numpys.get_weights()):
        assert a.tobytes() == b.tobytes()
        np.testing.assert_allclose(a, c, rtol=1e-3, atol=1e-4)


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
