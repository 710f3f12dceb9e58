"""What a trained network's answers on the validation part say: plain functions of arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fastdrop.calibration import (
    Reliability,
    apply_temperature,
    fit_temperature,
    reliability_diagram,
)
from fastdrop.layers import Array
from fastdrop.random import Key, permutation

__all__ = [
    "Answers",
    "Calibration",
    "Column",
    "Example",
    "Importance",
    "calibration",
    "classified",
    "confusion",
    "estimated",
    "importance",
    "least_certain",
    "wrongest",
]

SMALLEST = 1e-12  # probability, so that its logarithm is finite
HALVES = 2**41  # folded into the seed for the halves of the validation part
SHUFFLES = 2**42  # and for the columns' orders; no layer has these numbers
BINS = 10


class Answers(NamedTuple):
    """What a network says of each sample, and what is true.

    Attributes
    ----------
    y : ndarray, (samples,)
        Class numbers, or a regression's true values.
    predicted : ndarray, (samples,)
        Of the same kind.
    probabilities : ndarray, (samples, classes), or None
        None for a regression.
    loss : ndarray, (samples,)
        The negative logarithm of the true class's probability, or the absolute error.
    """

    y: Array
    predicted: Array
    probabilities: Array | None
    loss: Array

    @property
    def uncertainty(self) -> Array:
        """Return each sample's entropy; only of a classification."""
        assert self.probabilities is not None
        p = np.maximum(self.probabilities, SMALLEST)
        return -(p * np.log(p)).sum(axis=1)


class Calibration(NamedTuple):
    """A reliability diagram before and after temperature scaling.

    The temperature is fitted on one half of the validation part, and both diagrams are of the
    other: else the second would praise itself.

    Attributes
    ----------
    before, after : Reliability
        `after` is None where there is no best temperature.
    temperature : float
        NaN where there is none.
    samples : int
        In the half that is shown.
    """

    before: Reliability
    after: Reliability | None
    temperature: float
    samples: int


class Example(NamedTuple):
    """A sample worth a look.

    Attributes
    ----------
    sample : int
        Its index in the validation part.
    y, predicted : float
        Class numbers, or values.
    shares : list of (int, float)
        The likeliest classes and their probabilities; empty for a regression.
    loss : float
    """

    sample: int
    y: float
    predicted: float
    shares: list[tuple[int, float]]
    loss: float


class Column(NamedTuple):
    """A column of a table, and where it stands in what the network takes."""

    name: str
    places: list[int]


class Importance(NamedTuple):
    """How much worse a network fares when one column is shuffled.

    Attributes
    ----------
    name : str
        The column's.
    mean, error : float
        Of the rise of the mean loss over some shuffles.
    """

    name: str
    mean: float
    error: float


def classified(outputs: Array, y: Array) -> Answers:
    """Return the answers of a classifier whose outputs are probabilities.

    Parameters
    ----------
    outputs : ndarray, (samples, classes), or (samples, 1) of class 1
    y : ndarray of int, (samples,)
    """
    p = outputs.astype(np.float64).reshape(len(outputs), -1)
    if p.shape[1] == 1:
        p = np.concatenate([1 - p, p], axis=1)
    labels = y.reshape(-1).astype(np.intp)
    true = p[np.arange(len(p)), labels]
    return Answers(labels, p.argmax(axis=1), p, -np.log(np.maximum(true, SMALLEST)))


def estimated(outputs: Array, y: Array) -> Answers:
    """Return the answers of a regression.

    Parameters
    ----------
    outputs : ndarray, (samples, 1) or (samples,)
        In the units of `y`.
    y : ndarray, (samples,)
    """
    predicted = outputs.astype(np.float64).reshape(-1)
    true = y.astype(np.float64).reshape(-1)
    return Answers(true, predicted, None, np.abs(predicted - true))


