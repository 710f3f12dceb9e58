"""bias_act_dropout and dropout_add: against NumPy, and their gradients."""

import numpy as np
import pytest
import reference
from dtypes import ALL as DTYPES
from dtypes import arithmetic, assert_same, normal
from hypothesis import given
from hypothesis import strategies as st

import fastdrop
from fastdrop import Key

KEY = Key(3, 4)
ACTIVATIONS = [None, "relu"]


def expected_bias_act(x, bias, activation, p, **mask):
    v = x.astype(arithmetic(x.dtype)) + bias.astype(arithmetic(x.dtype))
    if activation == "relu":
        v = np.where(v < 0, v.dtype.type(0), v)
    return reference.dropout(v, p, *KEY, **mask).astype(x.dtype)


def expected_add(x, residual, p, **mask):
    dropped = reference.dropout(x.astype(arithmetic(x.dtype)), p, *KEY, **mask)
    return (dropped + residual.astype(dropped.dtype)).astype(x.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("p", [0.0, 0.5, 0.1, 1.0])
@pytest.mark.parametrize("shape", [(7,), (50, 1), (300, 10), (33, 64), (5, 3000), (4, 7, 100)])
def test_bias_act_dropout(isa, dtype, activation, p, shape):
    x, bias = normal(shape, dtype), normal(shape[-1], dtype, 1)
    y = fastdrop.bias_act_dropout(x, bias, activation, p, key=KEY)
    assert_same(y, expected_bias_act(x, bias, activation, p))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("p", [0.0, 0.5, 0.1, 1.0])
@pytest.mark.parametrize("n", [0, 1, 33, 2048, 9001])
def test_dropout_add(isa, dtype, p, n):
    x, residual = normal(n, dtype), normal(n, dtype, 1)
    y = fastdrop.dropout_add(x, residual, p, key=KEY)
    assert_same(y, expected_add(x, residual, p))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(3,), (1, 1), (40, 7), (9, 600), (2, 3, 5)])
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_gradients_of_bias_act_dropout(activation, shape, p):
    x, bias = normal(shape, np.float64), normal(shape[-1], np.float64, 1)
    dy = normal(shape, np.float64, 2)
    y = fastdrop.bias_act_dropout(x, bias, activation, p, key=KEY)
    dx, dbias = fastdrop.bias_act_dropout_backward(dy, y, activation, p, key=KEY)

    def loss(x, bias):
        return float(np.sum(dy * fastdrop.bias_act_dropout(x, bias, activation, p, key=KEY)))

    step = 1e-6
    for array, gradient in ((x, dx), (bias, dbias)):
        for i in np.random.default_rng(0).choice(array.size, min(array.size, 20), replace=False):
            up, down = array.copy(), array.copy()
            up.flat[i] += step
            down.flat[i] -= step
            ends = [(a, bias) if array is x else (x, a) for a in (up, down)]
            slope = (loss(*ends[0]) - loss(*ends[1])) / (2 * step)
            assert slope == pytest.approx(gradient.flat[i], rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    "shape", [(1000, 10), (100, 64), (3, 3000), (2000, 1), (5, 4, 30), (0, 5), (5, 0)]
)
def test_backward_values(isa, dtype, activation, shape):
    dy, y = normal(shape, dtype), normal(shape, dtype, 1)
    dx, dbias = fastdrop.bias_act_dropout_backward(dy, y, activation, 0.3, key=KEY)
    wide = dy.astype(arithmetic(dtype))
    if activation == "relu":
        scale = wide.dtype.type(1 / 0.7)
        expected = np.where(y.astype(wide.dtype) > 0, wide * scale, wide.dtype.type(0))
    else:
        expected = reference.dropout(wide, 0.3, *KEY)
    assert_same(dx, expected.astype(dtype))
    rows = tuple(range(dx.ndim - 1))
    total = dx.astype(np.float64).sum(axis=rows)
    bound = np.abs(dx.astype(np.float64)).sum(axis=rows)
    epsilon = {2: 1e-2, 4: 1e-5, 8: 1e-14}[np.dtype(dtype).itemsize]
    assert dbias.dtype == dtype
    assert np.all(np.abs(dbias.astype(np.float64) - total) <= epsilon * bound)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("threads", [2, 3, 16])
def test_threads_change_nothing(activation, threads):
    x, bias, dy = normal((700, 130)), normal(130, seed=1), normal((700, 130), seed=2)
    results = []
    for n in (1, threads):
        y = fastdrop.bias_act_dropout(x, bias, activation, 0.3, key=KEY, num_threads=n)
        added = fastdrop.dropout_add(x, dy, 0.3, key=KEY, num_threads=n)
        gradients = fastdrop.bias_act_dropout_backward(
            dy, y, activation, 0.3, key=KEY, num_threads=n
        )
        results.append((y, added, *gradients))
    for one, many in zip(*results):
        assert_same(one, many)


