"""Losses: each returns its value and its gradient in one call.

A loss that *folds* an activation can take that activation's inputs (logits) in place of its
outputs, which is exact where probabilities would have to be clipped away from 0 and 1.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from fastdrop._checks import check_finite
from fastdrop.layers import Array, Shape, batch_shape, sigmoid

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "MeanSquaredError",
    "SparseCategoricalCrossentropy",
]

EPSILON = 1e-7  # Keras's: probabilities are clipped to [EPSILON, 1 - EPSILON]


class Loss:
    """Base of all losses.

    Attributes
    ----------
    folds : str or None
        Name of the activation whose logits the loss can take.
    """

    folds: str | None = None
    _shape_hint = ""

    def targets(self, y: ArrayLike, output_shape: Shape, argument: str = "y") -> Array:
        """Check labels against a model's output, and return them as the loss wants them.

        Parameters
        ----------
        y : array_like, (samples, *output_shape)
            An axis of size 1 at the end may be left out.
        output_shape : tuple of int
            Shape of one output sample.
        argument : str
            What the caller names `y`, for messages.

        Returns
        -------
        ndarray, float32, (samples, *output_shape)

        Raises
        ------
        ValueError
            When shape, type or values do not fit.
        """
        array = _numbers(y, argument)
        if output_shape[-1:] == (1,) and array.shape[1:] == output_shape[:-1]:
            array = array[..., np.newaxis]
        if array.shape[1:] != output_shape:
            raise ValueError(
                f"{argument}: expected shape {batch_shape(output_shape)} for this loss and model, "
                f"got {np.shape(y)}{self._shape_hint}"
            )
        self._check_values(array, argument)
        return array.astype(np.float32)

    def _check_values(self, y: Array, argument: str) -> None:
        if not ((y >= 0) & (y <= 1)).all():
            raise ValueError(
                f"{argument}: expected values in [0, 1] for this loss, got {y.min()} to {y.max()}"
            )

    def __call__(self, outputs: Array, y: Array, from_logits: bool = False) -> tuple[float, Array]:
        """Return the loss of a batch and its gradient with respect to `outputs`.

        Parameters
        ----------
        outputs : ndarray, (samples, ...)
            What the model gave.
        y : ndarray
            What `targets` returned, the rows of this batch.
        from_logits : bool
            Whether `outputs` are logits of the activation that the loss folds.

        Returns
        -------
        value : float
            Mean over the batch.
        gradient : ndarray
            Shape and dtype of `outputs`; gradient of that mean.
        """
        raise NotImplementedError


class MeanSquaredError(Loss):
    """mean((outputs - y)^2)."""

    def _check_values(self, y: Array, argument: str) -> None:
        check_finite(argument, y)

    def __call__(self, outputs: Array, y: Array, from_logits: bool = False) -> tuple[float, Array]:
        error = outputs - y
        return float(np.mean(error * error)), error * (2 / error.size)


class CategoricalCrossentropy(Loss):
    """-sum(y log(outputs)) over the classes, mean over the batch; y one-hot or probabilities.

    Outputs that do not add up to 1 are divided by their sum, as Keras does.
    """

    folds = "softmax"
    _shape_hint = "; class numbers need loss='sparse_categorical_crossentropy'"

    def __call__(self, outputs: Array, y: Array, from_logits: bool = False) -> tuple[float, Array]:
        n = math.prod(outputs.shape[:-1])
        if from_logits:
            shifted = outputs - outputs.max(axis=-1, keepdims=True)
            exp = np.exp(shifted)
            total = exp.sum(axis=-1, keepdims=True)
            value = (y * (np.log(total) - shifted)).sum() / n
            return float(value), (exp * (y.sum(axis=-1, keepdims=True) / total) - y) / n
        total = outputs.sum(axis=-1, keepdims=True)
        q = outputs / total
        clipped = np.clip(q, EPSILON, 1 - EPSILON)
        value = -(y * np.log(clipped)).sum() / n
        dq = np.where(clipped == q, -y / clipped, 0)  # a clipped value has no gradient
        return float(value), (dq - (dq * q).sum(axis=-1, keepdims=True)) / (total * n)


class SparseCategoricalCrossentropy(CategoricalCrossentropy):
    """Categorical cross-entropy for labels that are class numbers."""

    def targets(self, y: ArrayLike, output_shape: Shape, argument: str = "y") -> Array:
        """Check class numbers, see `Loss.targets`.

        Parameters
        ----------
        y : array_like, (samples, *output_shape[:-1]) or with an axis of size 1 at the end
            Whole numbers in [0, classes), of any numeric type; classes is output_shape[-1].

        Returns
        -------
        ndarray, int64, (samples, *output_shape[:-1])
        """
        array = _numbers(y, argument)
        if array.shape[1:] == (*output_shape[:-1], 1):
            array = array[..., 0]
        if array.shape[1:] != output_shape[:-1]:
            raise ValueError(
                f"{argument}: expected shape {batch_shape(output_shape[:-1])}, one class number "
                f"each, got {np.shape(y)}; one-hot labels need loss='categorical_crossentropy'"
            )
        classes = output_shape[-1]
        wrong = array[~((array >= 0) & (array < classes) & (array == np.trunc(array)))]
        if wrong.size:
            raise ValueError(
                f"{argument}: expected whole numbers in [0, {classes}), the model's classes, "
                f"got {wrong[0]}"
            )
        return array.astype(np.int64)

    def __call__(self, outputs: Array, y: Array, from_logits: bool = False) -> tuple[float, Array]:
        one_hot = np.zeros_like(outputs)
        np.put_along_axis(one_hot, y[..., np.newaxis], 1, axis=-1)
        return super().__call__(outputs, one_hot, from_logits)


class BinaryCrossentropy(Loss):
    """-(y log(outputs) + (1 - y) log(1 - outputs)), mean over all elements."""

    folds = "sigmoid"

    def __call__(self, outputs: Array, y: Array, from_logits: bool = False) -> tuple[float, Array]:
        if from_logits:
            value = np.maximum(outputs, 0) - outputs * y + np.log1p(np.exp(-np.abs(outputs)))
            return float(value.mean()), (sigmoid(outputs) - y) / outputs.size
        q = np.clip(outputs, EPSILON, 1 - EPSILON)
        value = -(y * np.log(q) + (1 - y) * np.log(1 - q))
        gradient = np.where(q == outputs, (q - y) / (q * (1 - q)), 0)
        return float(value.mean()), gradient / outputs.size


def _numbers(y: ArrayLike, argument: str) -> Array:
    array = np.asarray(y)
    if array.dtype.kind not in "biuf" or not array.ndim:
        raise ValueError(
            f"{argument}: expected an array of numbers, got {array.dtype} {array.shape}"
        )
    return array


LOSSES: dict[str, type[Loss]] = {
    "binary_crossentropy": BinaryCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "mse": MeanSquaredError,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
}
