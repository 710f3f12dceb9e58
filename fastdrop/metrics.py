"""Metrics: figures for people to read. Training does not depend on them.

A metric gathers, batch after batch, what its figure for all batches needs::

    metric = metrics.get("accuracy")
    for outputs, y in batches:
        metric.update(outputs, y)
    metric.result()
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastdrop._checks import as_array, as_numbers, check_count, lookup
from fastdrop._quiet import quiet, underflowing
from fastdrop._serialization import Configurable, deserialize, is_ours, serialize
from fastdrop.compiled._losses import count_hits
from fastdrop.layers import ACTIVATIONS, Array, Shape
from fastdrop.losses import LOSSES, Loss, SparseCategoricalCrossentropy
from fastdrop.losses import get as get_loss

__all__ = [
    "AUC",
    "METRICS",
    "Accuracy",
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "FunctionMetric",
    "LossMetric",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "RootMeanSquaredError",
    "SparseCategoricalAccuracy",
    "SparseTopKCategoricalAccuracy",
    "TopKCategoricalAccuracy",
    "get",
    "serialize",
]


class Metric(Configurable):
    """Base class of all metrics: the mean over the samples of a figure that each sample has.

    Parameters
    ----------
    name : str
        The name under which the figure is reported.
    """

    renamed: ClassVar = {
        **{"update_state": "update", "reset_state": "reset", "reset_states": "reset"},
        **dict.fromkeys(("stateless_update_state", "stateless_result", "stateless_reset_state")),
    }

    _counts_hits = False  # whether compiled code may count how often the largest output is right

    def __init__(self, name: str) -> None:
        self.name = name
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._total = 0.0
        self._weight = 0.0

    def update(
        self,
        outputs: Array,
        y: Array,
        from_logits: str | None = None,
        sample_weight: Array | None = None,
    ) -> None:
        """Add a batch.

        Parameters
        ----------
        outputs : ndarray, (samples, ...)
            The model's outputs.
        y : ndarray
            The rows of this batch of what the loss's `targets` returned.
        from_logits : str, optional
            Name of the activation whose inputs (logits) `outputs` are.
        sample_weight : ndarray, (samples,), optional
            Weights of the samples in the mean.

        Raises
        ------
        ValueError
            When the figure does not exist for outputs and labels of these shapes.
        """
        if self._counts_hits and sample_weight is None and is_ours(type(self)):
            hits = count_hits(outputs, y)
            if hits is not None:
                self._total += hits
                self._weight += len(outputs)
                return
        outputs, y, sample_weight = _arrays(outputs, y, sample_weight)
        self._take(self._values(outputs, y, from_logits), sample_weight)

    def _take(self, values: Array, sample_weight: Array | None) -> None:
        """Add the figures of samples, of shape (samples, ...), to the mean."""
        if sample_weight is None:
            total = np.count_nonzero(values) if values.dtype == bool else float(values.sum())
            self._total += total * len(values) / values.size
            self._weight += len(values)
        else:
            samples = values.reshape(len(values), -1).mean(axis=1, dtype=np.float64)
            with quiet():
                self._total += float(samples @ sample_weight)
            self._weight += float(sample_weight.sum())

    def check(self, y: Array, output_shape: Shape, argument: str = "y") -> None:
        """Refuse labels for which the figure does not exist, or has no meaning.

        Parameters
        ----------
        y : ndarray
            As for `update`.
        output_shape : tuple of int
            Shape of one output sample.
        argument : str
            The caller's name for `y`, for messages.

        Raises
        ------
        ValueError
            When the labels do not fit. The message tells what to use instead.
        """

    def merge(self, other: Metric) -> None:
        """Add everything that another metric of the same kind has gathered, for instance on a rank.

        Parameters
        ----------
        other : Metric
            The other metric, which does not change.

        Raises
        ------
        NotImplementedError
            When a class of the user's gathers something else, and does not define this method.
        """
        if type(self).reset is not Metric.reset:
            raise NotImplementedError(
                f"metrics: expected {type(self).__name__} to define merge(other), for several ranks"
            )
        self._total += other._total
        self._weight += other._weight

    def result(self) -> float:
        """Return the figure for all batches since `reset`, or NaN if there are none.

        Returns
        -------
        float
            The figure.
        """
        return self._total / self._weight if self._weight else math.nan

    def _values(self, outputs: Array, y: Array, from_logits: str | None) -> Array:
        """Return figures of shape (samples, ...). All figures of a sample count alike."""
        raise NotImplementedError


class SparseCategoricalAccuracy(Metric):
    """The share of samples whose largest output is the class with number `y`.

    Parameters
    ----------
    name : str
        As for `Metric`.
    """

    _counts_hits = True

    def __init__(self, name: str = "sparse_categorical_accuracy") -> None:
        super().__init__(name)

    def check(self, y: Array, output_shape: Shape, argument: str = "y") -> None:
        _check_shapes(self, output_shape, y, sparse=True)
        _check_choice(self, output_shape)

    def _values(self, outputs: Array, y: Array, from_logits: str | None) -> Array:
        _check_shapes(self, outputs.shape[1:], y, sparse=True)
        return outputs.argmax(axis=-1) == y


class CategoricalAccuracy(Metric):
    """The share of samples whose largest output is where the one-hot `y` is largest.

    Parameters
    ----------
    name : str
        As for `Metric`.
    """

    def __init__(self, name: str = "categorical_accuracy") -> None:
        super().__init__(name)

    def check(self, y: Array, output_shape: Shape, argument: str = "y") -> None:
        _check_shapes(self, output_shape, y)
        _check_choice(self, output_shape)
        _check_classes(self, y, argument)

    def _values(self, outputs: Array, y: Array, from_logits: str | None) -> Array:
        _check_shapes(self, outputs.shape[1:], y)
        return outputs.argmax(axis=-1) == y.argmax(axis=-1)


class BinaryAccuracy(Metric):
    """The share of elements whose output lies on the same side of 1/2 as `y`, which is 0 or 1.

    Parameters
    ----------
    name : str
        As for `Metric`.
    """

    def __init__(self, name: str = "binary_accuracy") -> None:
        super().__init__(name)

    def check(self, y: Array, output_shape: Shape, argument: str = "y") -> None:
        _check_shapes(self, output_shape, y)
        wrong = y * y != y
        if np.count_nonzero(wrong):
            raise ValueError(
                f"metrics: expected labels 0 or 1 in {argument} for {self.name!r}, got "
                f"{y[wrong][0]}; "
                "other numbers need 'mse' or 'mae'"
            )

    def _values(self, outputs: Array, y: Array, from_logits: str | None) -> Array:
        _check_shapes(self, outputs.shape[1:], y)
        if from_logits == "sigmoid":
            return (outputs > 0) == y
        return (_activated(outputs, from_logits) > 0.5) == y


class Accuracy(Metric):
    """The accuracy that fits the shapes, by the rule of Keras's ``metrics=["accuracy"]``.

    A single output is a binary decision. Fewer axes in `y` than in `outputs` mean class numbers.
    Anything else is one-hot.

    Parameters
    ----------
    name : str
        As for `Metric`.
    """

    _counts_hits = True  # for class numbers

    def __init__(self, name: str = "accuracy") -> None:
        super().__init__(name)

    def check(self, y: Array, output_shape: Shape, argument: str = "y") -> None:
        self._kind(y, output_shape).check(self, y, output_shape, argument)

    def _values(self, outputs: Array, y: Array, from_logits: str | None) -> Array:
        return self._kind(y, outputs.shape[1:])._values(self, outputs, y, from_logits)

    def _kind(self, y: Array, output_shape: Shape) -> type[Metric]:
        if y.ndim <= len(output_shape):
            return SparseCategoricalAccuracy
        return BinaryAccuracy if output_shape[-1] == 1 else CategoricalAccuracy


class SparseTopKCategoricalAccuracy(Metric):
    """The share of samples whose class number `y` is among the k largest outputs.

    Where equal outputs leave it open whether it is among them, it counts as if it were.

    Parameters
    ----------
    k : int
        How many of the largest outputs count, at least 1.
    name : str
        As for `Metric`.

    Raises
    ------
    ValueError
        When `k` is below 1.
    """

    def __init__(self, k: int = 5, name: str = "sparse_top_k_categorical_accuracy") -> None:
        check_count("k", k)
        super().__init__(name)
        self.k = k

    def check(self, y: Array, output_shape: Shape, argument: str = "y") -> None:
        _check_shapes(self, output_shape, y, sparse=True)
        _check_choice(self, output_shape, self.k)

    def _values(self, outputs: Array, y: Array, from_logits: str | None) -> Array:
        _check_shapes(self, outputs.shape[1:], y, sparse=True)
        chosen = np.take_along_axis(outputs, y[..., np.newaxis], axis=-1)
        return (np.count_nonzero(outputs > chosen, axis=-1) < self.k) & np.isfinite(chosen[..., 0])


class TopKCategoricalAccuracy(SparseTopKCategoricalAccuracy):
    """The share of samples whose one-hot class `y` is among the k largest outputs.

    Parameters
    ----------
    k, name
        As for `SparseTopKCategoricalAccuracy`.
    """

    def __init__(self, k: int = 5, name: str = "top_k_categorical_accuracy") -> None:
        super().__init__(k, name)

    def check(self, y: Array, output_shape: Shape, argument: str = "y") -> None:
        _check_shapes(self, output_shape, y)
        _check_choice(self, output_shape, self.k)
        _check_classes(self, y, argument)

    def _values(self, outputs: Array, y: Array, from_logits: str | None) -> Array:
        _check_shapes(self, outputs.shape[1:], y)
        return super()._values(outputs, y.argmax(axis=-1), from_logits)


class LossMetric(Metric):
    """A loss as a metric: its mean over all batches.

    Parameters
    ----------
    loss : str, Loss or dict
        As for `fastdrop.losses.get`.
    name : str
        As for `Metric`.
    """

    def __init__(self, loss: str | Loss | Mapping[str, Any], name: str) -> None:
        super().__init__(name)
        self.loss = get_loss(loss)

    def check(self, y: Array, output_shape: Shape, argument: str = "y") -> None:
        _check_shapes(self, output_shape, y, isinstance(self.loss, SparseCategoricalCrossentropy))
        self.loss.check_outputs(output_shape, "metrics")
        if is_ours(type(self.loss)):
            self.loss.targets(y, output_shape, f"metrics, {self.name!r}", y.dtype)

    def update(
        self,
        outputs: Array,
        y: Array,
        from_logits: str | None = None,
        sample_weight: Array | None = None,
    ) -> None:
        outputs, y = as_array("outputs", outputs), as_array("y", y)  # the loss checks the rest
        sparse = isinstance(self.loss, SparseCategoricalCrossentropy)
        _check_shapes(self, outputs.shape[1:], y, sparse)
        folded = from_logits is not None and from_logits == self.loss.folds
        if not folded:
            outputs = _activated(outputs, from_logits)
        value, _ = self.loss(outputs, y, folded, sample_weight)
        self._total += value * len(outputs)
        self._weight += len(outputs) if sample_weight is None else float(np.sum(sample_weight))


class FunctionMetric(Metric):
    """The mean over the samples of what a function computes for them.

    Parameters
    ----------
    function : callable
        ``function(y, outputs)`` takes the labels of a batch, in the shape that the loss takes, and
        the model's outputs. It returns one or several figures for each sample, or a single figure,
        which then counts once for its batch.
    name : str, optional
        As for `Metric`; by default the name of the function.

    Raises
    ------
    ValueError
        In training, when the function returns something else.
    """

    def __init__(self, function: Callable[[Array, Array], Any], name: str | None = None) -> None:
        super().__init__(
            getattr(function, "__name__", type(function).__name__) if name is None else name
        )
        self.function = function

    def update(
        self,
        outputs: Array,
        y: Array,
        from_logits: str | None = None,
        sample_weight: Array | None = None,
    ) -> None:
        values = np.asarray(self.function(y, _activated(outputs, from_logits)))
        if values.ndim == 0 and sample_weight is None:
            values = values.reshape(1)
        elif values.shape[:1] != (len(y),):
            raise ValueError(
                f"metrics: expected {self.name!r} to return a figure for each of {len(y)} samples, "
                f"got shape {values.shape}"
            )
        self._take(values, sample_weight)


class MeanSquaredError(LossMetric):
    """Mean squared error: the mean of (outputs - y)^2.

    Parameters
    ----------
    name : str
        As for `Metric`.
    """

    def __init__(self, name: str = "mean_squared_error") -> None:
        super().__init__("mse", name)


class MeanAbsoluteError(LossMetric):
    """Mean absolute error: the mean of abs(outputs - y).

    Parameters
    ----------
    name : str
        As for `Metric`.
    """

    def __init__(self, name: str = "mean_absolute_error") -> None:
        super().__init__("mae", name)


class RootMeanSquaredError(LossMetric):
    """Root mean squared error: the root of the mean of (outputs - y)^2 over all batches at once.

    Parameters
    ----------
    name : str
        As for `Metric`.
    """

    def __init__(self, name: str = "root_mean_squared_error") -> None:
        super().__init__("mse", name)

    def result(self) -> float:
        return math.sqrt(super().result())


class AUC(Metric):
    """Area under the ROC curve: how likely an element with y = 1 has the larger output [1]_.

    The area is exact, and not read off a number of thresholds as in Keras. Every pair of an element
    with y = 1 and one with y = 0 counts with the product of their weights, or half of it where
    their outputs are equal. Outputs of several columns are taken together, as in Keras. The area is
    NaN where y has only one value.

    Parameters
    ----------
    name : str
        As for `Metric`.

    Notes
    -----
    Outputs, labels and weights of all batches are kept until `reset`, which takes up to 24 bytes
    for each element, and `result` sorts them.

    References
    ----------
    .. [1] Hanley and McNeil 1982, The meaning and use of the area under a receiver operating
       characteristic (ROC) curve, Radiology 143.
    """

    def __init__(self, name: str = "auc") -> None:
        super().__init__(name)

    def reset(self) -> None:
        self._batches: list[tuple[Array, Array, Array]] = []

    def check(self, y: Array, output_shape: Shape, argument: str = "y") -> None:
        _check_shapes(self, output_shape, y)
        wrong = y[(y < 0) | (y > 1)]
        if wrong.size:
            raise ValueError(
                f"metrics: expected labels in [0, 1] in {argument} for {self.name!r}, "
                f"got {wrong[0]}; other numbers need 'mse' or 'mae'"
            )

    def update(
        self,
        outputs: Array,
        y: Array,
        from_logits: str | None = None,
        sample_weight: Array | None = None,
    ) -> None:
        outputs, y, sample_weight = _arrays(outputs, y, sample_weight)
        _check_shapes(self, outputs.shape[1:], y)
        if from_logits != "sigmoid":  # a sigmoid keeps the order, so it is not applied
            outputs = _activated(outputs, from_logits)
        weights = np.ones(len(outputs)) if sample_weight is None else sample_weight
        each = np.repeat(weights, outputs[:1].size)
        self._batches.append((outputs.ravel().copy(), y.ravel().copy(), each))

    def merge(self, other: Metric) -> None:
        assert isinstance(other, AUC)
        self._batches += other._batches

    @underflowing
    def result(self) -> float:
        if not self._batches:
            return math.nan
        outputs, y, weights = map(np.concatenate, zip(*self._batches))
        if np.isnan(outputs).any():
            return math.nan
        _, level = np.unique(outputs, return_inverse=True)
        ones = np.bincount(level, weights * y)
        zeros = np.bincount(level, weights * (1 - y))
        pairs = float(ones.sum() * zeros.sum())
        return float(ones @ (zeros.cumsum() - zeros / 2)) / pairs if pairs else math.nan


def _arrays(
    outputs: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None
) -> tuple[Array, Array, Array | None]:
    weight = None if sample_weight is None else as_numbers("sample_weight", sample_weight)
    return as_numbers("outputs", outputs), as_numbers("y", y), weight


def _check_shapes(metric: Metric, output_shape: Shape, y: Array, sparse: bool = False) -> None:
    """Refuse labels that do not have the outputs' shape, or, if `sparse`, all but its last axis."""
    expected = output_shape[:-1] if sparse else output_shape
    if y.shape[1:] != expected:
        instead = "'accuracy'" if sparse else "one-hot labels, loss='categorical_crossentropy'"
        raise ValueError(
            f"metrics: expected labels of shape {(len(y), *expected)} for {metric.name!r} and "
            f"outputs of shape {(len(y), *output_shape)}, got {y.shape}; try {instead}"
        )


