"""Dropout as pure functions of arrays and keys."""

from __future__ import annotations

import math
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdrop._checks import (
    Axes,
    as_array,
    checked_axes,
    checked_offset,
    checked_p,
    checked_shape,
    mask_shape,
)
from fastdrop._quiet import quiet
from fastdrop.compiled import _core
from fastdrop.random import Key, default_generator

__all__ = [
    "apply_mask",
    "bias_act_dropout",
    "bias_act_dropout_backward",
    "dropout",
    "dropout_add",
    "dropout_mask",
    "masked_scale",
]


def inverted_scale(p: float) -> float:
    """Return what kept elements are multiplied by; 0 where nothing is kept."""
    return 1 / (1 - p) if p < 1 else 0.0


def checked_key(key: Key | None) -> Key:
    """Return `key`, if it is one."""
    if not isinstance(key, Key):
        raise TypeError(f"key: expected a fastdrop.Key, got {type(key).__name__}")
    return key


def _activation_is_relu(activation: str | None) -> bool:
    if activation not in (None, "relu"):
        raise ValueError(f"activation: expected None or 'relu', got {activation!r}")
    return activation == "relu"


def masked_scale(
    x: ArrayLike,
    p: float,
    scale: float,
    *,
    key: Key,
    shared_axes: Axes = (),
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
    p = checked_p(p)
    return _masked_scale(x, p, scale, key, shared_axes, offset, out, return_mask, num_threads)


def _masked_scale(
    x: ArrayLike,
    p: float,
    scale: float,
    key: Key,
    shared_axes: Axes,
    offset: SupportsIndex,
    out: NDArray[Any] | None,
    return_mask: bool,
    num_threads: SupportsIndex | None,
) -> Any:
    """`masked_scale` for a checked p; the usual arguments cost a small array next to nothing."""
    if type(x) is not np.ndarray:
        x = as_array("x", x)
    seed, call = key if type(key) is Key else checked_key(key)
    no_axes = type(shared_axes) is tuple and not shared_axes
    axes = () if no_axes else checked_axes(shared_axes, x.ndim)
    if type(offset) is not int or offset:
        offset = checked_offset(offset, math.prod(mask_shape(x.shape, axes)))
    return _core.masked_scale(x, p, scale, seed, call, axes, offset, out, return_mask, num_threads)


def dropout(
    x: ArrayLike,
    p: float = 0.5,
    *,
    key: Key | None = None,
    training: bool = True,
    shared_axes: Axes = (),
    offset: SupportsIndex = 0,
    out: NDArray[Any] | None = None,
    return_mask: bool = False,
    num_threads: SupportsIndex | None = None,
) -> Any:
    """Drop elements with probability p, scale the others by 1 / (1 - p).

    The same call on dy, with the same key, is the backward pass.

    Parameters
    ----------
    x : array_like of float16, bfloat16, float32 or float64
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
        If p, an axis, offset, num_threads or out is out of bounds; if an array masks any of its
        values, is sparse, or is anything else that NumPy would lose a part of.

    References
    ----------
    Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov: "Dropout: a simple way to prevent
    neural networks from overfitting". JMLR 15 (2014) 1929-1958.

    Examples
    --------
    >>> import numpy as np, fastdrop
    >>> key = fastdrop.Key(42)
    >>> fastdrop.dropout(np.ones(8, np.float32), 0.5, key=key)
    array([0., 0., 2., 2., 0., 2., 0., 2.], dtype=float32)
    """
    p = checked_p(p)
    if training and p:
        if key is None:
            key = default_generator.next_key()
        scale = inverted_scale(p)
        return _masked_scale(x, p, scale, key, shared_axes, offset, out, return_mask, num_threads)
    x = as_array("x", x)
    shape = mask_shape(x.shape, checked_axes(shared_axes, x.ndim))
    checked_offset(offset, math.prod(shape))
    if key is not None:
        checked_key(key)
    if not return_mask:
        return _core.identity(x, out)
    mask = np.packbits(np.ones(math.prod(shape), np.uint8), bitorder="little")
    return _core.identity(x, out), mask


def dropout_mask(
    shape: int | tuple[int, ...],
    p: float = 0.5,
    *,
    key: Key,
    shared_axes: Axes = (),
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
    lengths = checked_shape(shape)
    own = mask_shape(lengths, checked_axes(shared_axes, len(lengths)))
    n = math.prod(own)
    seed, call = checked_key(key)
    bits = _core.make_mask(n, checked_p(p), seed, call, checked_offset(offset, n), packed, None)
    return bits if packed else bits.view(np.bool_).reshape(own)


def apply_mask(
    x: ArrayLike,
    mask: NDArray[Any],
    p: float,
    *,
    shared_axes: Axes = (),
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Apply a mask that is there already: kept elements times 1 / (1 - p), the others +0.0.

    Parameters
    ----------
    x : array_like of float16, bfloat16, float32 or float64
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
    x = as_array("x", x)
    p = checked_p(p)
    axes = checked_axes(shared_axes, x.ndim)
    if not isinstance(mask, np.ndarray) or mask.dtype not in (np.bool_, np.uint8):
        kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
        raise TypeError(f"mask: expected an array of bool, or of uint8 if packed, got {kind}")
    mask = as_array("mask", mask)
    if mask.dtype == np.bool_:
        if mask.ndim == x.ndim and not axes:
            axes = tuple(a for a in range(x.ndim) if mask.shape[a] == 1 != x.shape[a])
        if mask.shape != mask_shape(x.shape, axes):
            raise ValueError(f"mask: expected shape {mask_shape(x.shape, axes)}, got {mask.shape}")
        mask = np.packbits(mask, axis=None, bitorder="little")
    elif mask.shape != ((math.prod(mask_shape(x.shape, axes)) + 7) // 8,):
        n = math.prod(mask_shape(x.shape, axes))
        raise ValueError(
            f"mask: expected shape ({(n + 7) // 8},) for {n} packed bits, got {mask.shape}"
        )
    if p == 1:
        mask = np.zeros_like(mask)
    return _core.apply_packed(x, np.ascontiguousarray(mask), inverted_scale(p), axes, out, None)


def _fused(
    function: Any,
    x: ArrayLike,
    others: tuple[Any, ...],
    p: float,
    key: Key | None,
    shared_axes: Axes,
    offset: SupportsIndex,
    out: NDArray[Any] | None,
    num_threads: SupportsIndex | None,
) -> Any:
    """Check what all fused operations share, and call the compiled one."""
    x = as_array("x", x)
    p = checked_p(p)
    seed, call = checked_key(key)
    axes = checked_axes(shared_axes, x.ndim)
    offset = checked_offset(offset, math.prod(mask_shape(x.shape, axes)))
    scale = inverted_scale(p)
    return function(x, *others, p, scale, seed, call, axes, offset, out, num_threads)


def dropout_add(
    x: ArrayLike,
    residual: NDArray[Any],
    p: float = 0.5,
    *,
    key: Key | None = None,
    shared_axes: Axes = (),
    offset: SupportsIndex = 0,
    out: NDArray[Any] | None = None,
    num_threads: SupportsIndex | None = None,
) -> NDArray[Any]:
    """``dropout(x, p) + residual`` in one pass: the end of a residual branch.

    Its gradients are ``dropout(dy, p, key=key)`` for x and dy itself for the residual.

    Parameters
    ----------
    x, p, key, shared_axes, offset, num_threads
        As in `dropout`.
    residual : ndarray
        Of x's shape and dtype.
    out : ndarray, optional
        Result array of x's shape and dtype; may be x or residual itself.

    Returns
    -------
    ndarray
        x's shape and dtype.

    Raises
    ------
    TypeError, ValueError
        As `dropout`; also if the residual's shape or dtype is not x's.
    """
    key = default_generator.next_key() if key is None else key
    return _fused(_core.masked_add, x, (residual,), p, key, shared_axes, offset, out, num_threads)


def bias_act_dropout(
    x: ArrayLike,
    bias: NDArray[Any],
    activation: str | None,
    p: float = 0.5,
    *,
    key: Key | None = None,
    shared_axes: Axes = (),
    offset: SupportsIndex = 0,
    out: NDArray[Any] | None = None,
    num_threads: SupportsIndex | None = None,
) -> NDArray[Any]:
    """``dropout(activation(x + bias), p)`` in one pass: what follows a matrix product.

    Parameters
    ----------
    x, p, key, shared_axes, offset, out, num_threads
        As in `dropout`; x has at least one axis.
    bias : ndarray
        Of shape (x.shape[-1],) and x's dtype.
    activation : {None, "relu"}

    Returns
    -------
    ndarray
        x's shape and dtype. `bias_act_dropout_backward` is its gradient.

    Raises
    ------
    TypeError, ValueError
        As `dropout`; also if the bias does not fit x, or for another activation.
    """
    key = default_generator.next_key() if key is None else key
    others = (bias, _activation_is_relu(activation))
    return _fused(_core.masked_bias, x, others, p, key, shared_axes, offset, out, num_threads)


def bias_act_dropout_backward(
    dy: ArrayLike,
    y: NDArray[Any] | None,
    activation: str | None,
    p: float = 0.5,
    *,
    key: Key | None = None,
    shared_axes: Axes = (),
    offset: SupportsIndex = 0,
    out: NDArray[Any] | None = None,
    num_threads: SupportsIndex | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Gradients of `bias_act_dropout` for x and bias, in one pass.

    Behind a ReLU y > 0 is ReLU's and dropout's mask in one, so that neither key nor generator is
    needed. Without activation the mask is made again from the key.

    Parameters
    ----------
    dy : array_like
        Gradient with respect to the output.
    y : ndarray
        The output, of dy's shape and dtype; not read, and may be None, without activation.
    activation, p, shared_axes, offset, num_threads
        As in the forward call.
    key : Key
        As in the forward call; not needed with "relu".
    out : ndarray, optional
        Where dx goes; may be dy or y itself.

    Returns
    -------
    dx : ndarray
        dy's shape and dtype.
    dbias : ndarray
        dx summed over all axes but the last, in an order that no number of threads changes;
        half types are summed in float32.

    Raises
    ------
    TypeError, ValueError
        As `bias_act_dropout`.
    """
    relu = _activation_is_relu(activation)
    if relu and key is None:
        key = Key(0)  # not used
    dy = as_array("dy", dy)
    others = (y, relu)
    dx, dbias = _fused(
        _core.bias_backward, dy, others, p, key, shared_axes, offset, out, num_threads
    )
    with quiet():
        return dx, dbias.astype(dy.dtype.newbyteorder("="), copy=False)
