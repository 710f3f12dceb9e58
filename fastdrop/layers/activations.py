"""Activation functions and their gradients, each by its name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.polynomial.chebyshev import chebval

from fastdrop.layers.base import Array

__all__ = ["ACTIVATIONS", "ActivationFunction", "sigmoid", "softmax"]


class ActivationFunction(NamedTuple):
    """A function of an array, and its gradient.

    Attributes
    ----------
    function : callable
        ``function(z, out) -> y``. `out` is None or an array, maybe z itself, that may be
        overwritten, with y or anything else.
    gradient : callable
        ``gradient(dy, y) -> dz``; where `of_inputs`, ``gradient(dy, z) -> dz``.
    of_inputs : bool
        Whether the gradient needs z, because y does not tell enough.
    """

    function: Callable[[Array, Array | None], Array]
    gradient: Callable[[Array, Array], Array]
    of_inputs: bool = False

    def forward(self, z: Array, overwrite: bool = False) -> tuple[Array, Callable[[Array], Array]]:
        """Return y and the function that makes dz of dy; `overwrite` allows y to be z's memory."""
        y = self.function(z, z if overwrite and not self.of_inputs else None)
        kept = z if self.of_inputs else y
        return y, lambda dy: self.gradient(dy, kept)


def _linear(z: Array, out: Array | None = None) -> Array:
    return z


def _relu(z: Array, out: Array | None = None) -> Array:
    return np.maximum(z, 0, out=out)


def _relu_gradient(dy: Array, y: Array) -> Array:
    return np.where(y > 0, dy, dy.dtype.type(0))


def _leaky_relu(z: Array, out: Array | None = None) -> Array:
    return np.maximum(z, LEAKY_SLOPE * z, out=out)


def _leaky_relu_gradient(dy: Array, y: Array) -> Array:
    return np.where(y > 0, dy, LEAKY_SLOPE * dy)


def _elu(z: Array, out: Array | None = None) -> Array:
    return np.where(z > 0, z, np.expm1(np.minimum(z, 0)))


def _elu_gradient(dy: Array, y: Array) -> Array:
    return np.where(y > 0, dy, dy * (y + 1))


def _selu(z: Array, out: Array | None = None) -> Array:
    return SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * np.expm1(np.minimum(z, 0)))


def _selu_gradient(dy: Array, y: Array) -> Array:
    return dy * np.where(y > 0, SELU_SCALE, y + SELU_SCALE * SELU_ALPHA).astype(y.dtype)


def _softplus(z: Array, out: Array | None = None) -> Array:
    return np.logaddexp(z, 0, out=out)


def _softplus_gradient(dy: Array, y: Array) -> Array:
    return dy * -np.expm1(-y)


def sigmoid(z: Array, out: Array | None = None) -> Array:
    """Return 1 / (1 + exp(-z)), without overflow for any z."""
    e = np.exp(-np.abs(z))  # in (0, 1]
    return np.divide(np.where(z >= 0, 1, e), 1 + e, out=out)


def _sigmoid_gradient(dy: Array, y: Array) -> Array:
    return dy * y * (1 - y)


def _silu(z: Array, out: Array | None = None) -> Array:
    return z * sigmoid(z)


def _silu_gradient(dy: Array, z: Array) -> Array:
    s = sigmoid(z)
    return dy * s * (1 + z * (1 - s))


def _normal_cdf(z: Array) -> Array:
    """Return the distribution function of the standard normal, to rounding error of z's dtype.

    That is erfc(-z / sqrt(2)) / 2, with erfc(a) = t exp(-a^2 + P(t)), t = 1 / (1 + a / 2), for
    a >= 0, as in Press et al. 2007, Numerical recipes, section 6.2.2; P is a Chebyshev series.
    """
    terms = ERFC_SERIES[: 13 if z.dtype.itemsize <= 4 else None].astype(z.dtype)
    a = np.minimum(np.abs(z), 40) * math.sqrt(0.5)  # beyond, the tail is 0 in any case
    t = 1 / (1 + a / 2)
    tail = t * np.exp(chebval(2 * t - 1, terms) - a * a) / 2
    return np.where(z < 0, tail, 1 - tail)


def _gelu(z: Array, out: Array | None = None) -> Array:
    return z * _normal_cdf(z)


def _gelu_gradient(dy: Array, z: Array) -> Array:
    limited = np.clip(z, -40, 40)
    density = np.exp(limited * limited * -0.5) * math.sqrt(0.5 / math.pi)
    return dy * (_normal_cdf(z) + limited * density)


def _tanh_gradient(dy: Array, y: Array) -> Array:
    return dy * (1 - y * y)


def softmax(z: Array, out: Array | None = None) -> Array:
    """Return exp(z) / sum(exp(z)) over the last axis, without overflow for any finite z."""
    y = np.subtract(z, z.max(axis=-1, keepdims=True), out=out)
    np.exp(y, out=y)
    y /= y.sum(axis=-1, keepdims=True)
    return y


def _softmax_gradient(dy: Array, y: Array) -> Array:
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


LEAKY_SLOPE = 0.2  # Keras's
# Klambauer et al. 2017, Self-normalizing neural networks: the fixed point has mean 0, variance 1.
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805
# of log(erfc(a) exp(a^2) / t) in 2 t - 1, at the Chebyshev nodes, with 40 digits
ERFC_SERIES = np.array(
    [
        *(-0.65132685989085472, 0.64196979235649026, 1.9476473204185836e-2),
        *(-9.5615147868086316e-3, -9.4659534448203687e-4, 3.6683949785276145e-4),
        *(4.2523324806907772e-5, -2.0278578112534243e-5, -1.6242900046470255e-6),
        *(1.3036558355805232e-6, 1.5626441722066143e-8, -8.5238095914926543e-8),
        *(6.5290544390988515e-9, 5.0593434955514689e-9, -9.9136415649303309e-10),
        *(-2.2736512229318359e-10, 9.6467911020155268e-11, 2.3940380830391147e-12),
        *(-6.8860275264975534e-12, 8.9448792730907257e-13, 3.1309213993429581e-13),
        *(-1.1270822361367252e-13, 3.8109052551892321e-16, 7.106097613609237e-15),
        *(-1.5230282014571043e-15, -9.457494571291234e-17, 1.210237189224279e-16),
    ]
)

ACTIVATIONS: dict[str, ActivationFunction] = {
    "elu": ActivationFunction(_elu, _elu_gradient),
    "gelu": ActivationFunction(_gelu, _gelu_gradient, of_inputs=True),
    "leaky_relu": ActivationFunction(_leaky_relu, _leaky_relu_gradient),
    "linear": ActivationFunction(_linear, lambda dy, y: dy),
    "relu": ActivationFunction(_relu, _relu_gradient),
    "selu": ActivationFunction(_selu, _selu_gradient),
    "sigmoid": ActivationFunction(sigmoid, _sigmoid_gradient),
    "silu": ActivationFunction(_silu, _silu_gradient, of_inputs=True),
    "softmax": ActivationFunction(softmax, _softmax_gradient),
    "softplus": ActivationFunction(_softplus, _softplus_gradient),
    "swish": ActivationFunction(_silu, _silu_gradient, of_inputs=True),
    "tanh": ActivationFunction(np.tanh, _tanh_gradient),
}
