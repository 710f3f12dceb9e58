"""Dropout as pure functions of arrays and keys."""

from __future__ import annotations

import math
from collections.abc import Iterable
from operator import index
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdrop import _core
from fastdrop.random import Key, default_generator

__all__ = ["apply_mask", "dropout", "dropout_mask", "masked_scale"]

_MAX_ELEMENTS = 1 << 55


def _checked_p(p: float) -> float:
    try:
        ok = 0 <= p <= 1    # also refuses NaN
    except (TypeError, ValueError):
        raise TypeError(f"p: expected a number, got {type(p).__name__}") from None
    if not ok:
        raise ValueError(f"p: expected a probability, 0 <= p <= 1, got {p}")
    return float(p)


def _inverted_scale(p: float) -> float:
    return 1 / (1 - p) if p < 1 else 0.0


def _checked_key(key: Key) -> Key:
    if not isinstance(key, Key):
        raise TypeError(f"key: expected a fastdrop.Key, got {type(key).__name__}")
    return key


def _checked_axes(axes: SupportsIndex | Iterable[SupportsIndex], ndim: int) -> tuple[int, ...]:
    """Each of the axes once, in [0, ndim)."""
    given = axes if isinstance(axes, Iterable) else (axes,)
    result = []
    for axis in given:
        try:
            number = index(axis)
        except TypeError:
            raise TypeError(
                f"shared_axes: expected integers, got {type(axis).__name__}"
            ) from None
        if not -ndim <= number < ndim:
            raise ValueError(f"shared_axes: expected axes of a {ndim}-d array, got {number}")
        result.append(number % ndim)
    if len(set(result)) < len(result):
        raise ValueError(f"shared_axes: expected each axis once, got {tuple(given)}")
    return tuple(result)


def _checked_offset(offset: SupportsIndex, elements: int) -> int:
    try:
        number = index(offset)
    except TypeError:
        raise TypeError(f"offset: expected an integer, got {type(offset).__name__}") from None
    if number < 0 or number + elements > _MAX_ELEMENTS:
        raise ValueError(
            f"offset: expected 0 <= offset and offset + elements <= 2**55, got {number}"
        )
    return number


def _mask_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if axis in axes else length for axis, length in enumerate(shape))


def masked_scale(
    x: ArrayLike,
    p: float,
    scale: float,
    *,
    key: Key,
    shared_axes: SupportsIndex | Iterable[SupportsIndex] = (),
    offset: SupportsIndex = 0,
    out: NDArray[Any] | None = None,
    return_mask: bool = False,
    num_threads: SupportsIndex | None = None,
) -> Any:
    """`dropout` with a scale of its own: kept elements times `scale`, the others +0.0.

    Parameters
    ----------
    x, p, key, shared_axes, offset, out, return_mask, num_threads
        As in `dropout`.
    scale : float
        Rounded once to x's dtype.

    Returns
    -------
    ndarray, or (ndarray, packed mask)
    """
    if not isinstance(x, np.ndarray):
        x = np.asarray(x)
    seed, call = _checked_key(key)
    axes: tuple[int, ...] = ()
    if shared_axes != ():
        axes = _checked_axes(shared_axes, x.ndim)
    if offset != 0:
        offset = _checked_offset(offset, math.prod(_mask_shape(x.shape, axes)))
    return _core.masked_scale(
        x, _checked_p(p), scale, seed, call, axes, offset, out, return_mask, num_threads
    )


def dropout(
    x: ArrayLike,
    p: float = 0.5,
    *,
    key: Key | None = None,
    training: bool = True,
    shared_axes: SupportsIndex | Iterable[SupportsIndex] = (),
    offset: SupportsIndex = 0,
    out: NDArray[Any] | None = None,
    return_mask: bool = False,
    num_threads: SupportsIndex | None = None,
) -> Any:
    """Drop elements with probability p, scale the others by 1 / (1 - p).

    The same call on dy, with the same key, is the backward pass.

    Parameters
    ----------
    x : array_like of float32 or float64
        Of any shape, strides and byte order.
    p : float
        Probability of dropping, 0 <= p <= 1. p = 1 gives zeros.
    key : Key, optional
        What the mask is a function of; by default the default generator's next key.
    training : bool
        If False, x itself is returned (copied into `out` where given); likewise with p = 0.
    shared_axes : int or iterable of int
        Axes along which the mask is shared: one decision for the whole axis. The mask's own shape
        is x's with these axes set to 1.
    offset : int
        Index of x's first element in a larger array, in elements of the mask's own shape: x gets
        the bits [offset, offset + n) of the larger array's mask. 0 <= offset, offset + n <= 2**55.
    out : ndarray, optional
        Result array of x's shape and dtype; may be x itself.
    return_mask : bool
        Also return the mask, packed to 1 bit per element.
    num_threads : int, optional
        Threads to use; by default one for small arrays, else the smaller of `get_num_threads` and
        OpenMP's own limit. The result never depends on it.

    Returns
    -------
    y : ndarray
        x's shape and dtype; a dropped element is +0.0, also where x is infinite or NaN.
    mask : ndarray of uint8, only if return_mask
        1 = kept, little-endian bits (``numpy.packbits(..., bitorder="little")``), in the mask's
        own shape, flattened, padding bits 0. `apply_mask` takes it.

    Raises
    ------
    TypeError
        If x is not of a supported float type, or an argument is of the wrong type.
    ValueError
        If p, an axis, offset, num_threads or out is out of bounds.

    References
    ----------
    Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov: "Dropout: a simple way to prevent
    neural networks from overfitting". JMLR 15 (2014) 1929-1958.

    Examples
    --------
    >>> import numpy as np, fastdrop
    >>> key = fastdrop.Key(42)
    >>> fastdrop.dropout(np.ones(8, np.float32), 0.5, key=key)
    array([2., 2., 2., 0., 2., 2., 0., 0.], dtype=float32)
    """
    p = _checked_p(p)
    if training and p:
        return masked_scale(
            x,
            p,
            _inverted_scale(p),
            key=default_generator.next_key() if key is None else key,
            shared_axes=shared_axes,
            offset=offset,
            out=out,
            return_mask=return_mask,
            num_threads=num_threads,
        )
    if not return_mask:
        return _core.identity(x, out)
    x = np.asarray(x)
    shape = _mask_shape(x.shape, _checked_axes(shared_axes, x.ndim))
    mask = np.packbits(np.ones(math.prod(shape), np.uint8), bitorder="little")
    return _core.identity(x, out), mask


