"""Dropout and its family as functions of a key and an array: what users call."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from fastdrop._checks import (
    Axes,
    check_choice,
    checked_axes,
    checked_offset,
    checked_p,
    checked_stddev,
    mask_shape,
)
from fastdrop.functional import inverted_scale
from fastdrop.jax.keys import key_words
from fastdrop.jax.primitive import apply
from fastdrop.jax.rules import Rule
from fastdrop.noise import gaussian_stddev
from fastdrop.variants import alpha_coefficients

__all__ = [
    "alpha_dropout",
    "bias_act_dropout",
    "drop_path",
    "dropout",
    "dropout_add",
    "gaussian_dropout",
    "gaussian_noise",
]

_DTYPES = ("float16", "bfloat16", "float32", "float64")
_NORMAL_BITS = 50  # domain 1 has 2**48 blocks of four words


def _checked_x(x: ArrayLike, name: str = "x") -> Array:
    expected = f"{name}: expected an array of float16, bfloat16, float32 or float64, got"
    try:
        array = jnp.asarray(x)
    except (TypeError, ValueError):  # JAX's message does not name the argument
        raise TypeError(f"{expected} {type(x).__name__}") from None
    if array.dtype.name not in _DTYPES:
        raise TypeError(f"{expected} {array.dtype}")
    return array


def _static_p(p: Any) -> float:
    if isinstance(p, jax.core.Tracer):
        raise TypeError(f"p: expected a number, got a traced {p.aval}; `dropout` alone takes that")
    return checked_p(p)


def _static_stddev(stddev: Any) -> float:
    if isinstance(stddev, jax.core.Tracer):
        raise TypeError(f"stddev: expected a number, got a traced {stddev.aval}")
    return checked_stddev(stddev)


def _checked_training(training: Any) -> bool:
    try:
        return bool(training)
    except (TypeError, ValueError):  # JAX's message has many lines
        kind = "a traced one" if isinstance(training, jax.core.Tracer) else f"{training!r:.80}"
        message = f"training: expected True or False, static in jit, got {kind}"
        raise TypeError(" ".join(message.split())) from None


def _offset_words(offset: Any, n: Any, bits: int = 55) -> Array:
    """Return the two words of the offset, the high one first."""
    if isinstance(offset, jax.core.Tracer):
        if offset.shape or not jnp.issubdtype(offset.dtype, jnp.integer):
            raise TypeError(f"offset: expected an integer, got {offset.dtype} {offset.shape}")
        wide = offset.dtype.itemsize > 4
        high = offset >> 32 if wide else jnp.zeros_like(offset)
        return jnp.stack([high.astype(jnp.uint32), offset.astype(jnp.uint32)])
    # Lengths may be unknown while a program is exported.
    start = checked_offset(offset, n if isinstance(n, int) else 0, bits)
    return np.array([start >> 32, start & 0xFFFFFFFF], np.uint32)


def _masked(
    key: Any,
    x: Array,
    rule: Rule,
    offset: Any,
    second: tuple[Array, ...] = (),
    p: tuple[Array, ...] = (),
    bits: int = 55,
) -> Array:
    n = math.prod(mask_shape(x.shape, rule.shared))
    return apply(rule, x, *second, key_words(key), _offset_words(offset, n, bits), *p)


def dropout(
    key: Array,
    x: ArrayLike,
    p: Any = 0.5,
    *,
    shared_axes: Axes = (),
    offset: Any = 0,
    training: bool = True,
) -> Array:
    """Drop elements with probability p and multiply the others by 1 / (1 - p).

    This is a pure function: jit, gradients of any order, vmap, scan, remat and shardings do not
    change the mask. Nothing but the key is kept for the backward pass.

    Parameters
    ----------
    key : Array
        A key of `jax.random`, typed or raw. ``jax.random.key(42)`` gives the mask of
        ``fastdrop.Key(42)``. Two words are the seed, the high one first; four words are seed and
        call. Keys of different implementations with the same words give the same mask.
    x : array_like of float16, bfloat16, float32 or float64
        An array of any shape.
    p : float
        Probability of dropping an element, 0 <= p <= 1. It may be traced. Then a p that is negative
        or NaN counts as 0, a p above 1 counts as 1, and no gradient flows to it.
    shared_axes : int or iterable of int
        Axes along which the mask is shared: elements that differ only in these axes are dropped or
        kept together.
    offset : int
        Index of the first element of x in a larger array, counted in elements of the mask's own
        shape (the shape of x with the shared axes set to 1). It may be traced. Then nothing checks
        that it is not negative.
    training : bool
        If False, or if p = 0, the result is x itself.

    Returns
    -------
    Array
        Array with the shape and dtype of x. A dropped element is +0.0, even where x is infinite or
        NaN.

    Raises
    ------
    TypeError, ValueError
        If x does not have a supported float type, if key is not a key, or if p, an axis or offset
        is out of bounds.

    Examples
    --------
    >>> import jax, fastdrop.jax
    >>> fastdrop.jax.dropout(jax.random.key(42), jax.numpy.ones(8), 0.5)
    Array([0., 0., 2., 2., 0., 2., 0., 2.], dtype=float32)
    """
    array = _checked_x(x)
    axes = checked_axes(shared_axes, array.ndim)
    if isinstance(p, jax.core.Tracer):
        if p.shape or not jnp.issubdtype(p.dtype, jnp.floating):
            raise TypeError(f"p: expected a number, got {p.dtype} {p.shape}")
        kind = jnp.promote_types(p.dtype, jnp.float32)
        rate = jnp.asarray(jax.lax.stop_gradient(p), kind)[None]
        rule = Rule("scale", None, 0.0, shared=axes)
        on = _checked_training(training)
        return _masked(key, array, rule, offset, p=(rate,)) if on else array
    p = checked_p(p)
    if not _checked_training(training) or p == 0:
        _check_unused(key, array, axes, offset)
        return array
    return _masked(key, array, Rule("scale", p, inverted_scale(p), shared=axes), offset)


def _check_unused(
    key: Any, x: Array, axes: Iterable[int] = (), offset: Any = 0, bits: int = 55
) -> None:
    """Check the arguments that are not needed when nothing is dropped; the key may be missing."""
    if key is not None:
        key_words(key)
    _offset_words(offset, math.prod(mask_shape(x.shape, tuple(axes))), bits)


def alpha_dropout(
    key: Array,
    x: ArrayLike,
    p: float = 0.5,
    *,
    shared_axes: Axes = (),
    offset: Any = 0,
    training: bool = True,
) -> Array:
    """Set dropped elements to SELU's lower limit, and keep mean 0 and variance 1.

    Parameters
    ----------
    key, x, p, shared_axes, offset, training
        As in `dropout`, but p cannot be traced. ``shared_axes=range(2, x.ndim)`` drops whole
        channels.

    Returns
    -------
    Array
        The same as from `fastdrop.alpha_dropout`.

    Raises
    ------
    TypeError, ValueError
        As for `dropout`.
    """
    array, p = _checked_x(x), _static_p(p)
    axes = checked_axes(shared_axes, array.ndim)
    if not _checked_training(training) or p == 0:
        _check_unused(key, array, axes, offset)
        return array
    scale, shift, fill = alpha_coefficients(p)
    return _masked(key, array, Rule("alpha", p, scale, shift, fill, axes), offset)


def gaussian_dropout(
    key: Array, x: ArrayLike, p: float = 0.5, *, offset: Any = 0, training: bool = True
) -> Array:
    """Multiply by normal noise of mean 1 and of the variance of dropout, p / (1 - p).

    Parameters
    ----------
    key, x, p, offset, training
        As in `dropout`, but p is below 1 and cannot be traced.

    Returns
    -------
    Array
        The same as from `fastdrop.gaussian_dropout` on CPUs, and the same up to rounding elsewhere.

    Raises
    ------
    TypeError, ValueError
        As for `dropout`; also a ValueError for p = 1, where the variance is infinite.
    """
    array, p = _checked_x(x), _static_p(p)
    stddev = gaussian_stddev(p)
    if not _checked_training(training) or p == 0:
        _check_unused(key, array, (), offset, _NORMAL_BITS)
        return array
    rule = Rule("gaussian", 0.0, stddev)
    return _masked(key, array, rule, offset, bits=_NORMAL_BITS)


def gaussian_noise(
    key: Array, x: ArrayLike, stddev: float, *, offset: Any = 0, training: bool = True
) -> Array:
    """Add normal noise of mean 0. Its gradient is dy.

    Parameters
    ----------
    key, x
        As in `gaussian_dropout`.
    stddev : float
        Standard deviation of the noise, at least 0 and finite.
    offset, training
        As in `gaussian_dropout`.

    Returns
    -------
    Array
        The same as from `fastdrop.gaussian_noise` on CPUs, and the same up to rounding elsewhere.

    Raises
    ------
    TypeError, ValueError
        As for `dropout`; also if the standard deviation is negative or not finite.
    """
    array, stddev = _checked_x(x), _static_stddev(stddev)
    if not _checked_training(training) or stddev == 0:
        _check_unused(key, array, (), offset, _NORMAL_BITS)
        return array
    return _masked(key, array, Rule("noise", 0.0, stddev), offset, bits=_NORMAL_BITS)


def drop_path(
    key: Array,
    x: ArrayLike,
    p: Any = 0.5,
    *,
    mode: str = "row",
    offset: Any = 0,
    training: bool = True,
) -> Array:
    """Drop the whole residual branch of a sample, or of the batch (stochastic depth).

    Parameters
    ----------
    key : Array
        As in `dropout`.
    x : array_like, (samples, ...)
        The output of the branch.
    p : float
        As in `dropout`.
    mode : {"row", "batch"}
        Whether each sample gets a decision of its own, or all samples get the same.
    offset : int
        Index of the first sample of x in the whole batch; 0 with mode "batch".
    training : bool
        As in `dropout`.

    Returns
    -------
    Array
        x / (1 - p) where it is kept, else +0.0.

    Raises
    ------
    TypeError, ValueError
        As for `dropout`; also a ValueError if x is 0-d or the mode is unknown.
    """
    array = _checked_x(x)
    if array.ndim == 0:
        raise ValueError("x: expected shape (samples, ...), got a 0-d array")
    check_choice("mode", mode, "row", "batch")
    shared = range(mode == "row", array.ndim)
    return dropout(key, array, p, shared_axes=shared, offset=offset, training=training)


def _check_second(x: Array, other: ArrayLike, name: str, shape: tuple[int, ...]) -> Array:
    array = _checked_x(other, name)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    if array.dtype != x.dtype:
        raise TypeError(f"{name}: expected dtype {x.dtype}, got {array.dtype}")
    return array


def dropout_add(
    key: Array,
    x: ArrayLike,
    residual: ArrayLike,
    p: float = 0.5,
    *,
    shared_axes: Axes = (),
    offset: Any = 0,
    training: bool = True,
) -> Array:
    """Return ``dropout(key, x, p) + residual``, computed in one pass.

    This is how a residual branch ends.

    Parameters
    ----------
    key, x
        As in `dropout`, but p cannot be traced.
    residual : array_like
        Array with the shape and dtype of x, which is added.
    p, shared_axes, offset, training
        As in `dropout`, but p cannot be traced.

    Returns
    -------
    Array
        The sum, with the shape and dtype of x.

    Raises
    ------
    TypeError, ValueError
        As for `dropout`; also if the residual differs from x in shape or dtype.
    """
    array, p = _checked_x(x), _static_p(p)
    other = _check_second(array, residual, "residual", array.shape)
    axes = checked_axes(shared_axes, array.ndim)
    if not _checked_training(training) or p == 0:
        _check_unused(key, array, axes, offset)
        return array + other
    return _masked(key, array, Rule("add", p, inverted_scale(p), shared=axes), offset, (other,))


def bias_act_dropout(
    key: Array,
    x: ArrayLike,
    bias: ArrayLike,
    activation: str | None,
    p: float = 0.5,
    *,
    shared_axes: Axes = (),
    offset: Any = 0,
    training: bool = True,
) -> Array:
    """Return ``dropout(key, activation(x + bias), p)``, computed in one pass.

    This is what follows a matrix product. After a ReLU, the backward pass needs neither mask nor
    key, only the output.

    Parameters
    ----------
    key : Array
        As in `dropout`, but p cannot be traced.
    x : array_like, (..., units)
        The product.
    bias : array_like, (units,)
        Array with the dtype of x.
    activation : {None, "relu"}
        None adds the bias only.
    p, shared_axes, offset, training
        As in `dropout`, but p cannot be traced.

    Returns
    -------
    Array
        The result, with the shape and dtype of x.

    Raises
    ------
    TypeError, ValueError
        As for `dropout`; also if the bias does not fit x, or for another activation.
    """
    check_choice("activation", activation, None, "relu")
    array, p = _checked_x(x), _static_p(p)
    if array.ndim == 0:
        raise ValueError("x: expected at least one axis, got a 0-d array")
    other = _check_second(array, bias, "bias", array.shape[-1:])
    axes = checked_axes(shared_axes, array.ndim)
    if not _checked_training(training) or p == 0:
        _check_unused(key, array, axes, offset)
        y = array + other
        return jax.nn.relu(y) if activation else y
    op = "bias relu" if activation else "bias"
    return _masked(key, array, Rule(op, p, inverted_scale(p), shared=axes), offset, (other,))
