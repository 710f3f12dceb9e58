"""How far one can trust what a model tells about its own uncertainty: plain functions of arrays.

Probabilities, logits and intervals may come from any library. Wherever a function asks for
classes, it takes arrays of one of two forms::

    (samples, classes)         a probability or a logit for each class
    (samples,) or (samples, 1) the output of a sigmoid: class 1 against class 0

Labels are the numbers of classes, of shape (samples,). Everything is computed in float64.
`fastdrop.diagrams` draws the results, and docs/how-to/calibration.md explains how to use them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdrop._checks import as_numbers, check_number, checked_count
from fastdrop._quiet import underflowing

__all__ = [
    "Reliability",
    "RiskCoverage",
    "apply_temperature",
    "expected_calibration_error",
    "fit_temperature",
    "interval_coverage",
    "reliability_diagram",
    "risk_coverage",
]

Array: TypeAlias = NDArray[Any]

SUM_TOLERANCE = 0.01  # for the sum of a row of probabilities in half precision
NEWTON_STEPS = 200  # a bisection alone would need about 60


class Reliability(NamedTuple):
    """A reliability diagram: a model's confidence, and how often it is right at this confidence.

    Attributes
    ----------
    edges : ndarray, (bins + 1,)
        Bin i has the samples whose confidence is in (edges[i], edges[i + 1]]. The first bin also
        has those of confidence 0.
    confidence : ndarray, (bins,)
        The mean confidence of each bin's samples, NaN where a bin is empty.
    accuracy : ndarray, (bins,)
        The share of each bin's samples whose class is right, NaN where a bin is empty.
    counts : ndarray of int, (bins,)
        The number of samples of each bin.
    """

    edges: Array
    confidence: Array
    accuracy: Array
    counts: Array

    @property
    def error(self) -> float:
        """The expected calibration error, see `expected_calibration_error`."""
        some = self.counts > 0
        gaps = np.abs(self.accuracy[some] - self.confidence[some])
        return float(self.counts[some] @ gaps / self.counts.sum())


class RiskCoverage(NamedTuple):
    """How large the loss is when the least certain samples are left to somebody else.

    Attributes
    ----------
    coverage : ndarray, (samples,)
        The share of samples that are answered: 1 / samples, 2 / samples, ..., 1.
    risk : ndarray, (samples,)
        The mean loss of the samples that are answered, which are the most certain ones.
    """

    coverage: Array
    risk: Array

    @property
    def area(self) -> float:
        """The area under the curve: the mean of `risk`. The better the order, the smaller it is."""
        return float(self.risk.mean())


def reliability_diagram(probabilities: ArrayLike, y: ArrayLike, bins: int = 15) -> Reliability:
    """Compare confidence with accuracy, in bins of equal width.

    A sample's confidence is the probability of its most likely class. A calibrated model is right
    in 80 % of the cases in which its confidence is 0.8.

    Parameters
    ----------
    probabilities : array-like, (samples, classes), (samples,) or (samples, 1)
        The probabilities that the model gives.
    y : array-like of int, (samples,)
        The right classes.
    bins : int
        The number of bins.

    Returns
    -------
    Reliability
        The mean confidence, the accuracy and the number of samples of each bin.

    Raises
    ------
    ValueError
        When there are no samples, the rows are not probabilities, the labels do not fit them, or
        bins is below 1.

    References
    ----------
    DeGroot and Fienberg 1983, The comparison and evaluation of forecasters, The Statistician 32.
    Guo, Pleiss, Sun and Weinberger 2017, On calibration of modern neural networks, ICML, section 2.
    """
    bins = checked_count("bins", bins)
    table, labels = _decisions("probabilities", probabilities, y)
    _check_probabilities(table)
    confidence = np.minimum(table.max(axis=1), 1)  # a mean of many may exceed 1 by some ulps
    right = table.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    place = np.maximum(np.searchsorted(edges, confidence, side="left") - 1, 0)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        means = [np.bincount(place, values, bins) / count for values in (confidence, right)]
    return Reliability(edges, means[0], means[1], count)


def expected_calibration_error(probabilities: ArrayLike, y: ArrayLike, bins: int = 15) -> float:
    """Return the mean distance between confidence and accuracy over the bins.

    The bins are those of `reliability_diagram`, weighted by their numbers of samples:
    ``sum(count * abs(accuracy - confidence)) / sum(count)``. The figure depends on the number of
    bins, and is too high on average where bins have few samples. So compare figures only if both
    have the same bins and numbers of samples.

    Parameters
    ----------
    probabilities, y, bins
        As for `reliability_diagram`.

    Returns
    -------
    float
        A number in [0, 1]. It is 0 for a calibrated model.

    Raises
    ------
    ValueError
        As for `reliability_diagram`.

    References
    ----------
    Naeini, Cooper and Hauskrecht 2015, Obtaining well calibrated probabilities using Bayesian
    binning into quantiles, AAAI.
    Guo, Pleiss, Sun and Weinberger 2017, On calibration of modern neural networks, ICML,
    equation 3.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdrop.calibration import expected_calibration_error
    >>> p = np.array([0.9, 0.9, 0.9, 0.9])  # of class 1, by a sigmoid
    >>> round(expected_calibration_error(p, [1, 1, 1, 0]), 3)  # right in 3 of 4 cases
    0.15
    """
    return reliability_diagram(probabilities, y, bins).error


@underflowing
def fit_temperature(logits: ArrayLike, y: ArrayLike) -> float:
    """Return the temperature at which logits explain held-out labels best.

    This is the T > 0 at which the mean of ``-log(softmax(logits / T)[y])`` is least. A temperature
    does not change the order of the classes, so the accuracy stays as it is. T > 1 means that the
    model was too sure. Use samples that the model was not trained on. ``np.log(probabilities)``
    are logits, too.

    Parameters
    ----------
    logits : array-like, (samples, classes), (samples,) or (samples, 1)
        The model's logits; -inf marks a class that is ruled out.
    y : array-like of int, (samples,)
        The right classes.

    Returns
    -------
    float
        The temperature T.

    Raises
    ------
    ValueError
        When there are no samples, logits are NaN or infinite, or the labels do not fit them. Also
        when there is no such T: when no logit is larger than the logit of the label, T would have
        to be 0; when the logits make the labels no likelier, T would have to be infinite.

    Notes
    -----
    The mean is convex in 1 / T, so there is only one minimum. Newton's method finds it; a step that
    would leave the bracket goes to its middle instead.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger 2017, On calibration of modern neural networks, ICML,
    section 4.2.
    """
    z, labels = _decisions("logits", logits, y)
    _check_logits(z, labels)
    z = z - z.max(axis=1, keepdims=True)  # at most 0
    chosen = z[np.arange(len(z)), labels]
    if not chosen.any():
        raise ValueError(
            "logits: expected some sample whose label does not have the largest logit, got none "
            f"among {len(z)}; the best temperature would be 0"
        )
    if z.mean() >= chosen.mean():
        raise ValueError(
            "logits: expected larger logits for labels than for other classes on average, got none "
            "larger; the best temperature would be infinite"
        )
    unit = -float(chosen.min())  # unit of 1 / T, which makes the search independent of scale
    z, chosen = z / unit, chosen / unit

    def slopes(inverse: float) -> tuple[float, float]:
        """Return the first and second derivative of the mean by 1 / T."""
        weights = np.exp(inverse * z)
        weights /= weights.sum(axis=1, keepdims=True)
        finite = np.where(weights > 0, z, 0)  # so that 0 * -inf is 0
        mean = (weights * finite).sum(axis=1)
        spread = (weights * (finite - mean[:, np.newaxis]) ** 2).sum(axis=1)
        return float((mean - chosen).mean()), float(spread.mean())

    low, high, inverse = 0.0, math.inf, 1.0
    for _ in range(NEWTON_STEPS):
        slope, curve = slopes(inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curve if curve > 0 else math.inf
        if not low < step < high:
            step = 2 * inverse if high == math.inf else (low + high) / 2
        if abs(step - inverse) <= 1e-14 * inverse:
            break
        inverse = step
    return unit / inverse


@underflowing
def apply_temperature(logits: ArrayLike, temperature: float) -> Array:
    """Return the probabilities of logits at a temperature: ``softmax(logits / temperature)``.

    Parameters
    ----------
    logits : array-like, (samples, classes), (samples,) or (samples, 1)
        The model's logits.
    temperature : float
        Above 0; `fit_temperature` finds it.

    Returns
    -------
    ndarray
        Probabilities with the shape and float type of the logits: those of a sigmoid where each
        sample has one logit, else those of a softmax.

    Raises
    ------
    ValueError
        When there are no samples, logits are NaN or infinite, or the temperature is not above 0.
    """
    check_number("temperature", temperature, above_zero=True)
    given = as_numbers("logits", logits)
    z, _ = _decisions("logits", given, None)
    _check_logits(z)
    weights = np.exp((z - z.max(axis=1, keepdims=True)) / temperature)
    weights /= weights.sum(axis=1, keepdims=True)
    y = weights if z.shape == given.shape else weights[:, 1].reshape(given.shape)
    return y.astype(given.dtype if given.dtype.kind == "f" else np.float64, copy=False)


def risk_coverage(uncertainty: ArrayLike, loss: ArrayLike) -> RiskCoverage:
    """Return the loss of the samples that a model is most certain of, for every number of them.

    Parameters
    ----------
    uncertainty : array-like, (samples,)
        What orders the samples: entropy, mutual information, a standard deviation, or the
        confidence with a minus sign. The samples with the smallest numbers are answered first.
    loss : array-like, (samples,)
        The cost of each answer: ``predicted != y``, or a squared error.

    Returns
    -------
    RiskCoverage
        The curve. Where samples are equally uncertain, it is the mean over all orders of these
        samples, so the order of the rows does not matter.

    Raises
    ------
    ValueError
        When there are no samples, the arrays differ in length, or numbers are NaN or infinite.

    References
    ----------
    El-Yaniv and Wiener 2010, On the foundations of noise-free selective classification, JMLR 11.
    Geifman and El-Yaniv 2017, Selective classification for deep neural networks, NeurIPS.
    Geifman, Uziel and El-Yaniv 2019, Bias-reduced uncertainty estimation for deep neural
    classifiers, ICLR (the area).

    Examples
    --------
    >>> from fastdrop.calibration import risk_coverage
    >>> curve = risk_coverage([0.1, 0.2, 0.9, 0.4], [0, 0, 1, 0])
    >>> curve.risk
    array([0.  , 0.  , 0.  , 0.25])
    >>> curve.area
    0.0625
    """
    order = _column("uncertainty", uncertainty)
    cost = _column("loss", loss)
    if len(cost) != len(order):
        raise ValueError(f"loss: expected {len(order)} samples as in uncertainty, got {len(cost)}")
    for argument, values in (("uncertainty", order), ("loss", cost)):
        if not np.isfinite(values).all():
            raise ValueError(f"{argument}: expected finite numbers, got NaN or infinity")
    _, level, size = np.unique(order, return_inverse=True, return_counts=True)
    mean = np.bincount(level, cost) / size
    number = np.arange(1, len(cost) + 1)
    return RiskCoverage(number / len(cost), np.repeat(mean, size).cumsum() / number)


def interval_coverage(lower: ArrayLike, upper: ArrayLike, y: ArrayLike) -> float:
    """Return the share of values that lie within their intervals, including the bounds.

    For intervals that claim to hold 90 % of the values, it should be about 0.9.

    Parameters
    ----------
    lower, upper : array-like, (samples,) or (samples, outputs)
        The bounds of the intervals. An infinite bound leaves an interval open.
    y : array-like
        The values, in the shape of the bounds.

    Returns
    -------
    float
        A share in [0, 1].

    Raises
    ------
    ValueError
        When there are no samples, shapes differ, numbers are NaN, or a lower bound is above its
        upper bound.

    References
    ----------
    Khosravi, Nahavandi, Creighton and Atiya 2011, Comprehensive review of neural network-based
    prediction intervals and new advances, IEEE Transactions on Neural Networks 22 (PICP).
    Kuleshov, Fenner and Ermon 2018, Accurate uncertainties for deep learning using calibrated
    regression, ICML.
    """
    values = {"lower": lower, "upper": upper, "y": y}
    below, above, target = (_flat(name, value) for name, value in values.items())
    for argument, array in (("upper", above), ("y", target)):
        if array.shape != below.shape:
            raise ValueError(
                f"{argument}: expected shape {below.shape} as lower's, got {array.shape}"
            )
    for argument, array in (("lower", below), ("upper", above), ("y", target)):
        if np.isnan(array).any():
            raise ValueError(f"{argument}: expected numbers, got NaN")
    wrong = below > above
    if wrong.any():
        raise ValueError(
            f"lower: expected at most upper, got {below[wrong][0]:g} and {above[wrong][0]:g}"
        )
    return float(((below <= target) & (target <= above)).mean())


def _flat(argument: str, value: ArrayLike) -> Array:
    """Return at least one sample as an array of float64, without a last axis of length 1."""
    array = as_numbers(argument, value)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2) or not array.size:
        raise ValueError(
            f"{argument}: expected some samples, of shape (samples,) or (samples, n), "
            f"got shape {array.shape}"
        )
    return array.astype(np.float64)


def _column(argument: str, value: ArrayLike) -> Array:
    array = _flat(argument, value)
    if array.ndim != 1:
        raise ValueError(f"{argument}: expected shape (samples,), got {array.shape}")
    return array


def _decisions(argument: str, outputs: ArrayLike, y: ArrayLike | None) -> tuple[Array, Array]:
    """Return outputs as (samples, classes), with two classes for a sigmoid, and the labels.

    Class 0 of a sigmoid has the logit 0, or the probability that is left of 1.
    """
    table = _flat(argument, outputs)
    if table.ndim == 1:
        other = 1 - table if argument == "probabilities" else np.zeros(len(table))
        table = np.stack([other, table], axis=1)
    if y is None:
        return table, np.empty(0, np.intp)
    labels = _flat("y", y)
    samples, classes = table.shape
    if labels.shape != (samples,):
        hint = "; one-hot labels need .argmax(axis=1)" if labels.ndim == 2 else ""
        raise ValueError(
            f"y: expected class numbers of shape ({samples},) as {argument} has samples, "
            f"got shape {labels.shape}{hint}"
        )
    wrong = ~((labels >= 0) & (labels < classes) & (labels == np.floor(labels)))
    if wrong.any():
        raise ValueError(
            f"y: expected class numbers from 0 to {classes - 1}, got {labels[wrong][0]:g}"
        )
    return table, labels.astype(np.intp)


def _check_probabilities(table: Array) -> None:
    inside = (table >= -SUM_TOLERANCE) & (table <= 1 + SUM_TOLERANCE)  # False for NaN
    if not inside.all():
        raise ValueError(
            f"probabilities: expected numbers in [0, 1], got {table[~inside][0]:g}; "
            "apply_temperature(logits, 1) turns logits into probabilities"
        )
    sums = table.sum(axis=1)
    wrong = np.abs(sums - 1) > SUM_TOLERANCE
    if wrong.any():
        raise ValueError(
            f"probabilities: expected rows that add up to 1, got a sum of {sums[wrong][0]:g}"
        )


def _check_logits(z: Array, labels: Array | None = None) -> None:
    """Refuse logits that have no softmax. A class may have -inf, unless it is a label."""
    if np.isnan(z).any() or (z == math.inf).any() or not np.isfinite(z.max(axis=1)).all():
        raise ValueError("logits: expected finite numbers or -inf, got NaN, infinity or only -inf")
    if labels is not None and not np.isfinite(z[np.arange(len(z)), labels]).all():
        raise ValueError(
            "logits: expected finite numbers for the classes in y, got -inf: these classes were "
            "ruled out but occur, so no temperature fits"
        )