def confusion(answers: Answers) -> Array:
    """Return how many samples of each class (rows) are taken for each class (columns)."""
    assert answers.probabilities is not None
    classes = answers.probabilities.shape[1]
    flat = np.bincount(answers.y * classes + answers.predicted, minlength=classes**2)
    return flat.reshape(classes, classes)


def mistakes(table: Array) -> list[tuple[int, int, int]]:
    """Return true class, said class and their number, for each kind of mistake, frequent first."""
    wrong = table - np.diag(np.diag(table))
    order = np.argsort(-wrong, axis=None, kind="stable")
    found = zip(*np.unravel_index(order, wrong.shape))
    return [(int(i), int(j), int(wrong[i, j])) for i, j in found if wrong[i, j]]


def calibration(answers: Answers, seed: int, bins: int = BINS) -> Calibration:
    """Return a classifier's reliability before and after temperature scaling.

    Parameters
    ----------
    answers : Answers
    seed : int
        Chooses the half on which the temperature is fitted.
    bins : int
    """
    assert answers.probabilities is not None
    order = permutation(Key(seed).fold_in(HALVES), len(answers.y))
    fitted, shown = np.array_split(order, 2)
    if not len(shown):
        fitted = shown = order
    logits = np.log(np.maximum(answers.probabilities, SMALLEST))
    before = reliability_diagram(answers.probabilities[shown], answers.y[shown], bins)
    try:
        temperature = fit_temperature(logits[fitted], answers.y[fitted])
    except ValueError:  # all of them right, or no better than chance
        return Calibration(before, None, math.nan, len(shown))
    scaled = apply_temperature(logits[shown], temperature)
    after = reliability_diagram(scaled, answers.y[shown], bins)
    return Calibration(before, after, temperature, len(shown))


def wrongest(answers: Answers, most: int) -> list[Example]:
    """Return the samples with the largest loss, of a classifier only those that are wrong."""
    order = np.argsort(-answers.loss, kind="stable")
    if answers.probabilities is not None:
        order = order[(answers.predicted != answers.y)[order]]
    return _examples(answers, order[:most])


def least_certain(answers: Answers, most: int) -> list[Example]:
    """Return the samples of which a classifier is least certain, by the entropy."""
    return _examples(answers, np.argsort(-answers.uncertainty, kind="stable")[:most])


def _examples(answers: Answers, order: Array) -> list[Example]:
    examples = []
    for i in order.tolist():
        shares = []
        if answers.probabilities is not None:
            p = answers.probabilities[i]
            likeliest = np.argsort(-p, kind="stable")[:3]
            shares = [(int(k), float(p[k])) for k in likeliest]
        y, predicted = answers.y[i].item(), answers.predicted[i].item()
        examples.append(Example(i, y, predicted, shares, float(answers.loss[i])))
    return examples


def importance(
    answer: Callable[[Array], Answers],
    x: Array,
    columns: Sequence[Column],
    seed: int,
    repeats: int = 5,
) -> list[Importance]:
    """Return how much the mean loss rises when a column's values change their rows.

    Parameters
    ----------
    answer : callable
        What the network says of an array like `x`.
    x : ndarray, (samples, numbers)
    columns : sequence of Column
    seed : int
    repeats : int
        Shuffles of each column.

    Returns
    -------
    list of Importance
        In the order of `columns`.

    References
    ----------
    Breiman 2001, Random forests, Machine Learning 45. Fisher, Rudin and Dominici 2019, All models
    are wrong, but many are useful, JMLR 20.
    """
    base = answer(x).loss.mean()
    key = Key(seed).fold_in(SHUFFLES)
    found = []
    for number, column in enumerate(columns):
        places, rises = np.array(column.places), []
        for repeat in range(repeats):
            order = permutation(key.fold_in(number * repeats + repeat), len(x))
            shuffled = x.copy()
            shuffled[:, places] = x[np.ix_(order, places)]
            rises.append(float(answer(shuffled).loss.mean() - base))
        error = float(np.std(rises, ddof=1) / math.sqrt(repeats))
        found.append(Importance(column.name, float(np.mean(rises)), error))
    return found
