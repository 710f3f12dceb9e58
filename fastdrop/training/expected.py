"""What a network takes: the shapes and values of samples, labels and weights."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastdrop._checks import as_array, check_finite, described
from fastdrop._messages import shown
from fastdrop._quiet import quiet
from fastdrop._serialization import is_ours
from fastdrop.compiled._losses import are_finite
from fastdrop.layers import Array, Shape
from fastdrop.layers.base import batch_shape
from fastdrop.losses import Loss
from fastdrop.metrics import Metric

__all__ = ["Expected", "check_samples", "check_values", "check_weight"]


@dataclass(frozen=True)
class Expected:
    """What a model takes.

    Attributes
    ----------
    input_shape, output_shape : tuple of int
        Shapes of one sample.
    dtype : dtype
        The dtype of the model's parameters.
    loss : Loss or None
        The loss, or None where y does not matter.
    class_weight : mapping of int to float, optional
        As for `Sequential.fit`.
    metrics : sequence of Metric
        The metrics that are reported for outputs and labels.
    """

    input_shape: Shape
    output_shape: Shape
    dtype: np.dtype[Any]
    loss: Loss | None = None
    class_weight: Mapping[int, float] | None = None
    metrics: Sequence[Metric] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.class_weight, Mapping | None):
            raise ValueError(f"class_weight: expected a mapping, got {shown(self.class_weight)}")
        if self.class_weight is not None and len(self.output_shape) != 1:
            raise ValueError(
                "class_weight: expected it with one label per sample, got a model with outputs of "
                f"shape {batch_shape(self.output_shape)}"
            )
        classes = max(2, self.output_shape[-1])
        for label, weight in (self.class_weight or {}).items():
            if label not in range(classes):
                raise ValueError(
                    f"class_weight: expected classes in [0, {classes}), the model's, "
                    f"got {shown(label)}"
                )
            check_weight("class_weight", as_array("class_weight", weight), ())

    def check_shape(self, argument: str, x: Any) -> None:
        """Refuse samples of another shape."""
        if x.shape[1:] != self.input_shape:
            raise ValueError(
                f"{argument}: expected shape {batch_shape(self.input_shape)}, got {x.shape}"
            )

    def check_values(self, argument: str, x: Array) -> None:
        """Refuse numbers that are not finite."""
        check_values(argument, x, self.dtype)

    def targets(self, argument: str, y: Array) -> Array:
        """Return y in the form that the loss takes."""
        assert self.loss is not None
        return self.loss.targets(y, self.output_shape, argument, self.dtype)

    def check_labels(self, argument: str, y: Array) -> None:
        """Refuse targets for which a metric or the weights of classes have no meaning."""
        for metric in self.metrics:
            if is_ours(type(metric)):  # metrics of others may make anything of them
                metric.check(y, self.output_shape, argument)
        if self.class_weight is None:
            return
        if y.ndim == 2 and y.shape[1] > 1:
            wrong = (y != 0).sum(axis=1) != 1
            wrong |= y.max(axis=1) != 1
            if wrong.any():
                raise ValueError(
                    f"class_weight: expected one class each in {argument}, a single 1, "
                    f"got {reprlib.repr(y[wrong][0].tolist())}; use sample_weight"
                )
        self.weights(y, None)

    def weights(self, y: Array, sample_weight: Array | None) -> Array | None:
        """Return the weights of samples with these targets: their own, times those of classes."""
        if sample_weight is not None:
            with quiet():
                sample_weight = sample_weight.astype(self.dtype, copy=False)
        if self.class_weight is None:
            return sample_weight
        labels = y
        if y.ndim == 2:
            labels = y.argmax(axis=1) if y.shape[1] > 1 else y[:, 0]
        others = labels[~np.isin(labels, np.arange(max(2, self.output_shape[-1])))]
        if others.size:
            raise ValueError(
                f"class_weight: expected it with labels that are classes, got {others[0]}"
            )
        weights = np.ones(len(y), self.dtype) if sample_weight is None else sample_weight.copy()
        with quiet():
            for label, weight in self.class_weight.items():
                weights[labels == label] *= weight
        return weights


def check_samples(argument: str, x: Any) -> None:
    """Refuse an object that is no array of samples."""
    size = int(np.prod(x.shape))
    if x.dtype.kind not in "biuf" or len(x.shape) < 2 or not size:
        raise ValueError(
            f"{argument}: expected a non-empty array of numbers of shape (samples, ...), "
            f"got {described(x)}"
        )


def check_values(argument: str, x: Array, dtype: np.dtype[Any]) -> None:
    """Refuse numbers that are not finite in a model's dtype."""
    if x.dtype != dtype or not are_finite(x):  # the quick check first, as this may be a single row
        check_finite(argument, x, dtype)


def check_weight(argument: str, weights: Array, shape: Shape) -> None:
    """Refuse an object that is no array of sample weights, or, with shape (), no class weight."""
    if weights.dtype.kind not in "biuf" or weights.shape != shape:
        expected = "one weight for each sample" if shape else "a number for each class"
        raise ValueError(f"{argument}: expected {expected}, got {described(weights)}")
    check_finite(argument, weights)
    if weights.min() < 0:
        raise ValueError(f"{argument}: expected weights of at least 0, got {weights.min()}")
