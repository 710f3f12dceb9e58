"""Gaussian variates: their values, where they come from, and the two functions that use them."""

import hashlib

import numpy as np
import pytest
import reference
from dtypes import ALL as DTYPES
from dtypes import arithmetic, assert_same, normal
from hypothesis import given
from hypothesis import strategies as st

import fastdrop
from fastdrop import Key, gaussian_dropout, gaussian_noise

KEY = Key(3, 4)
FUNCTIONS = {
    "dropout": lambda x, **options: gaussian_dropout(x, 0.3, **options),
    "noise": lambda x, **options: gaussian_noise(x, 0.7, **options),
}


def variates(n, dtype=np.float64, key=KEY, **options):
    return gaussian_noise(np.zeros(n, dtype), 1.0, key=key, **options)


@pytest.mark.parametrize(("dtype", "units"), [(np.float32, 5), (np.float64, 8)])
def test_variates_are_exact_to_a_few_units_in_the_last_place(isa, dtype, units):
    n = 100_000
    expected = reference.normal(n, *KEY)
    error = np.abs(variates(n, dtype).astype(np.float64) - expected)
    assert (error / np.spacing(np.abs(expected).astype(dtype))).max() <= units


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 5001])
def test_values(isa, dtype, n):
    """Formula and rounding, from variates of the arithmetic's type."""
    x, wide = normal(n, dtype), arithmetic(dtype)
    z, a = variates(n, wide), x.astype(wide)
    scale = wide.type((0.3 / 0.7) ** 0.5)
    assert_same(gaussian_dropout(x, 0.3, key=KEY), (a * (wide.type(1) + scale * z)).astype(dtype))
    assert_same(gaussian_noise(x, 0.7, key=KEY), (a + wide.type(0.7) * z).astype(dtype))


@given(
    n=st.integers(0, 3000),
    offset=st.integers(0, 2**50 - 3000),
    threads=st.integers(1, 4),
    dtype=st.sampled_from(DTYPES),
    name=st.sampled_from(sorted(FUNCTIONS)),
)
def test_any_offset_threads_and_isa(n, offset, threads, dtype, name):
    x = normal(n, dtype)
    with fastdrop.use_isa("generic"):
        expected = FUNCTIONS[name](x, key=KEY, offset=offset)
    for isa in fastdrop.available_isas():
        with fastdrop.use_isa(isa):
            assert_same(FUNCTIONS[name](x, key=KEY, offset=offset, num_threads=threads), expected)
    cut = n // 3
    parts = [
        FUNCTIONS[name](x[:cut], key=KEY, offset=offset),
        FUNCTIONS[name](x[cut:], key=KEY, offset=offset + cut),
    ]
    assert_same(np.concatenate(parts), expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_large_arrays_in_place_and_streamed(isa, name):
    x = normal(200_003)
    expected = FUNCTIONS[name](x, key=KEY, num_threads=1)
    before = fastdrop.compiled._core.cache_bytes()
    try:
        for cache in (before, 0):
            fastdrop.compiled._core.set_cache_bytes(cache)
            for threads in (1, 2, 3):
                y = x.copy()
                assert FUNCTIONS[name](y, key=KEY, out=y, num_threads=threads) is y
                assert_same(y, expected)
    finally:
        fastdrop.compiled._core.set_cache_bytes(before)


def test_variates_are_those_of_the_first_release():
    """A change of any bit is a change of the major version."""
    digests = [
        hashlib.sha256(variates(20_000, dtype, Key(42, 7), offset=12345).tobytes()).hexdigest()[:16]
        for dtype in (np.float32, np.float64)
    ]
    assert digests == ["ab760c9a1c0558bc", "d0c4a63559471e74"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_identity(name):
    x, out = normal((3, 5)), np.zeros((3, 5), np.float32)
    assert FUNCTIONS[name](x, key=KEY, training=False) is x
    assert FUNCTIONS[name](x, key=KEY, training=False, out=out) is out
    assert_same(out, x)
    assert gaussian_dropout(x, 0, key=KEY) is x
    assert gaussian_noise(x, 0, key=KEY) is x


@pytest.mark.slow
def test_moments():
    """Mean 0, variance 1, skewness 0 and kurtosis 3, each within five standard deviations."""
    n = 1 << 22
    z = variates(n, np.float32).astype(np.float64)
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - expected) < 5 * (variance / n) ** 0.5


X = np.ones(6, np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gaussian_dropout(X, 1, key=KEY), ValueError, "p: expected 0 <= p < 1"),
        (lambda: gaussian_dropout(X, -1, key=KEY), ValueError, "p: expected"),
        (lambda: gaussian_noise(X, -1, key=KEY), ValueError, "stddev: expected .* got -1"),
        (lambda: gaussian_noise(X, np.inf, key=KEY), ValueError, "stddev: expected .* got inf"),
        (lambda: gaussian_noise(X, np.nan, key=KEY), ValueError, "stddev: expected .* got nan"),
        (lambda: gaussian_noise(X, "1", key=KEY), TypeError, "stddev: expected a number, got str"),
        (lambda: gaussian_noise(X, 1, key=1), TypeError, "key: expected"),
        (lambda: gaussian_noise(X, 1, key=KEY, offset=2**50), ValueError, r"offset: .* 2\*\*50"),
        (lambda: gaussian_noise([1], 1, key=KEY), TypeError, "x: expected"),
        (lambda: gaussian_noise(X, 1, key=KEY, out=X[:3]), ValueError, "out: expected shape"),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
