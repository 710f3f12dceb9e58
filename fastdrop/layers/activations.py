"""Activation functions by name, with their gradients.

An activation is called like this::

    y, backward = activation(z, out)
    dz = backward(dy)

`out` is None or an array that may be overwritten, with y or with anything else. It may be z itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.polynomial.chebyshev import cheb2poly

from fastdrop._quiet import bare, underflowing, underflowing_both_ways
from fastdrop.compiled._losses import activation_gradient_of, activation_of, softmax_of
from fastdrop.layers.base import Array, Backward

__all__ = ["ACTIVATIONS", "ActivationFunction", "normal_cdf", "sigmoid", "softmax"]

ActivationFunction: TypeAlias = Callable[[Array, Array | None], tuple[Array, Backward]]

LEAKY_SLOPE = 0.2  # as in Keras
# Klambauer et al. 2017, Self-normalizing neural networks: the fixed point has mean 0, variance 1.
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805
# Series of log(erfc(a) exp(a^2) / t) in 2 t - 1, at the Chebyshev nodes, with 40 digits
ERFC_SERIES = [
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
ERFC_POLYNOMIALS = {4: cheb2poly(ERFC_SERIES[:13]).tolist(), 8: cheb2poly(ERFC_SERIES).tolist()}


@underflowing
def sigmoid(z: Array, out: Array | None = None) -> Array:
    """Return 1 / (1 + exp(-z)), without overflow for any z.

    Parameters
    ----------
    z : ndarray
        The inputs (logits).
    out : ndarray, optional
        Array for the result; it may be z itself.

    Returns
    -------
    ndarray
        Numbers in [0, 1], with the shape of z.
    """
    y = activation_of("sigmoid", z, out)
    if y is not None:
        return y
    e = np.exp(-np.abs(z))  # in (0, 1]
    return np.divide(np.maximum(e, z >= 0), 1 + e, out=out)


@underflowing
def softmax(z: Array, out: Array | None = None) -> Array:
    """Return exp(z) / sum(exp(z)) over the last axis, without overflow for any finite z.

    Parameters
    ----------
    z : ndarray
        The inputs (logits).
    out : ndarray, optional
        Array for the result; it may be z itself.

    Returns
    -------
    ndarray
        Probabilities, with the shape of z.
    """
    y = np.empty_like(z) if out is None else out
    if softmax_of(z, y):
        return y
    y = np.subtract(z, z.max(axis=-1, keepdims=True), out=out)
    np.exp(y, out=y)
    y /= y.sum(axis=-1, keepdims=True)
    return y


_sigmoid, _softmax = bare(sigmoid), bare(softmax)

# Functions whose gradient needs only y. They avoid numpy.where, which took 25 times as long, on
# elements of random sign, as a product with y > 0 or a sum of two parts.


def _sigmoid_gradient(dy: Array, y: Array) -> Array:
    dz = activation_gradient_of("sigmoid", dy, y)
    return dy * y * (1 - y) if dz is None else dz


def _tanh(z: Array, out: Array | None) -> Array:
    y = activation_of("tanh", z, out)
    return np.tanh(z, out=out) if y is None else y


def _tanh_gradient(dy: Array, y: Array) -> Array:
    dz = activation_gradient_of("tanh", dy, y)
    return dy * (1 - y * y) if dz is None else dz


def _linear(z: Array, out: Array | None) -> Array:
    return z


def _relu(z: Array, out: Array | None) -> Array:
    return np.maximum(z, 0, out=out)


def _leaky_relu(z: Array, out: Array | None) -> Array:
    return np.maximum(z, LEAKY_SLOPE * z, out=out)


def _leaky_relu_gradient(dy: Array, y: Array) -> Array:
    return dy * np.maximum(y > 0, y.dtype.type(LEAKY_SLOPE))


def _elu(z: Array, out: Array | None) -> Array:
    return np.maximum(z, 0) + np.expm1(np.minimum(z, 0))


def _selu(z: Array, out: Array | None) -> Array:
    negative = np.expm1(np.minimum(z, 0)) * (SELU_SCALE * SELU_ALPHA)
    return np.maximum(z, 0) * SELU_SCALE + negative


def _selu_gradient(dy: Array, y: Array) -> Array:
    slope = np.minimum(y, 0) + SELU_SCALE * SELU_ALPHA
    slope += (y > 0) * y.dtype.type(SELU_SCALE - SELU_SCALE * SELU_ALPHA)
    return dy * slope


def _softplus(z: Array, out: Array | None) -> Array:
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def _of_output(
    function: Callable[[Array, Array | None], Array], gradient: Callable[[Array, Array], Array]
) -> ActivationFunction:
    """Return the activation y = function(z, out) with dz = gradient(dy, y)."""

    def activation(z: Array, out: Array | None) -> tuple[Array, Backward]:
        y = function(z, out)
        return y, lambda dy: gradient(dy, y)

    return activation


# Functions whose gradient needs z.


def _silu(z: Array, out: Array | None) -> tuple[Array, Backward]:
    s = _sigmoid(z)
    return z * s, lambda dy: dy * (s * (1 + z * (1 - s)))


def _gelu(z: Array, out: Array | None) -> tuple[Array, Backward]:
    cdf = normal_cdf(z)

    def backward(dy: Array) -> Array:
        limited = np.clip(z, -40, 40)  # beyond that, the density is 0 in any case
        density = np.exp(limited * limited * -0.5) * math.sqrt(0.5 / math.pi)
        return dy * (cdf + limited * density)

    return z * cdf, backward


def normal_cdf(z: Array) -> Array:
    """Return the standard normal distribution function, exact up to rounding in the dtype of z.

    It is erfc(-z / sqrt(2)) / 2, where erfc(a) = t exp(P(2 t - 1) - a^2), t = 1 / (1 + a / 2), for
    a >= 0 and a polynomial P, as in Press et al. 2007, Numerical recipes, section 6.2.2.
    """
    a = np.minimum(np.abs(z), 40)  # beyond that, the tail is 0 in any case
    a *= math.sqrt(0.5)
    t = 1 / (1 + a / 2)
    x = 2 * t - 1
    *terms, last = ERFC_POLYNOMIALS[max(z.dtype.itemsize, 4)]
    series = np.full_like(z, last)
    for term in reversed(terms):
        series *= x
        series += term
    a *= a
    series -= a
    tail = np.exp(series, out=series)
    tail *= t
    tail /= 2
    return np.abs(np.subtract(z >= 0, tail, out=tail), out=tail)


_ACTIVATIONS: dict[str, ActivationFunction] = {
    "elu": _of_output(_elu, lambda dy, y: dy * (np.minimum(y, 0) + 1)),
    "gelu": _gelu,
    "leaky_relu": _of_output(_leaky_relu, _leaky_relu_gradient),
    "linear": _of_output(_linear, lambda dy, y: dy),
    "relu": _of_output(_relu, lambda dy, y: dy * (y > 0)),
    "selu": _of_output(_selu, _selu_gradient),
    "sigmoid": _of_output(_sigmoid, _sigmoid_gradient),
    "silu": _silu,
    "softmax": _of_output(_softmax, lambda dy, y: y * (dy - (dy * y).sum(axis=-1, keepdims=True))),
    "softplus": _of_output(_softplus, lambda dy, y: dy * -np.expm1(-y)),
    "swish": _silu,
    "tanh": _of_output(_tanh, _tanh_gradient),
}
#: The activation functions, by the names that ``activation=`` takes.
ACTIVATIONS = {name: underflowing_both_ways(function) for name, function in _ACTIVATIONS.items()}
