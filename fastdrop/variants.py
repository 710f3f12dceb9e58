"""Relatives of dropout, with other masks or fillings, as pure functions of arrays and keys."""

from __future__ import annotations

import math
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdrop._checks import (
    Axes,
    as_array,
    check_choice,
    check_count,
    checked_axes,
    checked_offset,
    checked_p,
    mask_shape,
)
from fastdrop.compiled import _core
from fastdrop.functional import checked_key, dropout, masked_scale
from fastdrop.random import Key

__all__ = [
    "alpha_dropout",
    "alpha_dropout_backward",
    "drop_block2d",
    "drop_path",
    "feature_alpha_dropout",
    "zoneout",
    "zoneout_backward",
]

SELU_ALPHA = 1.7580993408473766  # SELU's lower limit is -SELU_ALPHA


def _alpha_scale(p: float) -> float:
    return 1 / math.sqrt((SELU_ALPHA * SELU_ALPHA * p + 1) * (1 - p))


def alpha_coefficients(p: float) -> tuple[float, float, float]:
    """Return a and b of the formula of `alpha_dropout`, and the value of dropped elements."""
    if p == 1:
        return 0.0, 0.0, 0.0
    a = _alpha_scale(p)
    return a, SELU_ALPHA * a * p, SELU_ALPHA * a * p - SELU_ALPHA * a


def alpha_dropout(
    x: ArrayLike,
    p: float = 0.5,
    *,
    key: Key,
    training: bool = True,
    shared_axes: Axes = (),
    offset: SupportsIndex = 0,
    out: NDArray[Any] | None = None,
    num_threads: SupportsIndex | None = None,
) -> NDArray[Any]:
    """Set dropped elements to SELU's lower limit, and keep mean 0 and variance 1.

    The result is y = a x + b where x is kept, and y = a alpha' + b where it is dropped, with
    alpha' = -1.7580993408473766, a = ((1 - p) (1 + p alpha'^2))^(-1/2) and b = -a alpha' p.

    Parameters
    ----------
    x, p, key
        As in `dropout`. With p = 1 every element becomes 0, as in PyTorch.
    training : bool
        If False, or if p = 0, the result is x itself, copied into `out` where `out` is given.
    shared_axes, offset, out, num_threads
        As in `dropout`.

    Returns
    -------
    ndarray
        Array with the shape and dtype of x. A dropped element does not depend on x, even where x
        is infinite or NaN. `alpha_dropout_backward` computes the gradient.

    Raises
    ------
    TypeError, ValueError
        As for `dropout`.

    References
    ----------
    Klambauer, Unterthiner, Mayr, Hochreiter 2017, Self-normalizing neural networks, NIPS.
    """
    p = checked_p(p)
    x = as_array("x", x)
    if not training or p == 0:
        return _core.identity(x, out)
    a, shift, fill = alpha_coefficients(p)
    seed, call = checked_key(key)
    axes = checked_axes(shared_axes, x.ndim)
    start = checked_offset(offset, math.prod(mask_shape(x.shape, axes)))
    return _core.masked_alpha(x, p, a, shift, fill, seed, call, axes, start, out, num_threads)


def alpha_dropout_backward(
    dy: ArrayLike,
    p: float = 0.5,
    *,
    key: Key,
    shared_axes: Axes = (),
    offset: SupportsIndex = 0,
    out: NDArray[Any] | None = None,
    num_threads: SupportsIndex | None = None,
) -> NDArray[Any]:
    """Return the gradient of `alpha_dropout` in training: a dy where x was kept, else +0.0.

    Parameters
    ----------
    dy : array_like
        Gradient with respect to the output.
    p, key, shared_axes, offset, out, num_threads
        As in the forward call.

    Returns
    -------
    ndarray
        Array with the shape and dtype of dy.

    Raises
    ------
    TypeError, ValueError
        As for `alpha_dropout`.
    """
    p = checked_p(p)
    dy = as_array("dy", dy)
    if p == 0:
        return _core.identity(dy, out)
    dx: NDArray[Any] = masked_scale(
        dy,
        p,
        _alpha_scale(p) if p < 1 else 0.0,
        key=key,
        shared_axes=shared_axes,
        offset=offset,
        out=out,
        num_threads=num_threads,
    )
    return dx


