"""The losses of scikit-learn's perceptrons: halves, and sums over the outputs of a sample.

A loss of `fastdrop.losses` is a mean over all elements. In scikit-learn, gradients are those of
sums over a sample's outputs, and `alpha` and the learning rate depend on that.
"""

from __future__ import annotations

import numpy as np

from fastdrop.layers import Array
from fastdrop.losses import (
    BinaryCrossentropy,
    Loss,
    MeanSquaredError,
    SparseCategoricalCrossentropy,
)

__all__ = [
    "LOSSES",
    "HalfPoissonDeviance",
    "HalfSquaredError",
    "SummedBinaryCrossentropy",
    "reported",
]


class HalfSquaredError(MeanSquaredError):
    """Half the squared error: (outputs - y)^2 / 2, summed over a sample's outputs."""

    def compiled(
        self, outputs: Array, y: Array, from_logits: bool, sample_weight: Array | None
    ) -> tuple[float, Array] | None:
        found = super().compiled(outputs, y, from_logits, sample_weight)
        if found is None:
            return None
        value, gradient = found
        half = outputs.shape[-1] / 2
        gradient *= half
        return value * half, gradient


class SummedBinaryCrossentropy(BinaryCrossentropy):
    """Binary cross-entropy, summed over a sample's outputs."""

    def compiled(
        self, outputs: Array, y: Array, from_logits: bool, sample_weight: Array | None
    ) -> tuple[float, Array] | None:
        found = super().compiled(outputs, y, from_logits, sample_weight)
        if found is None or outputs.shape[-1] == 1:
            return found
        value, gradient = found
        gradient *= outputs.shape[-1]
        return value * outputs.shape[-1], gradient


class HalfPoissonDeviance(Loss):
    """Half the Poisson deviance, summed over a sample's outputs, which are logarithms of means."""

    def compiled(
        self, outputs: Array, y: Array, from_logits: bool, sample_weight: Array | None
    ) -> tuple[float, Array]:
        with np.errstate(all="ignore"):  # the value itself shows when something is not finite
            means = np.exp(outputs)
            entropy = y * np.log(np.where(y > 0, y, 1))
            losses = (entropy - y * outputs - y + means).sum(axis=-1)
            gradient = means - y
            if sample_weight is not None:
                losses *= sample_weight
                gradient *= sample_weight[:, np.newaxis]
            gradient /= len(outputs)
            return float(losses.mean()), gradient


# by scikit-learn's names for the last activation
LOSSES: dict[str, type[Loss]] = {
    "exp": HalfPoissonDeviance,
    "identity": HalfSquaredError,
    "logistic": SummedBinaryCrossentropy,
    "softmax": SparseCategoricalCrossentropy,
}


def reported(loss: Loss | None, value: float, outputs: int) -> float:
    """Return a loss in the form in which scikit-learn reports it, and compares it with `tol`.

    There the squared error is a mean over a sample's outputs, although its gradient is that of
    their sum.
    """
    return value / outputs if isinstance(loss, HalfSquaredError) else value
