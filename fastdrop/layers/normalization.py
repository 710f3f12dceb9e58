"""Layers that bring activations to mean 0 and variance 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from fastdrop._checks import as_numbers, check_number
from fastdrop._quiet import underflowing_both_ways
from fastdrop.initializers import Ones, Zeros
from fastdrop.layers.base import Array, Backward, Layer, Shape, batch_shape, sum_over_ranks
from fastdrop.layers.batch import Batch
from fastdrop.random import Key

__all__ = ["BatchNormalization", "LayerNormalization"]


class _Normalization(Layer):
    """Base class: y = gamma (x - mean) / sqrt(variance + epsilon) + beta, feature by feature.

    The features are the last axis.
    """

    _until_built = frozenset({"center", "scale"})
    center = True
    scale = True
    features: int | None  # known once the layer is built

    def __init__(
        self, epsilon: float, *, input_shape: Iterable[int] | None, name: str | None
    ) -> None:
        check_number("epsilon", epsilon, above_zero=True)
        super().__init__(input_shape=input_shape, name=name)
        self.epsilon = epsilon
        self.features = None

    def build(self, input_shape: Shape, key: Key) -> None:
        if self.features is None and input_shape:
            self.features = input_shape[-1]
            shape = input_shape[-1:]
            if self.scale:
                self.params["gamma"] = self._first_values("gamma", shape, Ones(), key)
            if self.center:
                self.params["beta"] = self._first_values("beta", shape, Zeros(), key)

    def output_shape(self, input_shape: Shape) -> Shape:
        if not input_shape or self.features not in (None, input_shape[-1]):
            expected = "features" if self.features is None else self.features
            raise ValueError(
                f"layer {self.name!r} expects x of shape (samples, ..., {expected}), "
                f"got {batch_shape(input_shape)}"
            )
        return input_shape

    def _prepared(self, x: Array) -> Array:
        """Return x in the dtype of the parameters, and make them first if no model has done so."""
        x = as_numbers("x", x)
        self.output_shape(x.shape[1:])
        self.build(x.shape[1:], Key(0))  # nothing is drawn
        return next((x.astype(p.dtype, copy=False) for p in self.params.values()), x)

    def _apply(
        self, x: Array, mean: Array, variance: Array, average: Callable[[Array], Array] | None
    ) -> tuple[Array, Backward]:
        """Normalise. `average` computed mean and variance from x, or is None if they are fixed."""
        inverse = 1 / np.sqrt(variance + self.epsilon)
        normalized = (x - mean) * inverse
        y = normalized * self.params["gamma"] if self.scale else normalized
        if self.center:
            y = y + self.params["beta"]
        samples = tuple(range(x.ndim - 1))

        def backward(dy: Array, need_dx: bool = True) -> Array | None:
            dnormalized = dy
            if self.center:
                self.grads["beta"] = dy.sum(axis=samples)
            if self.scale:
                self.grads["gamma"] = (dy * normalized).sum(axis=samples)
                dnormalized = dy * self.params["gamma"]
            if not need_dx:
                return None
            if average is not None:
                # The mean and the variance depend on x, and take away from the gradient.
                along = average(dnormalized * normalized)
                dnormalized = dnormalized - average(dnormalized) - normalized * along
            return dnormalized * inverse

        return y, backward


class LayerNormalization(_Normalization):
    """Normalise each sample over its last axis [1]_, in training and at inference alike.

    Parameters
    ----------
    epsilon : float
        Added to the variance, above 0.
    input_shape, name
        As for `Layer`.

    Attributes
    ----------
    params : dict
        "gamma", which is one at first, and "beta", which is zero at first; float32 (features,).

    Raises
    ------
    ValueError
        When `epsilon` is not above 0.

    References
    ----------
    .. [1] Ba, Kiros, Hinton 2016, Layer normalization, arXiv:1607.06450.
    """

    def __init__(
        self,
        epsilon: float = 1e-3,
        *,
        input_shape: Iterable[int] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(epsilon, input_shape=input_shape, name=name)

    @underflowing_both_ways
    def forward(self, x: Array, batch: Batch = Batch()) -> tuple[Array, Backward]:
        x = self._prepared(x)

        def average(a: Array) -> Array:
            return a.mean(axis=-1, keepdims=True)

        mean = average(x)
        return self._apply(x, mean, average(np.square(x - mean)), average)


class BatchNormalization(_Normalization):
    """Normalise each feature, over the batch in training and by moving averages at inference [1]_.

    The features are the last axis, and mean and variance are taken over all other axes. A batch
    that is split over several calls is normalised part by part. A batch that several ranks train on
    together is normalised as a whole. A frozen layer, whose `trainable` is False, does in training
    what it does at inference.

    Parameters
    ----------
    momentum : float
        Share of the moving averages that a training batch leaves as it is, in [0, 1).
    epsilon : float
        Added to the variance, above 0.
    center, scale : bool
        Whether the layer has a "beta" and a "gamma".
    input_shape, name
        As for `Layer`.

    Attributes
    ----------
    params : dict
        "gamma", which is one at first, and "beta", which is zero at first; float32 (features,).
    state : dict
        "moving_mean", which is zero at first, and "moving_variance", which is one at first; float32
        (features,).

    Raises
    ------
    ValueError
        When an argument does not fit its description.

    References
    ----------
    .. [1] Ioffe and Szegedy 2015, Batch normalization: accelerating deep network training by
       reducing internal covariate shift, ICML.
    """

    def __init__(
        self,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        *,
        input_shape: Iterable[int] | None = None,
        name: str | None = None,
    ) -> None:
        check_number("momentum", momentum, below=1)
        super().__init__(epsilon, input_shape=input_shape, name=name)
        self.momentum = momentum
        self.center = center
        self.scale = scale

    def build(self, input_shape: Shape, key: Key) -> None:
        super().build(input_shape, key)
        if not self.state and self.features is not None:
            for name, initializer in zip(_MOVING, (Zeros(), Ones())):
                self.state[name] = self._first_values(name, (self.features,), initializer, key)

    @underflowing_both_ways
    def forward(self, x: Array, batch: Batch = Batch()) -> tuple[Array, Backward]:
        x = self._prepared(x)
        total = sum_over_ranks.get()
        samples = len(x) if total is None else batch.size(x)
        if not batch.training or not self.trainable or not samples:  # no samples have no mean
            mean, variance = (self.state[name].astype(x.dtype) for name in _MOVING)
            return self._apply(x, mean, variance, None)
        axis = tuple(range(x.ndim - 1))
        count = samples * math.prod(x.shape[1:-1])

        def average(a: Array) -> Array:
            sums = a.sum(axis=axis)
            return (sums if total is None else total(sums)) / count

        mean = average(x)
        variance = average(np.square(x - mean))
        for name, value in zip(_MOVING, (mean, variance)):
            moving = self.state[name]
            moving += (1 - self.momentum) * (value - moving)
        return self._apply(x, mean, variance, average)


_MOVING = ("moving_mean", "moving_variance")
