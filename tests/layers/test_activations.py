"""sigmoid and tanh, which are compiled: against their slow twins, bit for bit, and exact values."""

from fractions import Fraction

import numpy as np
import pytest
import reference
from dtypes import assert_same, normal
from hypothesis import given
from hypothesis import strategies as st

import fastdrop
from fastdrop.layers import ACTIVATIONS, sigmoid

DTYPES = [np.float32, np.float64]
TWINS = {
    "sigmoid": (reference.sigmoid, reference.sigmoid_gradient),
    "tanh": (reference.tanh, reference.tanh_gradient),
}
BY_NUMPY = {"sigmoid": lambda z: 1 / (1 + np.exp(-z)), "tanh": np.tanh}


def apply(name, z, out=None):
    return ACTIVATIONS[name](z, out)[0]


def gradient(name, dy, y):
    """The gradient of a call whose output is overwritten by y."""
    out = y.copy()
    _, backward = ACTIVATIONS[name](out, out)
    out[...] = y
    return backward(dy)


def special(dtype):
    """Numbers of both signs at which something ends or begins."""
    info = np.finfo(dtype)
    places = [0, info.smallest_subnormal, info.tiny, info.eps, 0.625, 1, 9, 20, 44, 87, 104, 354]
    places += [708, 709, 746, info.max, np.inf]
    near = np.array(places, dtype)
    with np.errstate(all="ignore"):
        near = np.concatenate(
            [near, np.nextafter(near, dtype(0)), np.nextafter(near, dtype(np.inf))]
        )
        log2 = np.log(dtype(2)) / 4 * np.arange(1, 60, dtype=dtype)  # n of the exponential changes
    return np.concatenate([near, -near, log2, -log2, [dtype(np.nan), -dtype(np.nan)]])


def any_bits(n, dtype, seed):
    """Numbers of all magnitudes, infinities and NaN among them."""
    bytes_ = np.random.default_rng(seed).bytes(n * np.dtype(dtype).itemsize)
    return np.frombuffer(bytes_, dtype).copy()


# ---- bits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TWINS)
def test_twins(isa, name, dtype):
    forward, backward = TWINS[name]
    common = normal(5000, dtype) * np.repeat(np.array([0.1, 1, 5, 50, 500], dtype), 1000)
    for z in (special(dtype), any_bits(20000, dtype, 1), common):
        y, dy = forward(z), z[::-1].copy()
        assert_same(apply(name, z), y)
        assert_same(gradient(name, dy, y), backward(dy, y))
        assert_same(gradient(name, dy, z), backward(dy, z))  # whatever the output is


@given(
    *(st.sampled_from(values) for values in ([*TWINS], DTYPES, fastdrop.available_isas())),
    st.integers(0, 300),
    st.integers(0, 17),
    st.integers(0, 17),
    st.integers(0, 2**32),
)
def test_lengths_and_places(name, dtype, isa, n, start, place, seed):
    """No number depends on how many there are, or on where they lie; nothing else is written."""
    z = any_bits(start + n, dtype, seed)[start:]
    around = np.full(place + n + 20, 7, dtype)
    out = around[place : place + n]
    forward, backward = TWINS[name]
    with fastdrop.use_isa(isa):
        y = apply(name, z, out)
        assert y is out
        assert_same(y, forward(z))
        assert_same(gradient(name, z, y), backward(z, y))
        in_place = z.copy()
        assert apply(name, in_place, in_place) is in_place
        assert_same(in_place, y)
    assert (around[:place] == 7).all()
    assert (around[place + n :] == 7).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TWINS)
def test_threads(name, dtype):
    z = normal(400_003, dtype) * 10
    forward, backward = TWINS[name]
    before = fastdrop.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            fastdrop.set_num_threads(threads)
            y = apply(name, z)
            assert_same(y, forward(z))
            for n in (z.size, 100):
                assert_same(gradient(name, z[:n], y[:n]), backward(z[:n], y[:n]))
            assert_same(gradient(name, np.tile(z, 10), np.tile(y, 10))[-z.size :], backward(z, y))
    finally:
        fastdrop.set_num_threads(before)


# ---- accuracy ------------------------------------------------------------------------------------


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 60, reason="needs a longer type than float64")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "bound"), [("sigmoid", 2.5), ("tanh", 1.5)])
def test_accuracy(isa, name, bound, dtype):
    rng = np.random.default_rng(0)
    z = np.concatenate(
        [
            rng.uniform(-1, 1, 50000),
            rng.uniform(-10, 10, 50000),
            rng.uniform(-750, 50, 20000),
            10 ** rng.uniform(-44, 3, 20000) * rng.choice([-1, 1], 20000),
        ]
    ).astype(dtype)
    wide = z.astype(np.longdouble)
    exact = np.tanh(wide) if name == "tanh" else 1 / (1 + np.exp(-wide))
    wrong = np.abs(apply(name, z).astype(np.longdouble) - exact)
    assert (wrong / np.spacing(np.abs(exact).astype(dtype))).max() < bound


@pytest.mark.parametrize("z", [1e-5, 0.0123, 0.3, 0.62])
def test_tanh_is_its_series(z):
    """Where it is near to 0, without a longer type: Lambert's continued fraction, exactly."""
    square, quotient = Fraction(z) ** 2, Fraction(41)
    for odd in range(39, 0, -2):
        quotient = odd + square / quotient
    exact = Fraction(z) / quotient
    assert abs(Fraction(float(apply("tanh", np.array([z]))[0])) / exact - 1) < 2**-52


