"""What a multi-layer perceptron needs around dropout."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from fastdrop import initializers
from fastdrop._checks import as_numbers, check_count, check_number, lookup
from fastdrop._messages import shown
from fastdrop._quiet import bare, quiet, underflowing_both_ways
from fastdrop.compiled._products import matmul
from fastdrop.compiled._train import sum_of_squares
from fastdrop.initializers import Initializer
from fastdrop.layers.activations import ACTIVATIONS
from fastdrop.layers.base import (
    Array,
    Backward,
    Layer,
    Shape,
    WeightRule,
    batch_shape,
)
from fastdrop.layers.batch import Batch
from fastdrop.random import Key

__all__ = ["Activation", "Dense", "Flatten", "ReLU", "Softmax"]


class Dense(Layer):
    """Fully connected layer: y = activation(x @ weight.T + bias), over the last axis of x.

    Parameters
    ----------
    units : int
        Number of outputs.
    activation : str, optional
        A name in `fastdrop.layers.ACTIVATIONS`; None means linear.
    use_bias : bool
        Whether there is a bias.
    kernel_initializer : str or Initializer
        How to draw the weights before training, see `fastdrop.initializers`.
    l1, l2 : float
        At least 0: l1 sum(abs(weight)) + l2 sum(weight^2) is added to the loss. Keras writes
        ``kernel_regularizer=L1L2(l1, l2)``.
    max_norm : float, optional
        Above 0: after each update, the weights into one unit are scaled down to this Euclidean norm
        where theirs is larger. Keras writes ``kernel_constraint=MaxNorm(max_norm)``.
    input_shape : tuple of int, optional
        As for `Layer`.
    input_dim : int, optional
        Keras's short form of ``input_shape=(input_dim,)``.
    name : str, optional
        As for `Layer`.
    kernel_regularizer, kernel_constraint : object
        Keras's arguments, which are refused with a message that tells what to write instead.

    Attributes
    ----------
    params : dict
        "weight", float32 (units, inputs), which is Keras's kernel transposed, and "bias", float32
        (units,), which is zero at first.

    Raises
    ------
    TypeError
        When `kernel_regularizer` or `kernel_constraint` is given.
    ValueError
        When an argument does not fit its description.
    """

    synonyms: ClassVar = {
        "input_dim": "input_shape",
        "kernel_regularizer": None,
        "kernel_constraint": None,
    }

    _until_built = frozenset({"units", "use_bias", "kernel_initializer"})

    def __init__(
        self,
        units: int,
        activation: str | None = None,
        *,
        use_bias: bool = True,
        kernel_initializer: str | Initializer | Mapping[str, Any] = "glorot_uniform",
        l1: float = 0.0,
        l2: float = 0.0,
        max_norm: float | None = None,
        input_shape: Iterable[int] | None = None,
        input_dim: int | None = None,
        name: str | None = None,
        kernel_regularizer: object = None,
        kernel_constraint: object = None,
    ) -> None:
        if kernel_regularizer is not None:
            raise TypeError(
                "kernel_regularizer: expected l1 and l2 instead: l2=0.01 for 'l2', "
                f"l1=a, l2=b for L1L2(a, b); got {shown(kernel_regularizer)}"
            )
        if kernel_constraint is not None:
            raise TypeError(
                "kernel_constraint: expected max_norm instead, max_norm=c for MaxNorm(c); "
                f"got {shown(kernel_constraint)}"
            )
        check_count("units", units)
        check_number("l1", l1)
        check_number("l2", l2)
        if max_norm is not None:
            check_number("max_norm", max_norm, above_zero=True)
        if input_dim is not None:
            if input_shape is not None:
                raise ValueError("input_dim: expected either input_dim or input_shape, got both")
            check_count("input_dim", input_dim)
            input_shape = (input_dim,)
        super().__init__(input_shape=input_shape, name=name)
        self.units = int(units)
        self.activation = "linear" if activation is None else activation
        lookup("activation", self.activation, ACTIVATIONS)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.l1 = l1
        self.l2 = l2
        self.max_norm = max_norm

    def build(self, input_shape: Shape, key: Key) -> None:
        if self.params or not input_shape:
            return
        shape = (self.units, input_shape[-1])
        key = key.fold_in(0)
        with quiet():
            weight = self._first_values("weight", shape, self.kernel_initializer, key)
        params = {"weight": weight}
        if self.use_bias:
            params["bias"] = self._first_values("bias", shape[:1], initializers.Zeros(), key)
        self.params = params

    def weight_rules(self) -> dict[str, WeightRule]:
        rule = WeightRule(self.l1, self.l2, self.max_norm)
        return {} if rule == WeightRule() else {"weight": rule}

    def penalty(self) -> float:
        if not self.params:
            return 0.0
        weight, penalty = self.params["weight"], 0.0
        if self.l1:
            penalty += float(self.l1) * float(np.abs(weight).sum())
        if self.l2:
            penalty += float(self.l2) * sum_of_squares(weight)
        return penalty

    def output_shape(self, input_shape: Shape) -> Shape:
        expected = self.params["weight"].shape[1] if self.params else "features"
        if not input_shape or (self.params and input_shape[-1] != expected):
            raise ValueError(
                f"layer {self.name!r} expects x of shape (samples, ..., {expected}), "
                f"got {batch_shape(input_shape)}"
            )
        return (*input_shape[:-1], self.units)

    @underflowing_both_ways
    def forward(self, x: Array, batch: Batch = Batch()) -> tuple[Array, Backward]:
        z, backward_logits = bare(self.forward_logits)(x, batch)
        y, gradient = bare(ACTIVATIONS[self.activation])(z, z)

        def backward(dy: Array, need_dx: bool = True) -> Array | None:
            dx: Array | None = backward_logits(gradient(dy), need_dx)
            return dx

        return y, backward

    @underflowing_both_ways
    def forward_logits(self, x: Array, batch: Batch = Batch()) -> tuple[Array, Backward]:
        self._build_alone(x, batch)
        return self._affine(x, self.params["weight"])

    def _build_alone(self, x: Array, batch: Batch) -> None:
        """Check x, and make the parameters at the first call if no model has made them."""
        self.output_shape(x.shape[1:])
        if not self.params:
            self.build(x.shape[1:], self.key_of(batch))

    def _affine(self, x: Array, weight: Array) -> tuple[Array, Backward]:
        """Return x @ weight.T + bias; backward sets the gradients of weight and bias."""
        y_shape = (*x.shape[:1], *self.output_shape(x.shape[1:]))
        inputs = as_numbers("x", x).astype(weight.dtype, copy=False).reshape(-1, weight.shape[1])
        z = matmul(inputs, weight.T)
        if self.use_bias:
            z += self.params["bias"]

        def backward(dz: Array, need_dx: bool = True) -> Array | None:
            dz = as_numbers("dy", dz).astype(weight.dtype, copy=False).reshape(-1, self.units)
            self.grads = {"weight": matmul(dz.T, inputs)}
            if self.use_bias:
                self.grads["bias"] = dz.sum(axis=0)
            return matmul(dz, weight).reshape(x.shape) if need_dx else None

        return z.reshape(y_shape), backward


class Flatten(Layer):
    """Make one axis of all axes but the first: (samples, ...) becomes (samples, features).

    Parameters
    ----------
    input_shape, name
        As for `Layer`.
    """

    def output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def forward(self, x: Array, batch: Batch = Batch()) -> tuple[Array, Backward]:
        # -1 for the number of features would fail: an empty batch does not tell it.
        y = x.reshape(len(x), *self.output_shape(x.shape[1:]))
        return y, lambda dy: dy.reshape(x.shape)


class Activation(Layer):
    """Apply an activation function to each element, or softmax along the last axis.

    Parameters
    ----------
    activation : str
        A name in `fastdrop.layers.ACTIVATIONS`.
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
        lookup("activation", activation, ACTIVATIONS)

    def forward(self, x: Array, batch: Batch = Batch()) -> tuple[Array, Backward]:
        return ACTIVATIONS[self.activation](x, None)

    def forward_logits(self, x: Array, batch: Batch = Batch()) -> tuple[Array, Backward]:
        return x, lambda dy: dy


class ReLU(Activation):
    """The activation max(x, 0).

    Parameters
    ----------
    input_shape, name
        As for `Layer`.
    """

    def __init__(
        self, *, input_shape: Iterable[int] | None = None, name: str | None = None
    ) -> None:
        super().__init__("relu", input_shape=input_shape, name=name)


class Softmax(Activation):
    """The activation exp(x) / sum(exp(x)) along the last axis.

    Parameters
    ----------
    input_shape, name
        As for `Layer`.
    """

    def __init__(
        self, *, input_shape: Iterable[int] | None = None, name: str | None = None
    ) -> None:
        super().__init__("softmax", input_shape=input_shape, name=name)
