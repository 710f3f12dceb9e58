"""The float types that kernels take, and what tests of them share."""

import numpy as np

try:
    from ml_dtypes import bfloat16
except ImportError:
    HALF = [np.dtype(np.float16)]
else:
    HALF = [np.dtype(np.float16), np.dtype(bfloat16)]

ALL = [*HALF, np.dtype(np.float32), np.dtype(np.float64)]


def arithmetic(dtype):
    """The type that kernels compute in."""
    return np.dtype(np.float64 if np.dtype(dtype) == np.float64 else np.float32)


def normal(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def assert_same(a, b):
    """Equal bit for bit: a zero's sign counts; NaNs are equal whatever their bits."""
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    nan = a != a
    np.testing.assert_array_equal(nan, b != b)
    zero = a.dtype.type(0)
    assert np.where(nan, zero, a).tobytes() == np.where(nan, zero, b).tobytes()
