"""The network that an estimator's parameters describe, and its weights in scikit-learn's form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastdrop.layers import (
    Activation,
    Array,
    BatchNormalization,
    Dense,
    Dropout,
    Input,
    Layer,
    WeightRule,
)
from fastdrop.models import Sequential
from fastdrop.sklearn.losses import LOSSES

__all__ = ["Design", "dense_layers", "first_weights", "views", "weight_rules"]

# scikit-learn's names, and ours
ACTIVATIONS = {
    "exp": "linear",  # the loss takes logarithms, and prediction applies exp
    "identity": "linear",
    "logistic": "sigmoid",
    "relu": "relu",
    "softmax": "softmax",
    "tanh": "tanh",
}

# Momentum of the means and variances for prediction, low because tables give few batches
MOMENTUM = 0.9


@dataclass(frozen=True)
class Design:
    """Everything that determines a network's layers.

    Attributes
    ----------
    units : tuple of int
        The sizes of all layers: features, hidden units, outputs.
    activation, out_activation : str
        Activations of hidden layers and of the last one, by scikit-learn's names.
    dropout : tuple of float
        Probabilities of dropping before each dense layer: of the input, then of each hidden layer.
    shared_dropout : bool
        Whether all samples of a batch share one mask.
    max_norm : float or None
        The largest norm of the weights into one hidden unit.
    batch_norm : bool
        Whether there is batch normalisation before each hidden activation.
    dtype : str
        "float32" or "float64".
    """

    units: tuple[int, ...]
    activation: str
    out_activation: str
    dropout: tuple[float, ...]
    shared_dropout: bool
    max_norm: float | None
    batch_norm: bool
    dtype: str

    def network(self, seed: int) -> Sequential:
        """Return a network with weights of 0, whose masks have the seed `seed`."""
        features, *hidden, outputs = self.units
        layers: list[Input | Layer] = [Input((features,)), *self._dropout(self.dropout[0])]
        name = ACTIVATIONS[self.activation]
        for units, p in zip(hidden, self.dropout[1:], strict=True):
            first = "linear" if self.batch_norm else name
            layers.append(self._dense(features, units, first, self.max_norm))
            features = units
            if self.batch_norm:
                layers += [BatchNormalization(MOMENTUM), Activation(name)]
            layers += self._dropout(p)
        last = ACTIVATIONS[self.out_activation]
        layers.append(self._dense(features, outputs, last, None))
        model = Sequential(layers, seed=seed, dtype=self.dtype)
        model.network.loss = LOSSES[self.out_activation]()
        return model

    def _dense(self, inputs: int, units: int, activation: str, max_norm: float | None) -> Dense:
        dense = Dense(units, activation, max_norm=max_norm)
        # Memory that nobody has written to yet. An initialiser would write to it three times.
        dense.params = {
            "weight": np.zeros((units, inputs), self.dtype),
            "bias": np.zeros(units, self.dtype),
        }
        return dense

    def _dropout(self, p: float) -> list[Layer]:
        return [Dropout(p, shared_axes=0 if self.shared_dropout else ())] if p else []


def dense_layers(model: Sequential) -> dict[str, Dense]:
    """Return the dense layers by their numbers in the model, as in names of parameters."""
    return {str(n): layer for n, layer in enumerate(model.layers) if isinstance(layer, Dense)}


def views(model: Sequential) -> tuple[list[Array], list[Array]]:
    """Return `coefs_` and `intercepts_`, which are the model's own memory, weights transposed."""
    layers = dense_layers(model).values()
    return [d.params["weight"].T for d in layers], [d.params["bias"] for d in layers]


def first_weights(model: Sequential, activation: str, random: Any) -> None:
    """Draw initial weights and biases by Glorot's uniform rule, in scikit-learn's order."""
    for coef, intercept in zip(*views(model)):
        bound = math.sqrt((2 if activation == "logistic" else 6) / sum(coef.shape))
        coef[...] = random.uniform(-bound, bound, coef.shape)
        intercept[...] = random.uniform(-bound, bound, intercept.shape)


def weight_rules(model: Sequential, alpha: float, total: float) -> dict[str, WeightRule]:
    """Return the rules for the update of weights in a batch with this sum of sample weights."""
    return {
        f"{number}.weight": WeightRule(0.0, alpha / (2 * total), dense.max_norm)
        for number, dense in dense_layers(model).items()
        if alpha or dense.max_norm is not None
    }