def dropout_mask(
    shape: int | tuple[int, ...],
    p: float = 0.5,
    *,
    key: Key,
    shared_axes: SupportsIndex | Iterable[SupportsIndex] = (),
    offset: SupportsIndex = 0,
    packed: bool = False,
) -> NDArray[Any]:
    """The mask that `dropout` applies to an array of the given shape.

    Parameters
    ----------
    shape : int or tuple of int
        The array's shape.
    p, key, shared_axes, offset
        As in `dropout`.
    packed : bool
        1 bit per element instead of a bool.

    Returns
    -------
    ndarray
        True = kept, bool, in the mask's own shape (the shared axes set to 1). If packed, that
        array flattened to uint8, ``numpy.packbits(mask, bitorder="little")``.

    Raises
    ------
    TypeError, ValueError
        As `dropout`; ValueError also for a negative length.
    """
    lengths = tuple(map(index, shape)) if isinstance(shape, Iterable) else (index(shape),)
    if any(length < 0 for length in lengths):
        raise ValueError(f"shape: expected lengths of at least 0, got {shape}")
    own = _mask_shape(lengths, _checked_axes(shared_axes, len(lengths)))
    n = math.prod(own)
    seed, call = _checked_key(key)
    bits = _core.make_mask(
        n, _checked_p(p), seed, call, _checked_offset(offset, n), packed, None
    )
    return bits if packed else bits.view(np.bool_).reshape(own)


def apply_mask(
    x: ArrayLike,
    mask: NDArray[Any],
    p: float,
    *,
    shared_axes: SupportsIndex | Iterable[SupportsIndex] = (),
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Apply a mask that is there already: kept elements times 1 / (1 - p), the others +0.0.

    Parameters
    ----------
    x : array_like of float32 or float64
    mask : ndarray of bool or uint8
        bool: of x's shape, axes of length 1 are shared. uint8: packed, as `dropout` returns it.
    p : float
        The probability of dropping that the mask was made with; p = 1 gives zeros.
    shared_axes : int or iterable of int
        The axes that a packed mask is shared along; a bool mask's shape tells them.
    out : ndarray, optional
        Result array of x's shape and dtype; may be x itself.

    Returns
    -------
    ndarray
        x's shape and dtype.

    Raises
    ------
    TypeError
        If the mask is neither bool nor uint8, or x not of a supported float type.
    ValueError
        If the mask does not fit x, or p or out is out of bounds.
    """
    x = np.asarray(x)
    p = _checked_p(p)
    axes = _checked_axes(shared_axes, x.ndim)
    if not isinstance(mask, np.ndarray) or mask.dtype not in (np.bool_, np.uint8):
        kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
        raise TypeError(f"mask: expected an array of bool, or of uint8 if packed, got {kind}")
    if mask.dtype == np.bool_:
        if mask.ndim == x.ndim and not axes:
            axes = tuple(a for a in range(x.ndim) if mask.shape[a] == 1 != x.shape[a])
        if mask.shape != _mask_shape(x.shape, axes):
            raise ValueError(
                f"mask: expected shape {_mask_shape(x.shape, axes)}, got {mask.shape}"
            )
        mask = np.packbits(mask, axis=None, bitorder="little")
    elif mask.shape != ((math.prod(_mask_shape(x.shape, axes)) + 7) // 8,):
        n = math.prod(_mask_shape(x.shape, axes))
        raise ValueError(
            f"mask: expected shape ({(n + 7) // 8},) for {n} packed bits, got {mask.shape}"
        )
    if p == 1:
        mask = np.zeros_like(mask)
    return _core.apply_packed(
        x, np.ascontiguousarray(mask), _inverted_scale(p), axes, out, None
    )
