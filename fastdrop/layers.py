"""Layers of a multi-layer perceptron.

A layer maps a batch `x`, whose first axis counts samples, to `y`. Nothing about one call is kept on
the layer: what the backward pass needs lives in the function that `forward` returns.

    y, backward = layer.forward(x, training=True)
    dx = backward(dy)                  # and the gradients of layer.params are in layer.grads
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdrop._checks import (
    check_count,
    checked_axes,
    checked_p,
    is_count,
    lookup,
    mask_shape,
)
from fastdrop.functional import dropout, masked_scale
from fastdrop.random import Generator, Key, default_generator, uniform

__all__ = ["Activation", "Dense", "Dropout", "Flatten", "Input", "Layer", "ReLU", "Softmax"]

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, ...]
Backward: TypeAlias = Callable[..., Any]


def batch_shape(shape: Shape) -> str:
    """Return the shape of a batch of samples of `shape`, for messages."""
    return f"(samples, {', '.join(map(str, shape))})" if shape else "(samples,)"


def _as_shape(argument: str, shape: Iterable[int]) -> Shape:
    sizes = tuple(shape) if isinstance(shape, Iterable) else ()
    if not sizes or not all(map(is_count, sizes)):
        raise ValueError(
            f"{argument}: expected a tuple of sizes without the batch axis, such as (28, 28), "
            f"got {shape!r}"
        )
    return tuple(int(size) for size in sizes)


# Activations: y = function(z, out), and dz = gradient(dy, y), which needs no more than y.


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


class _ActivationPair(NamedTuple):
    function: Callable[[Array, Array | None], Array]
    gradient: Callable[[Array, Array], Array]


ACTIVATIONS: dict[str, _ActivationPair] = {
    "linear": _ActivationPair(_linear, lambda dy, y: dy),
    "relu": _ActivationPair(_relu, lambda dy, y: np.where(y > 0, dy, dy.dtype.type(0))),
    "sigmoid": _ActivationPair(sigmoid, lambda dy, y: dy * y * (1 - y)),
    "softmax": _ActivationPair(
        softmax, lambda dy, y: y * (dy - (dy * y).sum(axis=-1, keepdims=True))
    ),
    "tanh": _ActivationPair(np.tanh, lambda dy, y: dy * (1 - y * y)),
}


class Input:
    """The shape of a model's input, as the first item of a `Sequential`; not a layer itself.

    Parameters
    ----------
    shape : tuple of int
        Shape of one sample, without the batch axis.

    Raises
    ------
    ValueError
        When `shape` is not a tuple of positive whole numbers.
    """

    def __init__(self, shape: Iterable[int]) -> None:
        self.shape = _as_shape("shape", shape)


class Layer:
    """Base of all layers: the identity, without parameters.

    Parameters
    ----------
    input_shape : tuple of int, optional
        Shape of one sample, without the batch axis. Given on the first layer of a model, it builds
        the model at once; otherwise the first data decide.
    name : str, optional
        Defaults to the class's name in lower case; a model appends a number to tell layers apart.

    Attributes
    ----------
    params, grads : dict of str to ndarray
        The parameters, and their gradients after a backward pass. Both are empty in a layer
        without parameters. A layer with parameters computes in their dtype (float32 unless they
        are replaced); one without keeps its input's.
    activation : str
        Name of the activation that ends the layer.
    """

    activation = "linear"

    def __init__(
        self, *, input_shape: Iterable[int] | None = None, name: str | None = None
    ) -> None:
        self.input_shape = None if input_shape is None else _as_shape("input_shape", input_shape)
        self.name = type(self).__name__.lower() if name is None else name
        self.params: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}
        self._seed: int | None = None
        self._generator: Generator | None = None

    def __call__(self, x: ArrayLike, training: bool = False) -> Array:
        """Return the layer's output for the batch `x`, see `forward`."""
        y, _ = self.forward(np.asarray(x), training)
        return y

    def build(self, input_shape: Shape, key: Key) -> None:
        """Make the parameters for samples of `input_shape`; existing ones are kept.

        Parameter number j is drawn with ``key.fold_in(j)``.
        """

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of one output sample for input samples of `input_shape`.

        Raises
        ------
        ValueError
            When the layer cannot take such samples.
        """
        return input_shape

    def forward(
        self,
        x: Array,
        training: bool = True,
        *,
        key: Key | None = None,
        row: int = 0,
        rows: int | None = None,
    ) -> tuple[Array, Backward]:
        """Return the output and the function that propagates gradients back.

        Parameters
        ----------
        x : ndarray, (samples, ...)
            One batch, or a part of one.
        training : bool
            Whether random layers are active.
        key : Key, optional
            Source of the layer's randomness; without it the layer's own generator gives one.
        row, rows : int, optional
            Index of x's first row in the whole batch, and the whole batch's number of rows: with
            them a batch split over calls or processes gets the masks of the undivided one.
            The defaults say that x is the whole batch.

        Returns
        -------
        y : ndarray
            Never rewritten later. It may be `x` itself, or a view of it.
        backward : callable
            ``backward(dy) -> dx``; it also sets `grads`. In a layer with parameters,
            ``backward(dy, need_dx=False)`` sets `grads` only and returns None: below the first of
            them in a model nobody needs dx.
        """
        return x, lambda dy: dy

    def forward_logits(
        self,
        x: Array,
        training: bool = True,
        *,
        key: Key | None = None,
        row: int = 0,
        rows: int | None = None,
    ) -> tuple[Array, Backward]:
        """Do what `forward` does, but stop before the activation that ends the layer."""
        return self.forward(x, training, key=key, row=row, rows=rows)

    def _next_key(self) -> Key:
        if self._generator is None:
            self._generator = (
                default_generator.spawn(1)[0] if self._seed is None else Generator(self._seed)
            )
        return self._generator.next_key()


class Dense(Layer):
    """Fully connected layer: y = activation(x @ weight.T + bias), over the last axis of x.

    Parameters
    ----------
    units : int
        Number of outputs.
    activation : {"linear", "relu", "sigmoid", "softmax", "tanh"}, optional
        None means linear.
    input_shape, name
        As for `Layer`.
    input_dim : int, optional
        Keras's short form of ``input_shape=(input_dim,)``.

    Attributes
    ----------
    params : dict
        "weight", float32 (units, inputs), Glorot uniform [1]_; "bias", float32 (units,), zeros.

    Raises
    ------
    ValueError
        When an argument does not fit its description.

    References
    ----------
    .. [1] Glorot and Bengio 2010, Understanding the difficulty of training deep feedforward neural
       networks, AISTATS.
    """

    def __init__(
        self,
        units: int,
        activation: str | None = None,
        *,
        input_shape: Iterable[int] | None = None,
        input_dim: int | None = None,
        name: str | None = None,
    ) -> None:
        check_count("units", units)
        if input_dim is not None:
            if input_shape is not None:
                raise ValueError("input_dim: expected it or input_shape, got both")
            check_count("input_dim", input_dim)
            input_shape = (input_dim,)
        super().__init__(input_shape=input_shape, name=name)
        self.units = int(units)
        self.activation = "linear" if activation is None else activation
        self._activate = lookup("activation", self.activation, ACTIVATIONS)

    def build(self, input_shape: Shape, key: Key) -> None:
        if self.params or not input_shape:
            return
        inputs = input_shape[-1]
        limit = math.sqrt(6 / (inputs + self.units))
        weight = (2 * uniform(key.fold_in(0), (self.units, inputs)) - 1) * limit
        self.params = {
            "weight": weight.astype(np.float32),
            "bias": np.zeros(self.units, np.float32),
        }

    def output_shape(self, input_shape: Shape) -> Shape:
        expected = self.params["weight"].shape[1] if self.params else "features"
        if not input_shape or (self.params and input_shape[-1] != expected):
            raise ValueError(
                f"layer {self.name!r} expects x of shape (samples, ..., {expected}), "
                f"got {batch_shape(input_shape)}"
            )
        return (*input_shape[:-1], self.units)

    def forward(
        self,
        x: Array,
        training: bool = True,
        *,
        key: Key | None = None,
        row: int = 0,
        rows: int | None = None,
    ) -> tuple[Array, Backward]:
        z, backward_logits = self.forward_logits(x, training, key=key)
        y = self._activate.function(z, z)

        def backward(dy: Array, need_dx: bool = True) -> Array | None:
            dx: Array | None = backward_logits(self._activate.gradient(dy, y), need_dx)
            return dx

        return y, backward

    def forward_logits(
        self,
        x: Array,
        training: bool = True,
        *,
        key: Key | None = None,
        row: int = 0,
        rows: int | None = None,
    ) -> tuple[Array, Backward]:
        if not self.params:
            self.build(x.shape[1:], self._next_key() if key is None else key)
        y_shape = (*x.shape[:1], *self.output_shape(x.shape[1:]))
        weight = self.params["weight"]
        inputs = np.asarray(x, weight.dtype).reshape(-1, weight.shape[1])
        z = inputs @ weight.T
        z += self.params["bias"]

        def backward(dz: Array, need_dx: bool = True) -> Array | None:
            dz = np.asarray(dz, weight.dtype).reshape(-1, self.units)
            self.grads = {"weight": dz.T @ inputs, "bias": dz.sum(axis=0)}
            return (dz @ weight).reshape(x.shape) if need_dx else None

        return z.reshape(y_shape), backward


class Flatten(Layer):
    """Make one axis of all but the first: (samples, ...) to (samples, features).

    Parameters
    ----------
    input_shape, name
        As for `Layer`.
    """

    def output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def forward(
        self,
        x: Array,
        training: bool = True,
        *,
        key: Key | None = None,
        row: int = 0,
        rows: int | None = None,
    ) -> tuple[Array, Backward]:
        # Not -1 for the features: an empty batch would not tell how many there are.
        y = x.reshape(len(x), *self.output_shape(x.shape[1:]))
        return y, lambda dy: dy.reshape(x.shape)


class Activation(Layer):
    """Apply an activation function.

    Parameters
    ----------
    activation : {"linear", "relu", "sigmoid", "softmax", "tanh"}
        Softmax works along the last axis.
    input_shape, name
        As for `Layer`.

    Raises
    ------
    ValueError
        When `activation` is unknown.
    """

    def __init__(
        self,
        activation: str,
        *,
        input_shape: Iterable[int] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(input_shape=input_shape, name=name)
        self.activation = activation
        self._activate = lookup("activation", activation, ACTIVATIONS)

    def forward(
        self,
        x: Array,
        training: bool = True,
        *,
        key: Key | None = None,
        row: int = 0,
        rows: int | None = None,
    ) -> tuple[Array, Backward]:
        y = self._activate.function(x, None)
        return y, lambda dy: self._activate.gradient(dy, y)

    def forward_logits(
        self,
        x: Array,
        training: bool = True,
        *,
        key: Key | None = None,
        row: int = 0,
        rows: int | None = None,
    ) -> tuple[Array, Backward]:
        return x, lambda dy: dy


class ReLU(Activation):
    """max(x, 0). `input_shape` and `name` as for `Layer`."""

    def __init__(
        self, *, input_shape: Iterable[int] | None = None, name: str | None = None
    ) -> None:
        super().__init__("relu", input_shape=input_shape, name=name)


class Softmax(Activation):
    """exp(x) / sum(exp(x)) along the last axis. `input_shape` and `name` as for `Layer`."""

    def __init__(
        self, *, input_shape: Iterable[int] | None = None, name: str | None = None
    ) -> None:
        super().__init__("softmax", input_shape=input_shape, name=name)


class Dropout(Layer):
    """Set elements to zero at random while training [1]_.

    Parameters
    ----------
    p : float
        Probability of dropping an element, in [0, 1].
    seed : int, optional
        Seed of the layer's own generator, made at first use; without it one is spawned from the
        default generator. Inside a model the model's seed decides instead.
    shared_axes : int or tuple of int
        Axes along which all elements share one decision; 0 is the batch axis.
    mode : {"inverted", "vanilla"}
        "inverted" multiplies what is kept by 1 / (1 - p) in training and does nothing at
        inference. "vanilla", the original rule, does not scale in training and multiplies by 1 - p
        at inference.
    rate : float, optional
        Keras's word for `p`.
    noise_shape
        Not supported: use `shared_axes`.
    input_shape, name
        As for `Layer`.

    Raises
    ------
    ValueError
        When `p` is outside [0, 1] or NaN, or `mode` is unknown.
    TypeError
        When `noise_shape`, or both `p` and `rate`, are given.

    Notes
    -----
    No mask is stored: the backward pass draws the same one again from the same key.

    References
    ----------
    .. [1] Srivastava et al. 2014, Dropout: a simple way to prevent neural networks from
       overfitting, JMLR 15:1929.
    """

    def __init__(
        self,
        p: float = 0.5,
        *,
        seed: int | None = None,
        shared_axes: int | tuple[int, ...] = (),
        mode: str = "inverted",
        rate: float | None = None,
        noise_shape: object = None,
        input_shape: Iterable[int] | None = None,
        name: str | None = None,
    ) -> None:
        if noise_shape is not None:
            raise TypeError(
                "noise_shape: expected shared_axes in its place, with the axes of size 1: "
                "shared_axes=(1,) for noise_shape=(batch, 1, features)"
            )
        if rate is not None:
            if p != 0.5:
                raise TypeError("rate: expected it or p, got both")
            p = rate
        if mode not in ("inverted", "vanilla"):
            raise ValueError(f"mode: expected 'inverted' or 'vanilla', got {mode!r}")
        super().__init__(input_shape=input_shape, name=name)
        self.p = checked_p(p)
        self.shared_axes = shared_axes
        self.mode = mode
        self._seed = seed

    def output_shape(self, input_shape: Shape) -> Shape:
        checked_axes(self.shared_axes, 1 + len(input_shape))
        return input_shape

    def forward(
        self,
        x: Array,
        training: bool = True,
        *,
        key: Key | None = None,
        row: int = 0,
        rows: int | None = None,
    ) -> tuple[Array, Backward]:
        drop = self._rule(x, training, key, row)
        return drop(x), drop  # linear in x, so its own gradient

    def _rule(
        self, x: Array, training: bool, key: Key | None, row: int
    ) -> Callable[[Array], Array]:
        p = self.p
        vanilla = self.mode == "vanilla"
        if not training:
            return (lambda a: a * (1 - p)) if vanilla else (lambda a: a)
        axes = checked_axes(self.shared_axes, x.ndim)
        per_row = math.prod(mask_shape(x.shape, axes)[1:])
        mask: dict[str, Any] = {
            "key": self._next_key() if key is None else key,
            "shared_axes": axes,
            "offset": 0 if 0 in axes else row * per_row,
        }
        if vanilla:
            return lambda a: masked_scale(a, p, 1.0, **mask)
        return lambda a: dropout(a, p, **mask)
