"""Metrics: figures about a batch for people to read; nothing is trained on them.

Each takes ``(outputs, y, from_logits)`` as the losses do and returns a mean over the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastdrop.layers import Array

__all__ = [
    "accuracy",
    "binary_accuracy",
    "categorical_accuracy",
    "sparse_categorical_accuracy",
]


def sparse_categorical_accuracy(outputs: Array, y: Array, from_logits: bool = False) -> float:
    """Return the share of samples whose largest output is the class with number `y`."""
    return float(np.mean(outputs.argmax(axis=-1) == y))


def categorical_accuracy(outputs: Array, y: Array, from_logits: bool = False) -> float:
    """Return the share of samples whose largest output is where one-hot `y` is largest."""
    return sparse_categorical_accuracy(outputs, y.argmax(axis=-1))


def binary_accuracy(outputs: Array, y: Array, from_logits: bool = False) -> float:
    """Return the share of elements whose output lies on the same side of 1/2 as `y`."""
    return float(np.mean((outputs > (0 if from_logits else 0.5)) == y))


def accuracy(outputs: Array, y: Array, from_logits: bool = False) -> float:
    """Return the accuracy that the shapes call for, by Keras's rule.

    One output is a binary decision; fewer axes in `y` than in `outputs` mean class numbers;
    anything else is one-hot.
    """
    if outputs.shape[-1] == 1:
        return binary_accuracy(outputs, y, from_logits)
    if y.ndim < outputs.ndim:
        return sparse_categorical_accuracy(outputs, y)
    return categorical_accuracy(outputs, y)


METRICS: dict[str, Callable[[Array, Array, bool], float]] = {
    "accuracy": accuracy,
    "binary_accuracy": binary_accuracy,
    "categorical_accuracy": categorical_accuracy,
    "sparse_categorical_accuracy": sparse_categorical_accuracy,
}
