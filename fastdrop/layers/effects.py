"""What layers of the dropout family do to ones: the very masks and factors that they use.

effect = effect_of(Dropout2d(0.3), (1, 4, 16, 16), Key(42))
effect.kept                               # one bool for each element of x
effect.maps()                             # the same as images
"""

from __future__ import annotations

import copy
import math
from functools import singledispatch
from typing import NamedTuple

import numpy as np

from fastdrop._messages import shown
from fastdrop.layers.base import Array, Layer, Shape
from fastdrop.layers.batch import Batch
from fastdrop.layers.dense_dropout import ConcreteDropout, DropConnect
from fastdrop.layers.dropout import RandomLayer
from fastdrop.layers.noise import GaussianDropout, GaussianNoise
from fastdrop.random import Key

__all__ = ["Effect", "effect_of"]

STRIP = 64  # elements of a single row that stand side by side


class Effect(NamedTuple):
    """What a layer did in training with one key.

    Attributes
    ----------
    values : ndarray
        What each element was multiplied by. Of `GaussianNoise`, what was added to it.
    kept : ndarray of bool, or None
        Which elements were kept; None of noise, and of `ConcreteDropout`, which keep all of them,
        more or less.
    channels_last : bool
        Whether the last axis counts channels.
    """

    values: Array
    kept: Array | None
    channels_last: bool = False

    def maps(self) -> Array:
        """Return the mask, or the values where there is none, as images.

        Returns
        -------
        ndarray of float64, (rows, columns, height, width)
            In [0, 1] where it is a mask. A row for each sample, a column for each channel. What
            has no channels is one image. A single row of elements is broken into lines, with NaN
            behind the last one.
        """
        a = np.asarray(self.values if self.kept is None else self.kept, np.float64)
        if self.channels_last and a.ndim > 2:
            a = np.moveaxis(a, -1, 1)
        if a.ndim < 3:
            a = np.atleast_2d(a)
            if len(a) == 1:
                width = min(a.size, STRIP)
                a = np.pad(a, ((0, 0), (0, -a.size % width)), constant_values=np.nan)
                a = a.reshape(-1, width)
            return a[np.newaxis, np.newaxis]
        if a.ndim == 3:
            return a[np.newaxis]
        samples, *between, height, width = a.shape
        return a.reshape(samples, math.prod(between), height, width)

    def places(self) -> list[str]:
        """Return the indices of the maps in `values`, row by row, as text: "[0, 2]"."""
        shape = self.values.shape
        if not self.channels_last:
            return [f"[{', '.join(map(str, index))}]" for index in np.ndindex(*shape[:-2])]
        samples, *between, _, _, channels = shape
        return [
            f"[{', '.join(map(str, (sample, *inner)))}, ..., {channel}]"
            for sample, channel, *inner in np.ndindex(samples, channels, *between)
        ]


@singledispatch
def effect_of(layer: Layer, shape: Shape, key: Key) -> Effect:
    """Return what a layer does to an array of ones in training.

    Parameters
    ----------
    layer : Layer
        Of the dropout family; it is not changed.
    shape : tuple of int
        That of a batch, (samples, ...). Of `WeightDropout` and `EmbeddingDropout` that of what
        they are given, and of `DropConnect` that of its weights, (units, inputs).
    key : Key

    Returns
    -------
    Effect

    Raises
    ------
    TypeError
        When the layer is not of the family.
    ValueError
        When the layer cannot take such a batch.
    """
    raise TypeError(f"layer: expected one of the dropout family, got {shown(layer)}")


@effect_of.register
def _(layer: RandomLayer, shape: Shape, key: Key) -> Effect:
    ones = np.ones(shape, np.float32)
    _, backward = layer.forward(ones, Batch(key=key))
    factors = backward(ones)  # y itself may be 0 where x was kept
    last = getattr(layer, "data_format", "channels_first") == "channels_last"
    return Effect(factors, factors != 0, last)


@effect_of.register
def _(layer: GaussianDropout, shape: Shape, key: Key) -> Effect:
    y, _ = layer.forward(np.ones(shape, np.float32), Batch(key=key))
    return Effect(y, None)


@effect_of.register
def _(layer: GaussianNoise, shape: Shape, key: Key) -> Effect:
    y, _ = layer.forward(np.zeros(shape, np.float32), Batch(key=key))
    return Effect(y, None)


@effect_of.register
def _(layer: DropConnect, shape: Shape, key: Key) -> Effect:
    if len(shape) != 2 or shape[0] != layer.units:
        raise ValueError(
            f"shape: expected that of weights, ({layer.units}, inputs), got {shown(shape)}"
        )
    units, inputs = shape
    twin = _with_weights(layer, np.ones(shape, np.float32))
    _, backward = twin.forward_logits(np.ones((1, inputs), np.float32), Batch(key=key))
    backward(np.ones((1, units), np.float32))
    factors = twin.grads["weight"]
    return Effect(factors, factors != 0)


@effect_of.register
def _(layer: ConcreteDropout, shape: Shape, key: Key) -> Effect:
    if len(shape) < 2:
        raise ValueError(f"shape: expected (samples, ..., inputs), got {shown(shape)}")
    weight = np.zeros((layer.units, shape[-1]), np.float32)
    weight[0] = 1  # so that one unit's gradient is ones behind it
    logit = np.float32(math.log(layer.p / (1 - layer.p)))
    twin = _with_weights(layer, weight, {"logit": layer.params.get("logit", logit.reshape(1))})
    _, backward = twin.forward_logits(np.ones(shape, np.float32), Batch(key=key))
    return Effect(backward(np.ones((*shape[:-1], layer.units), np.float32)), None)


def _with_weights(layer: Layer, weight: Array, more: dict[str, Array] | None = None) -> Layer:
    """Return a copy of a dense layer with these weights."""
    twin = copy.copy(layer)
    twin.params = {"weight": weight, "bias": np.zeros(len(weight), weight.dtype), **(more or {})}
    twin.grads = {}
    return twin
