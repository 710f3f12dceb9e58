"""Gaussian noise as pure functions of arrays and keys."""

from __future__ import annotations

import math
from typing import Any, SupportsIndex

from numpy.typing import ArrayLike, NDArray

from fastdrop._checks import as_array, checked_offset, checked_p, checked_stddev
from fastdrop.compiled import _core
from fastdrop.functional import checked_key
from fastdrop.random import Key

__all__ = ["gaussian_dropout", "gaussian_noise"]

_OFFSET_BITS = 50  # domain 1 has 2**48 blocks of four words


def _normal_noise(
    x: NDArray[Any],
    multiply: bool,
    stddev: float,
    key: Key,
    offset: SupportsIndex,
    out: NDArray[Any] | None,
    num_threads: SupportsIndex | None,
) -> NDArray[Any]:
    seed, call = checked_key(key)
    start = checked_offset(offset, x.size, _OFFSET_BITS)
    return _core.normal_noise(x, multiply, stddev, seed, call, start, out, num_threads)


def gaussian_stddev(p: float) -> float:
    """Return the standard deviation of the noise of `gaussian_dropout`, for a checked p."""
    if p == 1:
        raise ValueError("p: expected 0 <= p < 1, where the variance p / (1 - p) is finite, got 1")
    return math.sqrt(p / (1 - p))


def gaussian_dropout(
    x: ArrayLike,
    p: float = 0.5,
    *,
    key: Key,
    training: bool = True,
    offset: SupportsIndex = 0,
    out: NDArray[Any] | None = None,
    num_threads: SupportsIndex | None = None,
) -> NDArray[Any]:
    """Multiply by Gaussian noise of mean 1 and of the variance that dropout has.

    The result is y = x (1 + sqrt(p / (1 - p)) z), where z are independent standard normal variates,
    one for each element. A variate is the inverse normal distribution function of
    (word + 1/2) / 2**32, for one word of the key's domain 1. It is computed in float32 (in float64
    where x is float64), to a few units in the last place, with the same bits on every machine. The
    same call on dy, with the same key, is the backward pass.

    Parameters
    ----------
    x : array_like of float16, bfloat16, float32 or float64
        An array of any shape.
    p : float
        0 <= p < 1. The noise has the mean and the variance of dropout with this p.
    key : Key
        The key that decides the noise.
    training : bool
        If False, or if p = 0, the result is x itself, copied into `out` where `out` is given.
    offset : int
        Index of the first element of x in a larger array; offset + x.size <= 2**50.
    out, num_threads
        As in `dropout`.

    Returns
    -------
    ndarray
        Array with the shape and dtype of x.

    Raises
    ------
    TypeError, ValueError
        As for `dropout`; also a ValueError for p = 1, where the variance is infinite.

    References
    ----------
    Srivastava et al. 2014, Dropout, JMLR 15:1929, section 10.
    """
    p = checked_p(p)
    stddev = gaussian_stddev(p)
    x = as_array("x", x)
    if not training or p == 0:
        return _core.identity(x, out)
    return _normal_noise(x, True, stddev, key, offset, out, num_threads)


def gaussian_noise(
    x: ArrayLike,
    stddev: float,
    *,
    key: Key,
    training: bool = True,
    offset: SupportsIndex = 0,
    out: NDArray[Any] | None = None,
    num_threads: SupportsIndex | None = None,
) -> NDArray[Any]:
    """Add Gaussian noise of mean 0.

    The result is y = x + stddev z, with z as in `gaussian_dropout`. Its gradient is dy.

    Parameters
    ----------
    x : array_like
        As in `gaussian_dropout`.
    stddev : float
        Standard deviation of the noise, at least 0 and finite.
    key, training, offset, out, num_threads
        As in `gaussian_dropout`.

    Returns
    -------
    ndarray
        Array with the shape and dtype of x.

    Raises
    ------
    TypeError, ValueError
        As for `dropout`; also if the standard deviation is negative or not finite.
    """
    stddev = checked_stddev(stddev)
    x = as_array("x", x)
    if not training or stddev == 0:
        return _core.identity(x, out)
    return _normal_noise(x, False, stddev, key, offset, out, num_threads)
