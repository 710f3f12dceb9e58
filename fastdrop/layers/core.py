"""What a multi-layer perceptron needs around dropout."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from fastdrop._checks import check_count, lookup
from fastdrop.layers.activations import ACTIVATIONS
from fastdrop.layers.base import Array, Backward, Layer, Shape, batch_shape
from fastdrop.random import Key, uniform

__all__ = ["Activation", "Dense", "Flatten", "ReLU", "Softmax"]


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
        z, backward_logits = self.forward_logits(x, training, key=key, row=row, rows=rows)
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
        self._build_alone(x, key)
        return self._affine(x, self.params["weight"])

    def _build_alone(self, x: Array, key: Key | None) -> None:
        """Check x, and make the parameters at the first call where no model did."""
        self.output_shape(x.shape[1:])
        if not self.params:
            self.build(x.shape[1:], self._next_key() if key is None else key)

    def _affine(self, x: Array, weight: Array) -> tuple[Array, Backward]:
        """Return x @ weight.T + bias; backward sets the gradients of this weight and the bias."""
        y_shape = (*x.shape[:1], *self.output_shape(x.shape[1:]))
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
