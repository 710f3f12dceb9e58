"""What many outputs of one network, each with other dropout masks, say of its uncertainty.

A `Prediction` is what `Sequential.predict_mc`, `Sequential.predict_moments` and
`fastdrop.torch.predict_mc` return. An `Accumulator` makes one of samples that it is given a few at
a time:

    accumulator = Accumulator(rows=2, output_shape=(3,), activation="softmax")
    for outputs in ...:                     # (samples, 2, 3)
        accumulator.add(outputs)
    prediction = accumulator.prediction()

It keeps sums, and none of the samples, unless quantiles or the samples themselves are asked for.
The quantiles are exact, so they need all samples of a row at once: whoever has many rows gives
them in blocks of `rows_at_once`, each to an accumulator of its own, and puts the blocks together
with `Prediction.concatenate`.

Sums are float64, of differences from the first sample (Chan, Golub, LeVeque 1983, Algorithms for
computing the sample variance: analysis and recommendations, The American Statistician 37:242), and
are added up sample by sample: the result has the same bits however the samples were grouped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdrop._checks import as_array, as_numbers, check_finite, check_number, described
from fastdrop.compiled._losses import add_samples

__all__ = ["Accumulator", "Prediction", "entropy"]

Array: TypeAlias = NDArray[Any]

TINY = {4: float(np.finfo(np.float32).tiny), 8: float(np.finfo(np.float64).tiny)}  # by bytes
KEPT_BYTES = 32 << 20  # of samples that are kept for quantiles, in a block of rows


@dataclass(frozen=True, eq=False)
class Prediction:
    """Outputs of a network with their uncertainty.

    Attributes
    ----------
    activation : str
        "softmax" or "sigmoid" where outputs are probabilities, else "linear".
    mean, std : ndarray of float64, (rows, *output_shape)
        Mean and standard deviation (of the population, as `numpy.std`) over the samples.
    quantiles : ndarray of float64, (quantiles, rows, *output_shape), or None
        As `numpy.quantile` over the samples, if they were asked for.
    samples : ndarray, (samples, rows, *output_shape), or None
        The outputs themselves, if they were asked for.

    Of probabilities only, in nats. With softmax there is one number for each row (and each place
    before the classes), with sigmoid one for each output, which is a class of its own against none:

    entropy : ndarray of float64
        Of the mean: all of the uncertainty.
    expected_entropy : ndarray of float64
        Mean of the samples' entropies: the part that lies in the data.
    mutual_information : ndarray of float64
        `entropy` less `expected_entropy`, at least 0: the part that lies in the network, which
        more data would remove.
    variation_ratio : ndarray of float64
        Share of the samples that do not vote for the class with the most votes.

    Raises
    ------
    AttributeError
        When one of these is read of outputs that are no probabilities.
    """

    activation: str
    mean: Array
    std: Array
    quantiles: Array | None = None
    samples: Array | None = None
    _expected_entropy: Array | None = None
    _variation_ratio: Array | None = None

    @property
    def entropy(self) -> Array:
        self._of_probabilities("entropy", self.mean)
        return entropy(self.mean, self.activation)

    @property
    def expected_entropy(self) -> Array:
        return self._of_probabilities("expected_entropy", self._expected_entropy)

    @property
    def mutual_information(self) -> Array:
        expected = self._of_probabilities("mutual_information", self._expected_entropy)
        return np.maximum(self.entropy - expected, 0)

    @property
    def variation_ratio(self) -> Array:
        return self._of_probabilities("variation_ratio", self._variation_ratio)

    def _of_probabilities(self, name: str, value: Array | None) -> Array:
        if self.activation not in ("softmax", "sigmoid") or value is None:
            raise AttributeError(
                f"{name}: expected outputs of softmax or sigmoid, got those of a model that ends "
                f"with {self.activation}"
            )
        return value

    def log_likelihood(self, y: ArrayLike, tau: float) -> float:
        """Return the mean log-likelihood of a regression's labels.

        A label is a normal variate of precision `tau` around the network's output. With `samples`
        it is that of the mixture over them [1]_:
        logsumexp(-tau (y - sample)^2 / 2) - log(samples) - log(2 pi) / 2 + log(tau) / 2. Without
        them it is that of one normal distribution, of the variance std^2 + 1 / tau around `mean`.
        Of several outputs a row's log-likelihoods are added.

        Parameters
        ----------
        y : array_like, (rows, *output_shape) or, with one output, (rows,)
            Finite numbers.
        tau : float
            Precision of the labels, 1 / variance, above 0, in units of the outputs.

        Returns
        -------
        float
            Mean over the rows.

        Raises
        ------
        AttributeError
            When the outputs are probabilities.
        ValueError
            When an argument does not fit its description.

        References
        ----------
        .. [1] Gal and Ghahramani 2016, Dropout as a Bayesian approximation: representing model
           uncertainty in deep learning, ICML.
        """
        if self.activation != "linear":
            raise AttributeError(
                "log_likelihood: expected outputs of a regression, got probabilities of "
                f"{self.activation}"
            )
        check_number("tau", tau, above_zero=True)
        labels = as_numbers("y", y)
        check_finite("y", labels, np.float64)
        if labels.shape == self.mean.shape[:1] and self.mean.shape[1:] == (1,):
            labels = labels[:, np.newaxis]
        if labels.shape != self.mean.shape:
            raise ValueError(
                f"y: expected a number for each output, {self.mean.shape}, got {described(labels)}"
            )
        rows = len(self.mean)
        labels = labels.astype(np.float64).reshape(rows, -1)
        with np.errstate(under="ignore"):
            if self.samples is None:
                variance = self.std.reshape(rows, -1) ** 2 + 1 / tau
                error = (labels - self.mean.reshape(rows, -1)) ** 2
                each = -(error / variance + np.log(2 * math.pi * variance)) / 2
                return float(each.sum(axis=1).mean())
            squares = [
                ((sample.reshape(rows, -1) - labels) ** 2).sum(axis=1) for sample in self.samples
            ]
            exponents = np.array(squares) * (-tau / 2)
            most = exponents.max(axis=0)
            means = most + np.log(np.exp(exponents - most).mean(axis=0))
        constant = labels.shape[1] * math.log(tau / (2 * math.pi)) / 2
        return float(means.mean() + constant)

    @classmethod
    def concatenate(cls, blocks: Sequence[Prediction]) -> Prediction:
        """Put predictions of blocks of rows together, in their order."""
        if len(blocks) == 1:
            return blocks[0]

        def joined(name: str) -> Any:
            parts = [getattr(block, name) for block in blocks]
            if parts[0] is None or isinstance(parts[0], str):
                return parts[0]
            return np.concatenate(parts, axis=1 if name in ("quantiles", "samples") else 0)

        return cls(*(joined(field.name) for field in fields(cls)))


class Accumulator:
    """Makes a `Prediction` of samples that come a few at a time.

    Parameters
    ----------
    rows : int
        How many rows each sample has.
    output_shape : tuple of int
        Of one row.
    activation : str
        "softmax" or "sigmoid" where outputs are probabilities; softmax is over the last axis.
    quantiles : array of float64, optional
        In [0, 1], see `checked_quantiles`. With them all samples are kept until the end.
    return_samples : bool
        Whether the prediction has them.
    """

    def __init__(
        self,
        rows: int,
        output_shape: tuple[int, ...],
        activation: str = "linear",
        quantiles: Array | None = None,
        return_samples: bool = False,
    ) -> None:
        self._shape = (rows, *output_shape)
        self._activation = activation if activation in ("softmax", "sigmoid") else "linear"
        self._quantiles, self._return_samples = quantiles, return_samples
        self._kept: list[Array] = []
        self._count = 0
        places, classes = math.prod(self._shape[:-1]), self._shape[-1]
        self._sums = np.zeros((3, places, classes))  # the first sample; differences; their squares
        self._entropies: Array | None = None
        self._votes: Array | None = None
        if self._activation != "linear":
            softmax = self._activation == "softmax"
            self._votes = np.zeros((places, classes), np.int64)
            self._entropies = np.zeros((places,) if softmax else (places, classes))

    def add(self, outputs: Array) -> None:
        """Take more samples.

        Parameters
        ----------
        outputs : ndarray of floats, (samples, rows, *output_shape)
            Of the caller's, who may overwrite it afterwards. Other floats than float32 and float64
            are taken as float32.

        Raises
        ------
        ValueError
            When the shape is another one.
        """
        if outputs.shape[1:] != self._shape:
            raise ValueError(
                f"outputs: expected shape (samples, {', '.join(map(str, self._shape))}), "
                f"got {outputs.shape}"
            )
        if not len(outputs):
            return
        if outputs.dtype not in (np.float32, np.float64):
            outputs = outputs.astype(np.float32)
        if self._quantiles is not None or self._return_samples:
            self._kept.append(outputs.copy())
        flat = np.ascontiguousarray(outputs).reshape(-1, *self._sums.shape[1:])
        if not self._count:
            self._sums[0] = flat[0]
        self._count += len(flat)
        terms = None
        if self._activation != "linear":
            with np.errstate(all="ignore"):
                terms = p_log_p(flat)
                if self._activation == "sigmoid":
                    terms += p_log_p(1 - flat)
        add_samples(flat, terms, self._sums, self._entropies, self._votes)

    def prediction(self) -> Prediction:
        """Return what the samples say; at least one has to be there."""
        n = self._count
        first, differences, squares = self._sums
        with np.errstate(all="ignore"):
            shift = differences / n
            mean = (first + shift).reshape(self._shape)
            variance = squares / n - shift * shift
            std = np.sqrt(np.maximum(variance, 0, out=variance)).reshape(self._shape)
        samples = np.concatenate(self._kept) if self._kept else None
        quantiles = None
        if self._quantiles is not None and samples is not None:
            quantiles = np.quantile(samples, self._quantiles, axis=0).astype(np.float64, copy=False)
        expected, ratio = None, None
        if self._votes is not None and self._entropies is not None:
            softmax = self._activation == "softmax"
            most = self._votes.max(axis=-1) if softmax else np.maximum(self._votes, n - self._votes)
            places = self._shape[:-1] if softmax else self._shape
            expected = (self._entropies / n).reshape(places)
            ratio = (1 - most / n).reshape(places)
        return Prediction(
            self._activation,
            mean,
            std,
            quantiles,
            samples if self._return_samples else None,
            expected,
            ratio,
        )


def entropy(probabilities: Array, activation: str) -> Array:
    """Return the entropy in nats, in float64.

    Parameters
    ----------
    probabilities : ndarray
    activation : {"softmax", "sigmoid"}
        Whether the last axis is a distribution over classes, or each number the probability of
        one class against its opposite.
    """
    p = np.asarray(probabilities, np.float64)
    with np.errstate(all="ignore"):
        terms = p_log_p(p)
        return -terms.sum(axis=-1) if activation == "softmax" else -(terms + p_log_p(1 - p))


def p_log_p(p: Array) -> Array:
    """Return p log(p), and 0 where p is 0."""
    terms: Array = np.maximum(p, TINY[p.dtype.itemsize])
    np.log(terms, out=terms)
    terms *= p
    return terms


def checked_quantiles(quantiles: ArrayLike | None) -> Array | None:
    """Return quantiles as an array of float64.

    Raises
    ------
    ValueError
        When they are no numbers in [0, 1].
    """
    if quantiles is None:
        return None
    array = as_array("quantiles", quantiles)
    numbers = array.dtype.kind in "iuf" and array.ndim <= 1 and array.size > 0
    if not numbers or not ((array >= 0) & (array <= 1)).all():  # also refuses NaN
        raise ValueError(f"quantiles: expected numbers in [0, 1], got {quantiles!r}")
    return np.atleast_1d(array).astype(np.float64)


def rows_at_once(samples: int, outputs: int, itemsize: int, most: int) -> int:
    """Return how many rows a block may have of which all samples are kept: 1 to `most`.

    Parameters
    ----------
    samples, outputs, itemsize : int
        Samples of a row, outputs of a sample, bytes of an output.
    most : int
        What there would be without quantiles.
    """
    return max(1, min(most, KEPT_BYTES // (samples * outputs * itemsize)))