@given(
    rows=st.integers(0, 40),
    units=st.integers(1, 300),
    axes=st.sampled_from([(), (0,), (1,), (0, 1)]),
    offset=st.integers(0, 5000),
    activation=st.sampled_from(ACTIVATIONS),
)
def test_shared_axes_and_offsets(rows, units, axes, offset, activation):
    x, bias = normal((rows, units)), normal(units, seed=1)
    options = {"shared_axes": axes, "offset": offset}
    y = fastdrop.bias_act_dropout(x, bias, activation, 0.4, key=KEY, **options)
    assert_same(y, expected_bias_act(x, bias, activation, 0.4, **options))
    assert_same(
        fastdrop.dropout_add(x, y, 0.4, key=KEY, **options), expected_add(x, y, 0.4, **options)
    )
    if activation is None:
        dx, _ = fastdrop.bias_act_dropout_backward(x, None, None, 0.4, key=KEY, **options)
        assert_same(dx, fastdrop.dropout(x, 0.4, key=KEY, **options))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_relu_keeps_nan_and_negative_zero_bias(isa, dtype):
    x = np.tile(np.array([np.nan, -1, 1, np.inf, -np.inf, 0.0, -0.0, 1e-7], dtype), 50)
    bias = np.zeros(400, dtype)
    assert_same(
        fastdrop.bias_act_dropout(x, bias, "relu", 0.5, key=KEY),
        expected_bias_act(x, bias, "relu", 0.5),
    )


def test_in_place_over_each_operand():
    x, other, bias = normal((60, 70)), normal((60, 70), seed=1), normal(70, seed=2)
    layouts = {"plain": np.ascontiguousarray, "fortran": np.asfortranarray}
    for of_x in layouts.values():
        for of_other in layouts.values():
            for over in ("x", "other"):
                a, b = of_x(x).copy("K"), of_other(other).copy("K")
                out = a if over == "x" else b
                expected = expected_add(x, other, 0.3)
                assert fastdrop.dropout_add(a, b, 0.3, key=KEY, out=out) is out
                np.testing.assert_array_equal(out, expected)
                a, b = of_x(x).copy("K"), of_other(other).copy("K")
                out = a if over == "x" else b
                expected = np.where(other > 0, x * np.float32(1 / 0.7), np.float32(0))
                dx, _ = fastdrop.bias_act_dropout_backward(a, b, "relu", 0.3, out=out)
                assert dx is out
                np.testing.assert_array_equal(out, expected)
        a = of_x(x).copy("K")
        fastdrop.bias_act_dropout(a, bias, "relu", 0.3, key=KEY, out=a)
        np.testing.assert_array_equal(a, expected_bias_act(x, bias, "relu", 0.3))


def test_default_keys():
    x, bias = normal((10, 100)), normal(100, seed=1)
    fastdrop.seed(9)
    one, two = fastdrop.dropout_add(x, x), fastdrop.bias_act_dropout(x, bias, "relu")
    assert_same(one, fastdrop.dropout_add(x, x, key=Key(9, 0)))
    assert_same(two, fastdrop.bias_act_dropout(x, bias, "relu", key=Key(9, 1)))


X, BIAS = np.ones((4, 6), np.float32), np.ones(6, np.float32)
BASE = np.ones((5, 6), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: fastdrop.bias_act_dropout(X, BIAS[:5], None),
            ValueError,
            r"bias: expected shape \(6,\), got \(5,\)",
        ),
        (
            lambda: fastdrop.bias_act_dropout(X, BIAS.astype(float), None),
            TypeError,
            "bias: expected dtype float32, got float64",
        ),
        (
            lambda: fastdrop.bias_act_dropout(X, [1.0] * 6, None),
            TypeError,
            "bias: expected a NumPy array, got list",
        ),
        (
            lambda: fastdrop.bias_act_dropout(X, BIAS, "gelu"),
            ValueError,
            "activation: expected None or 'relu', got 'gelu'",
        ),
        (
            lambda: fastdrop.bias_act_dropout(np.float32(1), BIAS, None),
            ValueError,
            "x: expected at least one axis",
        ),
        (lambda: fastdrop.bias_act_dropout(X.astype(int), BIAS, None), TypeError, "x: expected"),
        (lambda: fastdrop.bias_act_dropout(X, BIAS, None, 2), ValueError, "p: expected"),
        (
            lambda: fastdrop.bias_act_dropout(X, BIAS, None, num_threads=0),
            ValueError,
            "num_threads: expected",
        ),
        (
            lambda: fastdrop.dropout_add(X, X[:3]),
            ValueError,
            r"residual: expected shape \(4, 6\), got \(3, 6\)",
        ),
        (lambda: fastdrop.dropout_add(X, X.astype(float)), TypeError, "residual: expected dtype"),
        (
            lambda: fastdrop.dropout_add(X, BASE[1:], out=BASE[:-1]),
            ValueError,
            "out: expected residual itself or memory apart",
        ),
        (
            lambda: fastdrop.bias_act_dropout_backward(X, None, "relu"),
            TypeError,
            "y: expected a NumPy array, got NoneType",
        ),
        (
            lambda: fastdrop.bias_act_dropout_backward(X, X[:2], "relu"),
            ValueError,
            "y: expected shape",
        ),
        (
            lambda: fastdrop.bias_act_dropout_backward(X, None, None),
            TypeError,
            "key: expected a fastdrop.Key, got NoneType",
        ),
        (
            lambda: fastdrop.bias_act_dropout_backward(np.float32(1), None, None, key=KEY),
            ValueError,
            "dy: expected at least one axis",
        ),
    ],
)
def test_refused(call, error, message):
    before = BASE.copy()
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert_same(BASE, before)
