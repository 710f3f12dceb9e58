"""Softmax and dropout of its weights in one pass: what attention does to its scores."""

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
    """Return the mask as kernels take it: whole rows, of bool or of what they compute in."""
    if mask is None:
        return None
    mask = as_array("mask", mask)
    is_bool = mask.dtype == np.bool_
    # bfloat16 and its like have no kind of their own, but lose nothing in float32
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
    with quiet(over="ignore"):  # float64's least is -inf in float32
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
    """Check what forward and backward share, and call the compiled one."""
    p = checked_p(p)
    seed, call = checked_key(key)
    if scores.ndim < 1 + bool(causal):
        axes = "two axes for a causal mask" if causal else "one axis"
        raise ValueError(f"scores: expected at least {axes}, got a {scores.ndim}-d array")
    mask = _checked_mask(mask, scores)
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
    """``dropout(softmax(scores), p)`` along the last axis, in one pass: attention's weights.

    Parameters
    ----------
    scores : array_like of float16, bfloat16, float32 or float64
        Of shape (..., queries, keys); of any strides and byte order.
    p : float
        Probability of dropping, 0 <= p <= 1. p = 0 gives the softmax, p = 1 zeros.
    key : Key, optional
        What the dropout mask is a function of, with an element's index in `scores`: it is that of
        ``dropout(..., key=key, offset=offset)``. By default the default generator's next key.
    mask : array_like of bool or floats, optional
        Which keys a query attends to; of a shape that broadcasts to that of `scores`. bool: True
        takes part. Floats are added to the scores, -inf takes a key out.
    causal : bool
        Query i attends to keys 0 to i, as in PyTorch also where there are more of one than of the
        other. With `mask`, a key takes part where both let it.
    offset : int
        Index of the first score in a larger array, in elements: the rows of a part of a batch, of a
        head or of some queries get the bits of the whole. 0 <= offset, offset + n <= 2**55.
    out : ndarray, optional
        Result array of the shape and dtype of `scores`; may be `scores` itself.
    num_threads : int, optional
        As in `dropout`; the result never depends on it.

    Returns
    -------
    ndarray
        The shape and dtype of `scores`. Half types are computed in float32 and rounded once. A row
        in which no key takes part is all 0, as in PyTorch. A row with NaN or infinity among the
        scores that take part is NaN; a dropped weight is +0.0, also there.
        `softmax_dropout_backward` is the gradient.

    Raises
    ------
    TypeError
        If scores are not of a supported float type, the mask neither of bool nor of floats, or an
        argument is of the wrong type.
    ValueError
        If the mask does not broadcast, scores have too few axes, or p, offset, num_threads or out
        is out of bounds; for arrays as `dropout`.

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
    """Gradient of `softmax_dropout` for the scores, in one pass.

    Softmax and mask are made again, row by row, so that nothing but the scores has to be kept.

    Parameters
    ----------
    dy : array_like
        Gradient with respect to the output.
    scores : ndarray
        As in the forward call; of dy's shape and dtype.
    p, key, mask, causal, offset, num_threads
        As in the forward call.
    out : ndarray, optional
        Where the gradient goes; may be dy or scores itself.

    Returns
    -------
    ndarray
        dy's shape and dtype; +0.0 for keys that take no part, whatever dy is there.

    Raises
    ------
    TypeError, ValueError
        As `softmax_dropout`.
    """
    dy = as_array("dy", dy)
    function = _attention.softmax_dropout_backward
    return _run(function, dy, (dy, scores), p, key, mask, causal, offset, out, num_threads)
