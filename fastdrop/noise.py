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
    """Multiply by noise of mean 1 and the variance of dropout: y = x (1 + sqrt(p / (1 - p)) z).

    z are independent standard normal variates, one an element: the inverse normal distribution
    function of (word + 1/2) / 2**32, the words of the key's domain 1. They are computed in float32
    (float64 for float64), to a few units in the last place, with the same bits on every machine.
    The same call on dy, with the same key, is the backward pass.

    Parameters
    ----------
    x : array_like of float16, bfloat16, float32 or float64
        Of any shape.
    p : float
        0 <= p < 1. The noise has the mean and the variance of dropout's with this p.
    key : Key
    training : bool
        If False, x itself is returned (copied into `out` where given); likewise with p = 0.
    offset : int
        Index of x's first element in a larger array; offset + x.size <= 2**50.
    out, num_threads
        As in `dropout`.

    Returns
    -------
    ndarray
        x's shape and dtype.

    Raises
    ------
    TypeError, ValueError
        As `dropout`; ValueError also for p = 1, where the variance is infinite.

    References
    ----------
    Srivastava et al. 2014, Dropout, JMLR 15:1929, section 10.
    """
    p = checked_p(p)
    if p == 1:
        raise ValueError("p: expected 0 <= p < 1, where the variance p / (1 - p) is finite, got 1")
    x = as_array("x", x)
    if not training or p == 0:
        return _core.identity(x, out)
    return _normal_noise(x, True, math.sqrt(p / (1 - p)), key, offset, out, num_threads)


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
    """Add noise of mean 0: y = x + stddev z, with z as in `gaussian_dropout`. Its gradient is dy.

    Parameters
    ----------
    stddev : float
        Standard deviation of the noise, at least 0 and finite.
    x, key, training, offset, out, num_threads
        As in `gaussian_dropout`.

    Returns
    -------
    ndarray
        x's shape and dtype.

    Raises
    ------
    TypeError, ValueError
        As `dropout`; also for a standard deviation that is negative or not finite.
    """
    stddev = checked_stddev(stddev)
    x = as_array("x", x)
    if not training or stddev == 0:
        return _core.identity(x, out)
    return _normal_noise(x, False, stddev, key, offset, out, num_threads)
