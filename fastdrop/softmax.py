"""Softmax, and dropout of its weights, in one pass: what attention does to its scores."""

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdrop._checks import as_array, checked_offset, checked_p
from fastdrop._quiet import quiet
from fastdrop.compiled import _attention
from fastdrop.functional import checked_key, inverted_scale
from fastdrop.random import Key, default_generator

__all__ = ["softmax_dropout", "softmax_dropout_backward"]


def _checked_mask(mask: Any, scores: NDArray[Any]) -> NDArray[Any] | None:
    """Return the mask as kernels take it: in whole rows, of bool or of the type of the scores."""
    if mask is None:
        return None
    mask = as_array("mask", mask)
    is_bool = mask.dtype == np.bool_
    # bfloat16 and similar types have no kind of their own, but float32 holds all their values.
    if not (is_bool or mask.dtype.kind == "f" or mask.dtype.name == "bfloat16"):
        raise TypeError(f"mask: expected an array of bool or of floats, got {mask.dtype}")
    shape = scores.shape
    try:
        fits = np.broadcast_shapes(mask.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"mask: expected one that broadcasts to {shape}, got shape {mask.shape}")
    number = np.float64 if scores.dtype.type is np.float64 else np.float32
    with quiet(over="ignore"):  # the least float64 becomes -inf in float32
        mask = mask if is_bool else mask.astype(number, copy=False)
    return np.ascontiguousarray(np.broadcast_to(mask, (*mask.shape[:-1], shape[-1])))


def _run(
    function: Any,
    scores: NDArray[Any],
    arrays: tuple[NDArray[Any], ...],
    p: float,
    key: Key,
    mask: Any,
    causal: bool,
    offset: SupportsIndex,
    out: NDArray[Any] | None,
    num_threads: SupportsIndex | None,
) -> NDArray[Any]:
    """Check the arguments of the forward or the backward pass, and call the compiled `function`."""
    p = checked_p(p)
    seed, call = checked_key(key)
    if scores.ndim < 1 + bool(causal):
        axes = "two axes for a causal mask" if causal else "one axis"
        raise ValueError(f"scores: expected at least {axes}, got a {scores.ndim}-d array")
    mask = _checked_mask(mask, scores)
    if mask is not None and isinstance(out, np.ndarray) and np.may_share_memory(mask, out):
        mask = mask.copy()  # later rows may need what earlier ones write to
    offset = checked_offset(offset, scores.size)
    scale = inverted_scale(p)
    y: NDArray[Any] = function(
        *arrays, mask, bool(causal), p, scale, seed, call, offset, out, num_threads
    )
    return y


def softmax_dropout(
    scores: ArrayLike,
    p: float = 0.5,
    *,
    key: Key | None = None,
    mask: ArrayLike | None = None,
    causal: bool = False,
    offset: SupportsIndex = 0,
    out: NDArray[Any] | None = None,
    num_threads: SupportsIndex | None = None,
) -> NDArray[Any]:
    """Return ``dropout(softmax(scores), p)`` along the last axis, computed in one pass.

    These are the weights of attention.

    Parameters
    ----------
    scores : array_like of float16, bfloat16, float32 or float64
        Scores of shape (..., queries, keys), of any strides and byte order.
    p : float
        Probability of dropping a weight, 0 <= p <= 1. With p = 0 the result is the softmax, with
        p = 1 it is 0.
    key : Key, optional
        The key that decides the dropout mask, which is the mask of
        ``dropout(..., key=key, offset=offset)``. By default the default generator hands out its
        next key.
    mask : array_like of bool or floats, optional
        Which keys a query attends to, in a shape that broadcasts to the shape of `scores`. A mask
        of bool is True where a key takes part. A mask of floats is added to the scores; -inf
        excludes a key whose score is finite.
    causal : bool
        Whether query i attends to the keys 0 to i only. This counts from the first query and the
        first key, as in PyTorch, even if there are more of one than of the other. With `mask`, a
        key takes part where both allow it.
    offset : int
        Index of the first score in a larger array, counted in elements. A part of a batch, a head,
        or some of the queries then gets the bits that it has in the whole. 0 <= offset and
        offset + n <= 2**55.
    out : ndarray, optional
        Array for the result, with the shape and dtype of `scores`; it may be `scores` itself.
    num_threads : int, optional
        As in `dropout`; the result never depends on it.

    Returns
    -------
    ndarray
        Array with the shape and dtype of `scores`. Half types are computed in float32 and rounded
        once. A row in which no key takes part, or all scores are -inf, is all 0, as in PyTorch. A
        row is NaN where a score that takes part is NaN or +inf, but its dropped weights are still
        +0.0.
        `softmax_dropout_backward` computes the gradient.

    Raises
    ------
    TypeError
        If the scores do not have a supported float type, the mask has neither bool nor floats, or
        an argument has the wrong type.
    ValueError
        If the mask does not broadcast, if the scores have too few axes, if p, offset, num_threads
        or out is out of bounds, or if `dropout` would refuse an array.

    References
    ----------
    Vaswani et al. 2017, Attention is all you need, NIPS.

    Examples
    --------
    >>> import numpy as np, fastdrop
    >>> scores = np.zeros((3, 3), np.float32)
    >>> fastdrop.softmax_dropout(scores, 0.5, key=fastdrop.Key(6), causal=True)
    array([[0.       , 0.       , 0.       ],
           [1.       , 1.       , 0.       ],
           [0.       , 0.6666667, 0.       ]], dtype=float32)
    """
    scores = as_array("scores", scores)
    if key is None:
        key = default_generator.next_key()
    function = _attention.softmax_dropout
    return _run(function, scores, (scores,), p, key, mask, causal, offset, out, num_threads)


def softmax_dropout_backward(
    dy: ArrayLike,
    scores: NDArray[Any],
    p: float = 0.5,
    *,
    key: Key,
    mask: ArrayLike | None = None,
    causal: bool = False,
    offset: SupportsIndex = 0,
    out: NDArray[Any] | None = None,
    num_threads: SupportsIndex | None = None,
) -> NDArray[Any]:
    """Return the gradient of `softmax_dropout` for the scores, computed in one pass.

    The softmax and the mask are computed again, row by row, so only the scores have to be kept.

    Parameters
    ----------
    dy : array_like
        Gradient with respect to the output.
    scores : ndarray
        As in the forward call, with the shape and dtype of dy.
    p, key, mask, causal, offset
        As in the forward call.
    out : ndarray, optional
        Array for the gradient; it may be dy or scores itself.
    num_threads : int, optional
        As in the forward call.

    Returns
    -------
    ndarray
        Array with the shape and dtype of dy. It is +0.0 for keys that take no part, whatever dy
        is there.

    Raises
    ------
    TypeError, ValueError
        As for `softmax_dropout`.
    """
    dy = as_array("dy", dy)
    function = _attention.softmax_dropout_backward
    return _run(function, dy, (dy, scores), p, key, mask, causal, offset, out, num_threads)
