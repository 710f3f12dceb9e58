"""Dropout as pure functions of arrays and keys."""

from __future__ import annotations

import math
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdrop._checks import (
    Axes,
    as_array,
    check_choice,
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
    """Return the factor of kept elements, or 0 where nothing is kept."""
    return 1 / (1 - p) if p < 1 else 0.0


def checked_key(key: Key | None) -> Key:
    """Return `key` if it is a `Key`, and raise TypeError otherwise."""
    if not isinstance(key, Key):
        raise TypeError(f"key: expected a fastdrop.Key, got {type(key).__name__}")
    return key


def _activation_is_relu(activation: str | None) -> bool:
    check_choice("activation", activation, None, "relu")
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
    """Drop as `dropout` does, but multiply the kept elements by `scale`.

    Parameters
    ----------
    x, p
        As in `dropout`.
    scale : float
        Factor of the kept elements, rounded once to the dtype of x. Dropped elements become +0.0.
    key, shared_axes, offset, out, return_mask, num_threads
        As in `dropout`.

    Returns
    -------
    y : ndarray
        Array with the shape and dtype of x.
    mask : ndarray of uint8, only if return_mask
        The packed mask, as in `dropout`.

    Raises
    ------
    TypeError, ValueError
        As for `dropout`.
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
    """Do what `masked_scale` does, for a checked p, at little cost where the array is small."""
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
    """Drop elements with probability p and multiply the others by 1 / (1 - p).

    The same call on dy, with the same key, is the backward pass.

    Parameters
    ----------
    x : array_like of float16, bfloat16, float32 or float64
        An array of any shape, strides and byte order.
    p : float
        Probability of dropping an element, 0 <= p <= 1. With p = 1 every element becomes 0.
    key : Key, optional
        The key that decides the mask. By default the default generator hands out its next key.
    training : bool
        If False, or if p = 0, the result is x itself, copied into `out` where `out` is given.
    shared_axes : int or iterable of int
        Axes along which the mask is shared: elements that differ only in these axes are dropped
        or kept together. The mask's own shape is the shape of x with these axes set to 1.
    offset : int
        Index of the first element of x in a larger array, counted in elements of the mask's own
        shape. Then x gets the bits [offset, offset + n) of the larger array's mask, where n is
        the size of the mask. 0 <= offset and offset + n <= 2**55.
    out : ndarray, optional
        Array for the result, with the shape and dtype of x; it may be x itself.
    return_mask : bool
        Whether to return the mask as well, packed to 1 bit per element.
    num_threads : int, optional
        How many threads to use. By default one thread computes a small array, and a large one is
        computed by as many as the smaller of `get_num_threads` and the limit of OpenMP. The
        result never depends on it.

    Returns
    -------
    y : ndarray
        Array with the shape and dtype of x. A dropped element is +0.0, even where x is infinite
        or NaN.
    mask : ndarray of uint8, only if return_mask
        A bit is 1 where the element is kept. The mask has its own shape, flattened, in
        little-endian bits (``numpy.packbits(..., bitorder="little")``); padding bits are 0.
        `apply_mask` takes it.

    Raises
    ------
    TypeError
        If x does not have a supported float type, or an argument has the wrong type.
    ValueError
        If p, an axis, offset, num_threads or out is out of bounds; if x is a masked array with
        masked values, is sparse, or would lose something else on its way into NumPy.

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
    """Return the mask that `dropout` applies to an array of the given shape.

    Parameters
    ----------
    shape : int or tuple of int
        The array's shape.
    p, key, shared_axes, offset
        As in `dropout`.
    packed : bool
        Whether to return 1 bit per element instead of a bool.

    Returns
    -------
    ndarray
        An array of bool, True where an element is kept, in the mask's own shape (with the shared
        axes set to 1). If packed, that array is flattened to uint8:
        ``numpy.packbits(mask, bitorder="little")``.

    Raises
    ------
    TypeError, ValueError
        As for `dropout`; also a ValueError if a length is negative.
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
    """Apply a mask that exists already.

    Kept elements are multiplied by 1 / (1 - p), and the others become +0.0.

    Parameters
    ----------
    x : array_like of float16, bfloat16, float32 or float64
        The array to apply the mask to.
    mask : ndarray of bool or uint8
        A mask of bool has the shape of x, or length 1 along the axes that share it. A mask of
        uint8 is packed, as `dropout` returns it.
    p : float
        The probability of dropping that the mask was made with. With p = 1 every element
        becomes 0.
    shared_axes : int or iterable of int
        The axes along which a packed mask is shared. The shape of a bool mask already tells them.
    out : ndarray, optional
        Array for the result, with the shape and dtype of x; it may be x itself.

    Returns
    -------
    ndarray
        Array with the shape and dtype of x.

    Raises
    ------
    TypeError
        If the mask is neither bool nor uint8, or x does not have a supported float type.
    ValueError
        If the mask does not fit x, or if p or out is out of bounds.
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
    """Check the arguments of all fused operations, and call the compiled `function`."""
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
    """Return ``dropout(x, p) + residual``, computed in one pass.

    This is how a residual branch ends. Its gradients are ``dropout(dy, p, key=key)`` for x, and dy
    itself for the residual.

    Parameters
    ----------
    x : array_like
        As in `dropout`.
    residual : ndarray
        Array with the shape and dtype of x, which is added.
    p, key, shared_axes, offset
        As in `dropout`.
    out : ndarray, optional
        Array for the result, with the shape and dtype of x; it may be x or residual itself.
    num_threads : int, optional
        As in `dropout`.

    Returns
    -------
    ndarray
        Array with the shape and dtype of x.

    Raises
    ------
    TypeError, ValueError
        As for `dropout`; also if the residual differs from x in shape or dtype.
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
    """Return ``dropout(activation(x + bias), p)``, computed in one pass.

    This is what follows a matrix product in a layer.

    Parameters
    ----------
    x : array_like
        As in `dropout`; x has at least one axis.
    bias : ndarray
        Array of shape (x.shape[-1],) and of the dtype of x.
    activation : {None, "relu"}
        None adds the bias only.
    p, key, shared_axes, offset, out, num_threads
        As in `dropout`.

    Returns
    -------
    ndarray
        Array with the shape and dtype of x. `bias_act_dropout_backward` computes its gradient.

    Raises
    ------
    TypeError, ValueError
        As for `dropout`; also if the bias does not fit x, or for another activation.
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
    """Return the gradients of `bias_act_dropout` for x and bias, computed in one pass.

    After a ReLU, y > 0 is the mask of the ReLU and of dropout in one, so neither a key nor a
    generator is needed. Without an activation the mask is drawn again from the key.

    Parameters
    ----------
    dy : array_like
        Gradient with respect to the output.
    y : ndarray
        The output, with the shape and dtype of dy. Without an activation it is not read, and may
        be None.
    activation, p
        As in the forward call.
    key : Key
        As in the forward call; not needed with "relu".
    shared_axes, offset
        As in the forward call.
    out : ndarray, optional
        Array for dx; it may be dy or y itself.
    num_threads : int, optional
        As in the forward call.

    Returns
    -------
    dx : ndarray
        Array with the shape and dtype of dy.
    dbias : ndarray
        The sum of dx over all axes but the last. The number of threads does not change the order
        of summation, and half types are summed in float32.

    Raises
    ------
    TypeError, ValueError
        As for `bias_act_dropout`.
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
