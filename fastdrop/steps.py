"""What a model computes on one batch: forward, loss, backward, update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastdrop.layers import Array, Backward
from fastdrop.random import Key

if TYPE_CHECKING:
    from fastdrop.models import Sequential

__all__ = ["Step"]


class Step:
    """The computation of one `fit`, `evaluate` or `predict`, batch by batch.

    Outputs may be rewritten by the next call.

    Parameters
    ----------
    model : Sequential
        A built one; compiled, except for `predict`.
    """

    def __init__(self, model: Sequential) -> None:
        self.model = model
        last = model.layers[-1].activation
        # Training and testing work from logits where the loss folds the last activation.
        self.from_logits = model.loss is not None and model.loss.folds == last

    def train(
        self, x: Array, y: Array, sample_weight: Array | None = None
    ) -> tuple[float, Array, bool]:
        """Take one optimiser step; the model's own counter of steps is left to the caller.

        Parameters
        ----------
        x : ndarray, (samples, ...)
            A batch of finite numbers of any type.
        y : ndarray
            The batch's part of what the loss's ``targets`` returned.
        sample_weight : ndarray, (samples,), optional
            Of the model's dtype.

        Returns
        -------
        loss : float
            Of the batch before the update, penalties of layers included.
        outputs : ndarray
            The model's, before the update.
        from_logits : bool
            Whether they stop before the last activation.
        """
        optimizer = self.model.optimizer
        assert optimizer is not None  # `fit` has checked it
        outputs, backwards = self._forward(x, training=True, logits=self.from_logits)
        loss, dy = self._loss(outputs, y, sample_weight)
        self._backward(backwards, dy)
        optimizer.update(self.model.params, self.model.grads)
        return loss, outputs, self.from_logits

    def test(
        self, x: Array, y: Array, sample_weight: Array | None = None
    ) -> tuple[float, Array, bool]:
        """Return what `train` returns, at inference and without an update."""
        outputs, _ = self._forward(x, training=False, logits=self.from_logits)
        loss, _ = self._loss(outputs, y, sample_weight)
        return loss, outputs, self.from_logits

    def predict(self, x: Array, training: bool = False) -> Array:
        """Return the model's outputs for the batch `x`."""
        outputs, _ = self._forward(x, training, logits=False)
        return outputs

    def _loss(self, outputs: Array, y: Array, sample_weight: Array | None) -> tuple[float, Array]:
        loss = self.model.loss
        assert loss is not None  # `fit` and `evaluate` have checked it
        weighted = {} if sample_weight is None else {"sample_weight": sample_weight}
        value, dy = loss(outputs, y, self.from_logits, **weighted)
        return value + sum(layer.penalty() for layer in self.model.layers), dy

    def _forward(self, x: Array, training: bool, logits: bool) -> tuple[Array, list[Backward]]:
        model = self.model
        x = x.astype(np.float32, copy=False)
        backwards = []
        rows = len(x)
        for number, layer in enumerate(model.layers):
            forward = layer.forward
            if logits and number == len(model.layers) - 1:
                forward = layer.forward_logits
            key = Key(Key(model.seed).fold_in(number).seed, model.step) if training else None
            x, backward = forward(x, training, key=key, rows=rows)
            if training:
                backwards.append(backward)
        return x, backwards

    def _backward(self, backwards: Sequence[Backward], dy: Array) -> None:
        layers = self.model.layers
        first = next((n for n, layer in enumerate(layers) if layer.params), len(layers))
        for number in reversed(range(first, len(layers))):
            if number == first:
                backwards[number](dy, need_dx=False)
            else:
                dy = backwards[number](dy)