def _check_choice(metric: Metric, output_shape: Shape, k: int = 1) -> None:
    """Refuse to ask whether a class is among the k best of no more than k."""
    classes = output_shape[-1]
    if classes <= k:
        instead = "use 'binary_accuracy'" if classes == 1 else f"choose k below {classes}"
        raise ValueError(
            f"metrics: expected more than {k} outputs for {metric.name!r}, which is always 1 "
            f"otherwise, got {classes}; {instead}"
        )


def _check_classes(metric: Metric, y: Array, argument: str) -> None:
    """Refuse labels that are neither one-hot nor probabilities of classes."""
    wrong = (y.min(axis=-1) < 0) | (np.abs(y.sum(axis=-1) - 1) > 0.01)
    if wrong.any():
        raise ValueError(
            f"metrics: expected labels in {argument} that add up to 1 for {metric.name!r}, got a "
            f"sum of {y[wrong][0].sum():g}; several classes at once need 'binary_accuracy'"
        )


def _activated(outputs: Array, from_logits: str | None) -> Array:
    """Return the activation of its inputs, or the outputs themselves if they are activated."""
    if not from_logits:
        return outputs
    activated, _ = lookup("from_logits", from_logits, ACTIVATIONS)(outputs, None)
    return activated


#: The metrics, by the names that ``compile(metrics=...)`` takes.
METRICS: dict[str, Callable[..., Metric]] = {
    **{name: partial(LossMetric, name) for name in LOSSES},
    "acc": Accuracy,
    "accuracy": Accuracy,
    "auc": AUC,
    "binary_accuracy": BinaryAccuracy,
    "categorical_accuracy": CategoricalAccuracy,
    "root_mean_squared_error": RootMeanSquaredError,
    "sparse_categorical_accuracy": SparseCategoricalAccuracy,
    "sparse_top_k_categorical_accuracy": SparseTopKCategoricalAccuracy,
    "top_k_categorical_accuracy": TopKCategoricalAccuracy,
}


def get(metric: str | Metric | Mapping[str, Any] | Callable[[Array, Array], Any]) -> Metric:
    """Return a metric for its name or description.

    Parameters
    ----------
    metric : str, Metric, dict or callable
        A name in `METRICS`, in upper or lower case, under which the figure is then reported; a
        metric; the description that `serialize` made of one; or a function, see `FunctionMetric`.
        The name of every loss is also the name of a metric.

    Returns
    -------
    Metric
        The metric. One that is given is returned as it is.

    Raises
    ------
    ValueError
        When `metric` is something else.
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, Mapping):
        return deserialize("metrics", metric, Metric)
    if callable(metric) and not isinstance(metric, type):
        return FunctionMetric(metric)
    known = metric.lower() if isinstance(metric, str) else metric
    return lookup("metrics", known, METRICS)(name=metric)
