"""Dense layers with dropout inside."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fastdrop._checks import as_numbers, check_number, checked_p
from fastdrop._messages import shown
from fastdrop._quiet import bare, underflowing, underflowing_both_ways
from fastdrop.compiled._train import sum_of_squares
from fastdrop.functional import dropout
from fastdrop.initializers import Constant, Initializer
from fastdrop.layers.activations import sigmoid
from fastdrop.layers.base import Array, Backward, Shape
from fastdrop.layers.batch import Batch
from fastdrop.layers.core import Dense
from fastdrop.layers.schedules import Rate, checked_rate, p_or_rate, rate_at
from fastdrop.random import Key, uniform

__all__ = ["ConcreteDropout", "DropConnect"]


class DropConnect(Dense):
    """A `Dense` layer that drops weights instead of activations [1]_.

    In training y = activation(x @ (weight * mask / (1 - p)).T + bias), with one mask for the whole
    batch. At inference the layer uses the mean weights, which are `weight` itself. The bias is not
    dropped.

    Parameters
    ----------
    units : int
        Number of outputs.
    p : float or callable
        Probability of dropping a weight, in [0, 1], or a schedule of it; by default 0.5.
    activation, use_bias, kernel_initializer, l1, l2, max_norm
        As for `Dense`.
    rate : float or callable, optional
        Keras's name for `p`.
    seed : int, optional
        As for `Layer`.
    input_shape, name
        As for `Dense`.

    Raises
    ------
    TypeError
        When both `p` and `rate` are given.
    ValueError
        When an argument does not fit its description.

    References
    ----------
    .. [1] Wan, Zeiler, Zhang, LeCun, Fergus 2013, Regularization of neural networks using
       DropConnect, ICML.
    """

    is_random = True
    decides_on = "weights"
    synonyms = Dense.synonyms | {"rate": "p"}

    def __init__(
        self,
        units: int,
        p: Rate | None = None,
        activation: str | None = None,
        *,
        use_bias: bool = True,
        kernel_initializer: str | Initializer | Mapping[str, Any] = "glorot_uniform",
        l1: float = 0.0,
        l2: float = 0.0,
        max_norm: float | None = None,
        rate: Rate | None = None,
        seed: int | None = None,
        input_shape: Iterable[int] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            units,
            activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            l1=l1,
            l2=l2,
            max_norm=max_norm,
            input_shape=input_shape,
            name=name,
        )
        self.p = checked_rate(p_or_rate(p, rate, 0.5))
        self.seed = seed

    @underflowing_both_ways
    def forward_logits(self, x: Array, batch: Batch = Batch()) -> tuple[Array, Backward]:
        if not batch.training:
            return super().forward_logits(x, batch)
        self._build_alone(x, batch)
        key = self.key_of(batch)
        p = rate_at(self.p, key.call)
        z, backward_dropped = self._affine(x, dropout(self.params["weight"], p, key=key))

        def backward(dz: Array, need_dx: bool = True) -> Array | None:
            dx: Array | None = backward_dropped(dz, need_dx)
            self.grads["weight"] = dropout(self.grads["weight"], p, key=key)
            return dx

        return z, backward


class ConcreteDropout(Dense):
    """A `Dense` layer after dropout that learns its p by gradient descent [1]_.

    In training an element of x is multiplied by (1 - s) / (1 - p). Here s is a smooth version of
    "dropped", s = sigmoid((log(p / (1 - p)) + log(u / (1 - u))) / temperature), with u uniform in
    (0, 1). At inference x is not changed.

    A model adds the layer's `penalty` to its loss. It is
    weight_regularizer norm(weight)^2 / (1 - p)
    + dropout_regularizer inputs (p log p + (1 - p) log(1 - p)).
    For N training samples, a model of precision tau and a prior of length scale l, the paper has
    weight_regularizer = l^2 / (tau N) and dropout_regularizer = 2 / (tau N).

    Parameters
    ----------
    units : int
        Number of outputs.
    p : float
        The probability of dropping at the start of training, 0 < p < 1; by default 0.1.
    activation, use_bias, kernel_initializer, max_norm
        As for `Dense`.
    weight_regularizer, dropout_regularizer : float
        Factors of the two terms of the penalty, at least 0.
    temperature : float
        Above 0. The lower it is, the more the layer resembles dropout.
    rate : float, optional
        Keras's name for `p`.
    seed : int, optional
        As for `Layer`.
    input_shape, name
        As for `Dense`.

    Attributes
    ----------
    params : dict
        The parameters of `Dense`, and "logit", float32 (1,), which is log(p / (1 - p)).

    Raises
    ------
    TypeError
        When both `p` and `rate` are given.
    ValueError
        When an argument does not fit its description.

    References
    ----------
    .. [1] Gal, Hron, Kendall 2017, Concrete dropout, NIPS.
    """

    is_random = True
    decides_on = "inputs"
    synonyms = Dense.synonyms | {"rate": "p"}
    _until_built = Dense._until_built | {"p"}

    def __init__(
        self,
        units: int,
        p: float | None = None,
        activation: str | None = None,
        *,
        use_bias: bool = True,
        kernel_initializer: str | Initializer | Mapping[str, Any] = "glorot_uniform",
        max_norm: float | None = None,
        weight_regularizer: float = 1e-6,
        dropout_regularizer: float = 1e-5,
        temperature: float = 0.1,
        rate: float | None = None,
        seed: int | None = None,
        input_shape: Iterable[int] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            units,
            activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            max_norm=max_norm,
            input_shape=input_shape,
            name=name,
        )
        self.p = checked_p(p_or_rate(p, rate, 0.1))
        if self.p in (0, 1):
            raise ValueError(
                f"p: expected 0 < p < 1, so that the layer can learn, got {shown(self.p)}"
            )
        check_number("weight_regularizer", weight_regularizer)
        check_number("dropout_regularizer", dropout_regularizer)
        check_number("temperature", temperature, above_zero=True)
        self.weight_regularizer = weight_regularizer
        self.dropout_regularizer = dropout_regularizer
        self.temperature = temperature
        self.seed = seed

    def build(self, input_shape: Shape, key: Key) -> None:
        if not self.params and input_shape:
            super().build(input_shape, key)
            logit = Constant(math.log(self.p / (1 - self.p)))
            self.params["logit"] = self._first_values("logit", (1,), logit, key)

    def share_kept(self, step: int = 0) -> float:
        return 1 - float(sigmoid(self.params["logit"])[0]) if self.params else 1 - self.p

    @underflowing
    def penalty(self) -> float:
        if not self.params:
            return 0.0
        weight, logit = self.params["weight"], float(self.params["logit"][0])
        # log(1 - p) and log(p), without overflow
        log_kept, log_dropped = -np.logaddexp(0, logit), -np.logaddexp(0, -logit)
        entropy = math.exp(log_dropped) * log_dropped + math.exp(log_kept) * log_kept
        return float(
            self.weight_regularizer * sum_of_squares(weight) / math.exp(log_kept)
            + self.dropout_regularizer * weight.shape[1] * entropy
        )

    @underflowing_both_ways
    def forward_logits(self, x: Array, batch: Batch = Batch()) -> tuple[Array, Backward]:
        self._build_alone(x, batch)
        weight, logit = self.params["weight"], self.params["logit"]
        x = as_numbers("x", x).astype(weight.dtype, copy=False)
        if not batch.training:
            z, backward_mean = self._affine(x, weight)

            def backward_inference(dz: Array, need_dx: bool = True) -> Array | None:
                dx: Array | None = backward_mean(dz, need_dx)
                self.grads["logit"] = np.zeros_like(logit)
                return dx

            return z, backward_inference

        u = uniform(self.key_of(batch), x.shape, batch.offset(x))
        noise = np.log(u / (1 - u)).astype(weight.dtype)
        drawn = (-logit - noise) / weight.dtype.type(self.temperature)
        p, kept = bare(sigmoid)(logit), bare(sigmoid)(drawn)
        scale = kept / (1 - p)

        def scaled(a: Array) -> Array:
            """Return a * scale, and +0.0 for dropped elements, even where a is infinite or NaN."""
            return np.multiply(a, scale, out=np.zeros_like(a), where=scale > 0)

        z, backward_dense = self._affine(scaled(x), weight)

        penalty_share = 1 if batch.rows is None else len(x) / batch.rows

        def backward(dz: Array, need_dx: bool = True) -> Array | None:
            dinputs = backward_dense(dz)
            inputs, square = weight.shape[1], sum_of_squares(weight)
            # The derivative of scale by the logit is scale * (p - (1 - kept) / temperature).
            dscale = p - (1 - kept) / weight.dtype.type(self.temperature)
            self.grads["weight"] += penalty_share * 2 * self.weight_regularizer / (1 - p) * weight
            penalty = self.weight_regularizer * square * p / (
                1 - p
            ) + self.dropout_regularizer * inputs * logit * p * (1 - p)
            self.grads["logit"] = (
                (dinputs * scaled(x) * dscale).sum() + penalty_share * penalty
            ).astype(weight.dtype)
            return scaled(dinputs) if need_dx else None

        return z, backward
