"""Losses, each of which returns its value and its gradient in one call.

A loss may *fold* an activation: it can take the inputs of the activation (logits) instead of its
outputs. That is exact where probabilities would have to be clipped away from 0 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastdrop._checks import as_array, as_numbers, check_finite, check_number, described, lookup
from fastdrop._quiet import quiet
from fastdrop._serialization import Configurable, deserialize, is_ours, serialize
from fastdrop._typed import short_name
from fastdrop.compiled._losses import are_classes, mean_loss, softmax_cross_entropy
from fastdrop.layers import Array, Shape
from fastdrop.layers.activations import sigmoid
from fastdrop.layers.base import batch_shape

__all__ = [
    "LOSSES",
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "Huber",
    "KLDivergence",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "SparseCategoricalCrossentropy",
    "get",
    "serialize",
]

EPSILON = 1e-7  # as in Keras: probabilities are clipped to [EPSILON, 1 - EPSILON]


class Loss(Configurable):
    """Base class of all losses.

    Attributes
    ----------
    folds : str or None
        Name of the activation whose logits the loss can take.
    from_logits : bool
        Whether the outputs are such logits in every call. This is for a model that ends without
        the activation. With a model that ends with it, it changes nothing: the activation is not
        applied twice.
    """

    renamed: ClassVar = {"call": "__call__"}

    folds: ClassVar[str | None] = None
    from_logits = False
    delta = 1.0  # of Huber
    label_smoothing = 0.0
    # The compiled loop that does what `_losses` does, for logits where the loss folds something.
    _loop: ClassVar[str | None] = None
    _probabilities = False  # whether labels have to lie in [0, 1]
    _compares_classes = False  # whether the loss compares shares of a sum along the last axis
    _shape_hint = ""

    def targets(
        self,
        y: ArrayLike,
        output_shape: Shape,
        argument: str = "y",
        dtype: DTypeLike = np.float32,
    ) -> Array:
        """Check labels against a model's output, and return them in the form that the loss takes.

        Parameters
        ----------
        y : array_like, (samples, ...)
            The labels, with `output_shape` after the samples. An axis of size 1 at the end may be
            left out.
        output_shape : tuple of int
            Shape of one output sample.
        argument : str
            The caller's name for `y`, for messages.
        dtype : dtype
            The dtype of the model's outputs.

        Returns
        -------
        ndarray
            The labels as `dtype`, in the shape (samples, ...) of the outputs. It may be `y` itself.

        Raises
        ------
        ValueError
            When the shape, the type or the values do not fit.
        """
        array = _numbers(y, argument)
        if output_shape[-1:] == (1,) and array.shape[1:] == output_shape[:-1]:
            array = array[..., np.newaxis]
        if array.shape[1:] != output_shape:
            raise ValueError(
                f"{argument}: expected shape {batch_shape(output_shape)} for this loss and model, "
                f"got {np.shape(y)}{self._shape_hint}"
            )
        if not self._probabilities:
            check_finite(argument, array, dtype)
        elif not ((array >= 0) & (array <= 1)).all():
            raise ValueError(
                f"{argument}: expected values in [0, 1] for this loss, "
                f"got {array.min()} to {array.max()}"
            )
        with quiet():
            return array.astype(dtype, copy=False)

    def check_outputs(self, output_shape: Shape, argument: str = "loss") -> None:
        """Refuse outputs of a shape for which the loss has no meaning.

        Parameters
        ----------
        output_shape : tuple of int
            Shape of one output sample.
        argument : str
            The caller's name for the loss, for messages.

        Raises
        ------
        ValueError
            When there is one output only, and the loss compares outputs with each other.
        """
        if self._compares_classes and output_shape[-1:] == (1,):
            raise ValueError(
                f"{argument}: expected two outputs or more for {type(self).__name__}, which "
                "compares shares of a sum, got one; use 'binary_crossentropy'"
            )

    def __call__(
        self,
        outputs: Array,
        y: Array,
        from_logits: bool = False,
        sample_weight: Array | None = None,
    ) -> tuple[float, Array]:
        """Return the loss of a batch and its gradient with respect to `outputs`.

        Parameters
        ----------
        outputs : ndarray, (samples, ...)
            The model's outputs.
        y : ndarray
            The rows of this batch of what `targets` returned.
        from_logits : bool
            Whether `outputs` are logits of the activation that the loss folds.
        sample_weight : ndarray, (samples,), optional
            Factors of the samples' losses.

        Returns
        -------
        value : float
            Mean loss over the batch, NaN where `outputs` are NaN. Weights do not change the number
            that the sum is divided by, as in Keras ("sum_over_batch_size").
        gradient : ndarray
            Gradient of this mean, with the shape and dtype of `outputs`.
        """
        outputs, y = as_numbers("outputs", outputs), as_numbers("y", y)
        if sample_weight is not None:
            sample_weight = as_numbers("sample_weight", sample_weight)
        if is_ours(type(self)):
            found = self.compiled(outputs, y, from_logits, sample_weight)
            if found is not None:
                return found
        with np.errstate(all="ignore"):  # the value itself shows when something is not finite
            losses, gradient = self._losses(outputs, y, from_logits or self.from_logits)
            scale: Any = 1 / losses.size
            if sample_weight is None:
                value = float(losses.sum()) * scale
            else:
                scale = np.asarray(sample_weight * scale, gradient.dtype)
                value = float((losses * _column(scale, losses)).sum())
                scale = _column(scale, gradient)
            gradient *= scale
        return value, gradient

    def compiled(
        self, outputs: Array, y: Array, from_logits: bool, sample_weight: Array | None
    ) -> tuple[float, Array] | None:
        """Compute in compiled code what a call of one of our own classes returns.

        Parameters
        ----------
        outputs, y, from_logits, sample_weight
            As for a call.

        Returns
        -------
        tuple of float and ndarray, or None
            The value and the gradient. None if there is no compiled code for these arguments.
        """
        logits = from_logits or self.from_logits
        if self._loop is None or (self.folds is not None and not logits):
            return None
        if self.label_smoothing:
            y = self._smoothed(y)
        return mean_loss(self._loop, outputs, y, sample_weight, self.delta)

    def _smoothed(self, y: Array) -> Array:
        """Return the labels that the loss compares the outputs with."""
        return y

    def _losses(self, outputs: Array, y: Array, from_logits: bool) -> tuple[Array, Array]:
        """Return the losses to average, and the gradient of their sum in a new array."""
        raise NotImplementedError

    def _as_argument(self) -> str:
        """Return how it is written as an argument: by its name, if that is all there is to say."""
        return short_name(self, LOSSES)


class MeanSquaredError(Loss):
    """Mean squared error: the mean of (outputs - y)^2."""

    _loop = "squared"

    def _losses(self, outputs: Array, y: Array, from_logits: bool) -> tuple[Array, Array]:
        error = outputs - y
        return error * error, 2 * error


class MeanAbsoluteError(Loss):
    """Mean absolute error: the mean of abs(outputs - y)."""

    _loop = "absolute"

    def _losses(self, outputs: Array, y: Array, from_logits: bool) -> tuple[Array, Array]:
        error = outputs - y
        return np.abs(error), np.sign(error)


class Huber(Loss):
    """Huber loss: quadratic for small errors, linear for large ones [1]_.

    With e = outputs - y it is the mean of e^2 / 2 where abs(e) <= delta, and of
    delta (abs(e) - delta / 2) elsewhere.

    Parameters
    ----------
    delta : float
        Where the parabola ends and the straight line begins, above 0.

    Raises
    ------
    ValueError
        When `delta` is not above 0.

    References
    ----------
    .. [1] Huber 1964, Robust estimation of a location parameter, Annals of Mathematical Statistics.
    """

    _loop = "huber"

    def __init__(self, delta: float = 1.0) -> None:
        check_number("delta", delta, above_zero=True)
        self.delta = delta

    def _losses(self, outputs: Array, y: Array, from_logits: bool) -> tuple[Array, Array]:
        error = outputs - y
        gradient = np.clip(error, -self.delta, self.delta)
        return gradient * (error - gradient / 2), gradient


class KLDivergence(Loss):
    """Kullback-Leibler divergence of two distributions.

    It is sum(y log(y / outputs)) over the last axis, averaged over the batch. The labels y are
    probabilities.
    """

    _probabilities = _compares_classes = True

    def _losses(self, outputs: Array, y: Array, from_logits: bool) -> tuple[Array, Array]:
        y, q = np.clip(y, EPSILON, 1), np.clip(outputs, EPSILON, 1)
        return (y * np.log(y / q)).sum(axis=-1), np.where(q == outputs, -y / q, 0)


class CategoricalCrossentropy(Loss):
    """Categorical cross-entropy, for labels that are one-hot or probabilities.

    It is -sum(y log(outputs)) over the classes, averaged over the batch. Outputs that do not add
    up to 1 are divided by their sum, as in Keras.

    Parameters
    ----------
    from_logits : bool
        Whether the model ends without softmax, which is then part of the loss.
    label_smoothing : float
        Share of each label that is spread evenly over the classes, in [0, 1) [1]_.

    Raises
    ------
    ValueError
        When `label_smoothing` is outside [0, 1).

    References
    ----------
    .. [1] Szegedy et al. 2016, Rethinking the Inception architecture for computer vision, CVPR.
    """

    folds = "softmax"
    _loop = "softmax"
    _probabilities = _compares_classes = True
    _shape_hint = "; class numbers need loss='sparse_categorical_crossentropy'"

    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0) -> None:
        self.from_logits = from_logits
        check_number("label_smoothing", label_smoothing, below=1)
        self.label_smoothing = label_smoothing

    def _smoothed(self, y: Array) -> Array:
        if not self.label_smoothing:
            return y
        return y * (1 - self.label_smoothing) + self.label_smoothing / y.shape[-1]

    def _losses(self, outputs: Array, y: Array, from_logits: bool) -> tuple[Array, Array]:
        y = self._smoothed(y)
        if from_logits:
            return _from_logits(outputs, y)
        total = outputs.sum(axis=-1, keepdims=True)
        q = outputs / total
        clipped = np.clip(q, EPSILON, 1 - EPSILON)
        losses = -(y * np.log(clipped)).sum(axis=-1)
        dq = np.where(clipped == q, -y / clipped, 0)  # a clipped value has no gradient
        return losses, (dq - (dq * q).sum(axis=-1, keepdims=True)) / total


class SparseCategoricalCrossentropy(Loss):
    """Categorical cross-entropy for labels that are class numbers.

    Parameters
    ----------
    from_logits : bool
        As for `CategoricalCrossentropy`.
    """

    folds = "softmax"
    _loop = "softmax"
    _compares_classes = True

    def __init__(self, from_logits: bool = False) -> None:
        self.from_logits = from_logits

    def targets(
        self,
        y: ArrayLike,
        output_shape: Shape,
        argument: str = "y",
        dtype: DTypeLike = np.float32,
    ) -> Array:
        """Check class numbers, see `Loss.targets`.

        Parameters
        ----------
        y : array_like, (samples, ...)
            Whole numbers in [0, classes), of any numeric type, where classes is output_shape[-1].
            The shape is that of the outputs without the classes, or with an axis of size 1 in
            their place.
        output_shape, argument, dtype
            As for `Loss.targets`.

        Returns
        -------
        ndarray of intp
            The class numbers, in the shape of the outputs without the classes.

        Raises
        ------
        ValueError
            When the shape, the type or the values do not fit.
        """
        if type(y) is np.ndarray and are_classes(y, output_shape):
            return y  # the quick check first, as this may be a single label
        array = _numbers(y, argument)
        if array.shape[1:] == (*output_shape[:-1], 1):
            array = array[..., 0]
        if array.shape[1:] != output_shape[:-1]:
            raise ValueError(
                f"{argument}: expected shape {batch_shape(output_shape[:-1])}, one class number "
                f"each, got {np.shape(y)}; one-hot labels need loss='categorical_crossentropy'"
            )
        if are_classes(array, output_shape):
            return array
        classes = output_shape[-1]
        right = (array >= 0) & (array < classes)
        if array.dtype.kind == "f":
            right &= array == np.trunc(array)
        wrong = array[~right]
        if wrong.size:
            raise ValueError(
                f"{argument}: expected whole numbers in [0, {classes}), the model's classes, "
                f"got {wrong[0]}"
            )
        return array.astype(np.intp, copy=False)

    def _losses(self, outputs: Array, y: Array, from_logits: bool) -> tuple[Array, Array]:
        if from_logits:
            return _from_logits(outputs, y)
        table = outputs.reshape(-1, outputs.shape[-1])
        chosen = np.arange(len(table)), y.ravel()  # by index: no one-hot array is made
        total = table.sum(axis=-1)
        q = table[chosen] / total
        clipped = np.clip(q, EPSILON, 1 - EPSILON)
        losses = -np.log(clipped)
        slope = np.where(clipped == q, 1 / (clipped * total), 0)  # none where it is clipped
        gradient = np.empty_like(table)
        gradient[...] = (slope * q)[:, np.newaxis]
        gradient[chosen] -= slope
        return losses.reshape(y.shape), gradient.reshape(outputs.shape)


class BinaryCrossentropy(Loss):
    """Binary cross-entropy: each output is the probability of a class of its own.

    It is the mean over all elements of -(y log(outputs) + (1 - y) log(1 - outputs)).

    Parameters
    ----------
    from_logits : bool
        Whether the model ends without the sigmoid, which is then part of the loss.
    label_smoothing : float
        How far labels are drawn towards 1/2, in [0, 1).

    Raises
    ------
    ValueError
        When `label_smoothing` is outside [0, 1).
    """

    folds = "sigmoid"
    _loop = "sigmoid"
    _probabilities = True

    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0) -> None:
        self.from_logits = from_logits
        check_number("label_smoothing", label_smoothing, below=1)
        self.label_smoothing = label_smoothing

    def _smoothed(self, y: Array) -> Array:
        if not self.label_smoothing:
            return y
        return y * (1 - self.label_smoothing) + self.label_smoothing / 2

    def _losses(self, outputs: Array, y: Array, from_logits: bool) -> tuple[Array, Array]:
        y = self._smoothed(y)
        if from_logits:
            losses = np.maximum(outputs, 0) - outputs * y + np.log1p(np.exp(-np.abs(outputs)))
            return losses, sigmoid(outputs) - y
        q = np.clip(outputs, EPSILON, 1 - EPSILON)
        losses = -(y * np.log(q) + (1 - y) * np.log(1 - q))
        return losses, np.where(q == outputs, (q - y) / (q * (1 - q)), 0)


def _from_logits(z: Array, y: Array) -> tuple[Array, Array]:
    """Return the cross-entropies of softmax(z), and the gradient of their sum.

    y has either class numbers, with one axis less than z, or probabilities.
    """
    classes, plain = z.shape[-1], np.float32 if z.dtype == np.float32 else np.float64
    targets = y.reshape(-1, y.shape[-1]) if y.ndim == z.ndim else y.ravel()
    losses, gradient = softmax_cross_entropy(
        np.ascontiguousarray(z.reshape(-1, classes), plain),
        np.ascontiguousarray(targets, plain if targets.ndim == 2 else np.intp),
    )
    gradient = gradient.astype(z.dtype, copy=False)
    return losses.reshape(z.shape[:-1]), gradient.reshape(z.shape)


def _column(weights: Array, like: Array) -> Array:
    return weights.reshape(-1, *(1,) * (like.ndim - 1))


def _numbers(y: ArrayLike, argument: str) -> Array:
    array = as_array(argument, y)
    if array.dtype.kind not in "biuf" or not array.ndim:
        raise ValueError(f"{argument}: expected an array of numbers, got {described(array)}")
    return array


#: The losses, by the names that ``compile(loss=...)`` takes.
LOSSES: dict[str, type[Loss]] = {
    "bce": BinaryCrossentropy,
    "binary_crossentropy": BinaryCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "huber": Huber,
    "kl_divergence": KLDivergence,
    "kld": KLDivergence,
    "kullback_leibler_divergence": KLDivergence,
    "mae": MeanAbsoluteError,
    "mean_absolute_error": MeanAbsoluteError,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
}


def get(loss: str | Loss | Mapping[str, Any]) -> Loss:
    """Return a loss for its name or description.

    Parameters
    ----------
    loss : str, Loss or dict
        A name in `LOSSES`, in upper or lower case; a loss; or the description that `serialize`
        made of one.

    Returns
    -------
    Loss
        The loss. A loss that is given is returned as it is.

    Raises
    ------
    ValueError
        When `loss` is something else.
    """
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, Mapping):
        return deserialize("loss", loss, Loss)
    return lookup("loss", loss.lower() if isinstance(loss, str) else loss, LOSSES)()
