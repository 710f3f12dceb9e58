"""Activation functions and their gradients, each by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastdrop.layers.base import Array

__all__ = ["ACTIVATIONS", "ActivationFunction", "sigmoid", "softmax"]


class ActivationFunction(NamedTuple):
    """A function of an array and its gradient.

    Attributes
    ----------
    function : callable
        ``function(z, out) -> y``. `out` is None or an array, z itself if need be, that y may be
        written to.
    gradient : callable
        ``gradient(dy, y) -> dz``, or ``gradient(dy, z) -> dz`` where `of_inputs` says so.
    of_inputs : bool
        Whether y does not tell enough for the gradient.
    """

    function: Callable[[Array, Array | None], Array]
    gradient: Callable[[Array, Array], Array]
    of_inputs: bool = False


def _linear(z: Array, out: Array | None = None) -> Array:
    return z


def _relu(z: Array, out: Array | None = None) -> Array:
    return np.maximum(z, 0, out=out)


def sigmoid(z: Array, out: Array | None = None) -> Array:
    """Return 1 / (1 + exp(-z)), without overflow for any z."""
    e = np.exp(-np.abs(z))  # in (0, 1]
    return np.divide(np.where(z >= 0, 1, e), 1 + e, out=out)


def softmax(z: Array, out: Array | None = None) -> Array:
    """Return exp(z) / sum(exp(z)) over the last axis, without overflow for any finite z."""
    y = np.subtract(z, z.max(axis=-1, keepdims=True), out=out)
    np.exp(y, out=y)
    y /= y.sum(axis=-1, keepdims=True)
    return y


ACTIVATIONS: dict[str, ActivationFunction] = {
    "linear": ActivationFunction(_linear, lambda dy, y: dy),
    "relu": ActivationFunction(_relu, lambda dy, y: np.where(y > 0, dy, dy.dtype.type(0))),
    "sigmoid": ActivationFunction(sigmoid, lambda dy, y: dy * y * (1 - y)),
    "softmax": ActivationFunction(
        softmax, lambda dy, y: y * (dy - (dy * y).sum(axis=-1, keepdims=True))
    ),
    "tanh": ActivationFunction(np.tanh, lambda dy, y: dy * (1 - y * y)),
}