def feature_alpha_dropout(
    x: ArrayLike,
    p: float = 0.5,
    *,
    key: Key,
    training: bool = True,
    offset: SupportsIndex = 0,
    out: NDArray[Any] | None = None,
    num_threads: SupportsIndex | None = None,
) -> NDArray[Any]:
    """Apply `alpha_dropout` to whole channels: one decision for all of x[i, j].

    Parameters
    ----------
    x : array_like, (samples, channels, ...)
        Feature maps, with any number of axes after the channels.
    p, key, training, offset, out, num_threads
        As in `alpha_dropout`; offset counts channels.

    Returns
    -------
    ndarray
        Array with the shape and dtype of x. `alpha_dropout_backward` with
        ``shared_axes=range(2, x.ndim)`` computes the gradient.

    Raises
    ------
    TypeError, ValueError
        As for `alpha_dropout`; also a ValueError if x has fewer than two axes.
    """
    x = as_array("x", x)
    if x.ndim < 2:
        raise ValueError(f"x: expected shape (samples, channels, ...), got {x.shape}")
    return alpha_dropout(
        x,
        p,
        key=key,
        training=training,
        shared_axes=range(2, x.ndim),
        offset=offset,
        out=out,
        num_threads=num_threads,
    )


def drop_path(
    x: ArrayLike,
    p: float = 0.5,
    *,
    mode: str = "row",
    key: Key,
    training: bool = True,
    offset: SupportsIndex = 0,
    out: NDArray[Any] | None = None,
    num_threads: SupportsIndex | None = None,
) -> NDArray[Any]:
    """Drop the whole residual branch of a sample, or of the batch (stochastic depth).

    The same call on dy, with the same key, is the backward pass.

    Parameters
    ----------
    x : array_like, (samples, ...)
        The output of the branch.
    p : float
        As in `dropout`.
    mode : {"row", "batch"}
        Whether each sample gets a decision of its own, or all samples get the same.
    key, training
        As in `dropout`.
    offset : int
        Index of the first sample of x in the whole batch; 0 with mode "batch".
    out, num_threads
        As in `dropout`.

    Returns
    -------
    ndarray
        Array with the shape and dtype of x: x / (1 - p) where it is kept, else +0.0.

    Raises
    ------
    TypeError, ValueError
        As for `dropout`; also a ValueError if x is 0-d or the mode is unknown.

    References
    ----------
    Huang, Sun, Liu, Sedra, Weinberger 2016, Deep networks with stochastic depth, ECCV.
    """
    x = as_array("x", x)
    if x.ndim == 0:
        raise ValueError("x: expected shape (samples, ...), got a 0-d array")
    check_choice("mode", mode, "row", "batch")
    y: NDArray[Any] = dropout(
        x,
        p,
        key=key,
        training=training,
        shared_axes=range(mode == "row", x.ndim),
        offset=offset,
        out=out,
        num_threads=num_threads,
    )
    return y