@pytest.mark.parametrize("dtype", DTYPES)
def test_laws(isa, dtype):
    info, inf = np.finfo(dtype), dtype(np.inf)
    z = np.concatenate([special(dtype), any_bits(20000, dtype, 2)])
    z = np.sort(z[~np.isnan(z)])
    y, s = apply("tanh", z), apply("sigmoid", z)
    assert_same(apply("tanh", -z), -y)
    assert_same(np.signbit(y), np.signbit(z))
    tiny = np.abs(z) < np.sqrt(info.eps) / 2
    assert tiny.sum() > 1000
    assert_same(y[tiny], z[tiny])  # subnormals and -0.0, too
    assert (np.abs(y) <= 1).all()
    assert ((s >= 0) & (s <= 1)).all()
    for values in (y, s):  # a step back is rounding
        assert (np.diff(values) >= -np.spacing(np.abs(values[1:]))).all()
    ends = np.array([-inf, inf, info.min, info.max, np.nan], dtype)
    assert_same(apply("tanh", ends), np.array([-1, 1, -1, 1, np.nan], dtype))
    assert_same(apply("sigmoid", ends), np.array([0, 1, 0, 1, np.nan], dtype))
    assert_same(apply("sigmoid", np.array([0, -0.0], dtype)), np.array([0.5, 0.5], dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_sigmoid_ends_in_the_least_number(isa, dtype):
    """Where the result is subnormal, it is exp(z) rounded once."""
    least = float(np.finfo(dtype).smallest_subnormal)
    z = np.log(least) + np.log([0.45, 0.55, 1, 2, 5.2, 100])
    expected = least * np.array([0, 1, 1, 2, 5, 100])
    assert_same(apply("sigmoid", z.astype(dtype)), expected.astype(dtype))


# ---- other arrays --------------------------------------------------------------------------------


def unaligned(z):
    raw = np.empty(z.nbytes + 1, np.uint8)[1:]
    array = raw.view(z.dtype).reshape(z.shape)
    array[...] = z
    return array


OTHERS = {
    "half": lambda z: z.astype(np.float16),
    "extended": lambda z: z.astype(np.longdouble),
    "swapped": lambda z: z.astype(z.dtype.newbyteorder()),
    "steps": lambda z: np.repeat(z, 2, axis=1)[:, ::2],
    "transposed": lambda z: z.copy(order="F"),
    "unaligned": unaligned,
    "no axis": lambda z: z[0, 0].reshape(()),
    "no element": lambda z: z[:0],
    "masked": lambda z: np.ma.masked_array(z, z > 0),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("kind", OTHERS)
def test_other_arrays(kind, name, dtype):
    """Arrays that kernels cannot read are computed as well."""
    z = OTHERS[kind](normal((7, 9), dtype))
    y, backward = ACTIVATIONS[name](z, None)
    dz = backward(np.ones_like(z))
    exact = BY_NUMPY[name](z.astype(float))
    slope = exact * (1 - exact) if name == "sigmoid" else 1 - exact * exact
    tolerance = 2e-3 if kind == "half" else 1e-6
    assert y.shape == dz.shape == z.shape
    np.testing.assert_allclose(y.astype(float), exact, tolerance)
    np.testing.assert_allclose(dz.astype(float), slope, tolerance, 10 * tolerance)
    if kind == "masked":
        np.testing.assert_array_equal(y.mask, z.mask)
    elif kind != "no axis":  # NumPy 1 adds a float32 without axes to 1 in float64
        assert y.dtype.newbyteorder("=") == z.dtype.newbyteorder("=")


@pytest.mark.parametrize("z", [0.5, np.float32(0.5), np.array(0.5)])
def test_numbers(z):
    assert sigmoid(z) == pytest.approx(0.6224593312018546)


@pytest.mark.parametrize("name", TWINS)
def test_mixed_dtypes(name):
    """The gradient may be of another type, or broadcast."""
    y, backward = ACTIVATIONS[name](normal((4, 5)), None)
    for dy in (normal((4, 5), np.float64), normal((1, 5)), normal((3, 4, 5))):
        assert_same(backward(dy), TWINS[name][1](dy, y))


@pytest.mark.parametrize("name", TWINS)
def test_overlap(isa, name):
    """An output that lies across the input is written as if it did not."""
    expected = TWINS[name][0](normal(100)[:-1])
    z = normal(100)
    np.testing.assert_allclose(apply(name, z[:-1], z[1:]), expected, 1e-6)
    z = normal(100)
    np.testing.assert_allclose(apply(name, z[:-1][::-1], z[1:]), expected[::-1], 1e-6)


@pytest.mark.parametrize("name", TWINS)
def test_outputs_that_do_not_fit(name):
    z = normal(6)
    read_only = np.zeros(6, np.float32)
    read_only.flags.writeable = False
    for out in (read_only, np.zeros(5, np.float32)):
        with pytest.raises(ValueError, match=r"read-only|broadcast"):
            apply(name, z, out)
        assert not out.any()
    assert_same(z, normal(6))


@pytest.mark.parametrize("dtype", DTYPES)
def test_silu(isa, dtype):
    z, dy = normal(1000, dtype) * 3, normal(1000, dtype, 1)
    y, backward = ACTIVATIONS["silu"](z, None)
    s = reference.sigmoid(z)
    assert_same(y, z * s)
    assert_same(backward(dy), dy * (s * (1 + z * (1 - s))))
