"""A network's layers while it draws samples, see `fastdrop.training.sampling`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastdrop._attributes import is_ours
from fastdrop._checks import checked_axes
from fastdrop.layers import (
    Activation,
    AlphaDropout,
    Array,
    Backward,
    Batch,
    BatchNormalization,
    Dense,
    DropConnect,
    Dropout,
    DropPath,
    Flatten,
    Layer,
    ReLU,
    Residual,
    Shape,
    Softmax,
)
from fastdrop.layers.base import shapes_between
from fastdrop.layers.schedules import rate_at

__all__ = ["called", "first_random", "is_element_wise", "is_random", "sampled"]

# Layers that compute each row alike, whatever its number or place.
BY_ROWS = (Activation, ReLU, Softmax, Flatten)


def is_random(layer: Layer) -> bool:
    """Tell whether the layer, or one inside it, is of the dropout family."""
    return any(inner.is_random for inner in layer.flattened())


def first_random(layers: Sequence[Layer]) -> int:
    """Return the number of the first layer of the dropout family.

    Raises
    ------
    ValueError
        When there is no such layer.
    """
    for number, layer in enumerate(layers):
        if is_random(layer):
            return number
    raise ValueError(
        "model: expected a layer of the dropout family, which makes the samples differ, got none"
    )


def is_element_wise(layer: Layer) -> bool:
    """Tell whether a chain can include the layer, see `make_blocks`."""
    return type(layer) is Dropout and layer.mode == "inverted" and layer.shared_axes == ()


def sampled(layer: Layer, shape: Shape, step: int, consistent: bool) -> Layer:
    """Return a layer of the dropout family as in this training step, or another as at inference.

    Raises
    ------
    ValueError
        When the layer is to be `consistent` and cannot be.
    """
    if isinstance(layer, Residual):
        copied = copy.copy(layer)
        copied.layers = [
            _Called(sampled(inner, before, step, consistent))
            for inner, before in zip(layer.layers, shapes_between(layer.layers, shape))
        ]
        return copied
    if not is_random(layer):
        return layer
    if any(isinstance(inner, BatchNormalization) for inner in layer.flattened()):
        raise ValueError(
            f"layer {layer.name!r}: expected no BatchNormalization in it beside dropout, because "
            "only one of them infers here; Residual handles both"
        )
    p = getattr(layer, "p", None)
    if callable(p) and is_ours(type(layer)):
        layer = copy.copy(layer)
        layer.p = rate_at(p, step)
    return _shared(layer, 1 + len(shape)) if consistent else layer


def _shared(layer: Layer, ndim: int) -> Layer:
    """Return the layer with one mask for all rows."""
    copied: Any = copy.copy(layer)
    if is_ours(type(layer)):
        if isinstance(layer, Dropout | AlphaDropout):
            axes = checked_axes(layer.shared_axes, ndim)
            copied.shared_axes = tuple(sorted({0, *axes}))
            if isinstance(layer, Dropout):
                copied.groups = 1
            return copied
        if isinstance(layer, DropPath):
            copied.mode = "batch"
            return copied
        if isinstance(layer, DropConnect):
            return layer
    raise ValueError(
        "consistent: expected layers whose mask all rows can share, got "
        f"{layer.name!r}, a {type(layer).__name__}"
    )


def called(layer: Layer, shape: Shape, rows: int) -> Layer:
    """Return the layer itself if a block computes it line by line, else for pieces of rows."""
    if type(layer) in BY_ROWS or (type(layer) is Dense and len(shape) == 1):
        return layer
    return layer if _is_shared_by_all(layer) or is_element_wise(layer) else _Called(layer, rows)


def _is_shared_by_all(layer: Layer) -> bool:
    """Tell whether all rows share a sample's mask of features, so that a block can skip them."""
    return type(layer) is Dropout and layer.shared_axes in (0, (0,)) and layer.groups == 1


TRAINING = Batch()


class _Called(Layer):
    """A layer as it is called for samples. A layer that is not random infers.

    Parameters
    ----------
    layer : Layer
        The layer.
    rows : int, optional
        How many rows it always gets at a time, because its result for a row may depend on that.
    """

    def __init__(self, layer: Layer, rows: int | None = None) -> None:
        super().__init__(name=layer.name)
        self._layer, self._rows = layer, rows
        self._random = is_random(layer)

    def flattened(self) -> Iterator[Layer]:
        return self._layer.flattened()

    def output_shape(self, input_shape: Shape) -> Shape:
        return self._layer.output_shape(input_shape)

    def forward(self, x: Array, batch: Batch = TRAINING) -> tuple[Array, Backward]:
        if not self._random:
            batch = batch._replace(training=False)
        rows = self._rows or len(x)
        pieces = [
            self._layer.forward(x[row : row + rows], batch._replace(row=batch.row + row))[0]
            for row in range(0, len(x), rows)
        ]
        y = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return np.ascontiguousarray(y), _nowhere


def _nowhere(dy: Array) -> Array:
    raise NotImplementedError("samples are drawn forward only")