def drop_block2d(
    x: ArrayLike,
    p: float = 0.1,
    block_size: int = 7,
    *,
    key: Key,
    training: bool = True,
    offset: SupportsIndex = 0,
    out: NDArray[Any] | None = None,
    num_threads: SupportsIndex | None = None,
) -> NDArray[Any]:
    """Drop square blocks of feature maps (DropBlock).

    Each place where a block fits on a map becomes the corner of a dropped block with probability
    gamma = p H W / (b^2 (H - b + 1) (W - b + 1)). Which places do is decided by the mask that
    `dropout` with p = gamma applies to an array of shape
    (samples, channels, H - b + 1, W - b + 1). What no block covers is kept, and multiplied by the
    number of elements of its sample over the number of its kept elements. Blocks overlap, so a
    little less than the share p is dropped.

    The same call on dy, with the same key, is the backward pass.

    Parameters
    ----------
    x : array_like, (samples, channels, H, W)
        Feature maps.
    p : float
        The share of elements to drop, 0 <= p <= 1.
    block_size : int
        The side b of the blocks, 1 <= b <= min(H, W).
    key, training
        As in `dropout`.
    offset : int
        Index of the first place in a larger batch of C channels: r C (H - b + 1) (W - b + 1) where
        the batch starts at row r.
    out, num_threads
        As in `dropout`.

    Returns
    -------
    ndarray
        Array with the shape and dtype of x, +0.0 where it is dropped.

    Raises
    ------
    TypeError, ValueError
        As for `dropout`; also a ValueError if x is not 4-d or the block is larger than the maps.

    References
    ----------
    Ghiasi, Lin, Le 2018, DropBlock: a regularization method for convolutional networks, NeurIPS.
    The paper normalises over the batch. Here each sample is normalised on its own, so that
    splitting a batch changes nothing.
    """
    p = checked_p(p)
    check_count("block_size", block_size)
    x = as_array("x", x)
    if x.ndim != 4:
        raise ValueError(f"x: expected shape (samples, channels, height, width), got {x.shape}")
    samples, channels, height, width = x.shape
    block = int(block_size)
    if block > min(height, width):
        raise ValueError(
            f"block_size: expected at most {min(height, width)} on maps of "
            f"{height} x {width}, got {block_size}"
        )
    seed, call = checked_key(key)
    places = (height - block + 1) * (width - block + 1)
    start = checked_offset(offset, samples * channels * places)
    if not training or p == 0:
        return _core.identity(x, out)
    gamma = p * height * width / (block * block * places)
    return _core.drop_blocks(x, block, gamma, seed, call, start, out, num_threads)


def zoneout(
    x: ArrayLike,
    previous: NDArray[Any],
    p: float = 0.5,
    *,
    key: Key,
    offset: SupportsIndex = 0,
    out: NDArray[Any] | None = None,
    num_threads: SupportsIndex | None = None,
) -> NDArray[Any]:
    """Keep an element's previous state with probability p.

    The result is y = x where the mask keeps x, and `previous` elsewhere. At inference, use the
    mean of both states instead: (1 - p) x + p previous.

    Parameters
    ----------
    x : array_like
        As in `dropout`; x is the new state.
    previous : ndarray
        The old state, with the shape and dtype of x.
    p, key, offset, out, num_threads
        As in `dropout`.

    Returns
    -------
    ndarray
        Array with the shape and dtype of x. `zoneout_backward` computes the gradients.

    Raises
    ------
    TypeError, ValueError
        As for `dropout`; also if the previous state differs from x in shape or dtype.

    References
    ----------
    Krueger et al. 2017, Zoneout: regularizing RNNs by randomly preserving hidden activations, ICLR.
    """
    x = as_array("x", x)
    seed, call = checked_key(key)
    start = checked_offset(offset, x.size)
    return _core.masked_pick(x, previous, checked_p(p), seed, call, (), start, out, num_threads)


def zoneout_backward(
    dy: ArrayLike, p: float = 0.5, *, key: Key, offset: SupportsIndex = 0
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the gradients of `zoneout`: each element of dy goes to the new or the previous state.

    Parameters
    ----------
    dy : array_like
        Gradient with respect to the output.
    p, key, offset
        As in the forward call.

    Returns
    -------
    dx, dprevious : ndarray
        Gradients for the new and the previous state, with the shape and dtype of dy.

    Raises
    ------
    TypeError, ValueError
        As for `zoneout`.
    """
    dy = as_array("dy", dy)
    zero = np.zeros_like(dy)
    return (
        zoneout(dy, zero, p, key=key, offset=offset),
        zoneout(zero, dy, p, key=key, offset=offset),
    )
