"""What many outputs of one network, each with other dropout masks, tell about its uncertainty.

`Sequential.predict_mc`, `Sequential.predict_moments` and `fastdrop.torch.predict_mc` return a
`Prediction`. An `Accumulator` makes one from samples that arrive a few at a time::

    accumulator = Accumulator(rows=2, output_shape=(3,), activation="softmax")
    for outputs in ...:                     # (samples, 2, 3)
        accumulator.add(outputs)
    prediction = accumulator.prediction()

An accumulator keeps sums. It keeps the samples only if quantiles or the samples themselves are
asked for. The quantiles are exact, so they need all samples of a row at once. A caller with many
rows therefore gives them in blocks of `rows_at_once`, each to an accumulator of its own, and puts
the blocks together with `Prediction.concatenate`.

The sums are float64 sums of differences from the first sample (Chan, Golub, LeVeque 1983,
Algorithms for computing the sample variance: analysis and recommendations, The American
Statistician 37:242). They are added up sample by sample, so the result has the same bits however
the samples are grouped.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdrop._checks import as_array, as_numbers, check_finite, check_number, described
from fastdrop._messages import shown
from fastdrop.compiled._losses import add_samples, statistics_of

__all__ = ["Accumulator", "Prediction", "entropy"]

Array: TypeAlias = NDArray[Any]

TINY: dict[int, Any] = {4: np.finfo(np.float32).tiny, 8: np.finfo(np.float64).tiny}  # by bytes
KEPT_BYTES = 32 << 20  # size of the samples that a block of rows keeps for quantiles


@dataclass(frozen=True, eq=False)
class Prediction:
    """Outputs of a network with their uncertainty.

    The attributes from `entropy` on exist for probabilities only, and are in nats (but for
    `variation_ratio`). With softmax they have one number for each row (and for each place before
    the classes). With sigmoid they have one number for each output, which is a class of its own
    against no class.

    Attributes
    ----------
    activation : str
        "softmax" or "sigmoid" where the outputs are probabilities, else "linear".
    mean, std : ndarray of float64, (rows, ...)
        Mean and standard deviation over the samples (of the population, as in `numpy.std`).
    quantiles : ndarray of float64, (quantiles, rows, ...), or None
        Quantiles over the samples, as in `numpy.quantile`, if they were asked for.
    samples : ndarray, (samples, rows, ...), or None
        The outputs themselves, if they were asked for.
    entropy : ndarray of float64
        Entropy of the mean: all of the uncertainty.
    expected_entropy : ndarray of float64
        Mean of the samples' entropies: the part of the uncertainty that lies in the data.
    mutual_information : ndarray of float64
        `entropy` minus `expected_entropy`, at least 0: the part of the uncertainty that lies in
        the network, and that more data would remove.
    variation_ratio : ndarray of float64
        Share of the samples that do not vote for the class with the most votes.

    Raises
    ------
    AttributeError
        When one of the attributes for probabilities is read and the outputs are no probabilities.
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
        the likelihood is that of the mixture over the samples [1]_:
        logsumexp(-tau (y - sample)^2 / 2) - log(samples) - log(2 pi) / 2 + log(tau) / 2. Without
        `samples` it is that of one normal distribution around `mean`, with the variance
        std^2 + 1 / tau. If a row has several outputs, their log-likelihoods are added.

        Parameters
        ----------
        y : array_like, (rows, ...) or, with one output, (rows,)
            The labels, finite numbers, in the shape of `mean`.
        tau : float
            Precision of the labels, above 0: 1 / variance, in units of the outputs.

        Returns
        -------
        float
            The mean over the rows.

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
        tau = float(tau)
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
        with np.errstate(all="ignore"):  # a label far away has a likelihood of 0
            if self.samples is None:
                variance = self.std.reshape(rows, -1) ** 2 + 1 / tau
                error = (labels - self.mean.reshape(rows, -1)) ** 2
                each = -(error / variance + np.log(2 * math.pi * variance)) / 2
                return float(each.sum(axis=1).mean())
            squares = [
                ((sample.reshape(rows, -1) - labels) ** 2).sum(axis=1) for sample in self.samples
            ]
            exponents = np.array(squares) * (-tau / 2)
            most = np.maximum(exponents.max(axis=0), -sys.float_info.max)
            means = most + np.log(np.exp(exponents - most).mean(axis=0))
            constant = labels.shape[1] * (math.log(tau) - math.log(2 * math.pi)) / 2
            return float(means.mean() + constant)

    @classmethod
    def concatenate(cls, blocks: Sequence[Prediction]) -> Prediction:
        """Put the predictions of blocks of rows together, in their order.

        Parameters
        ----------
        blocks : sequence of Prediction
            At least one prediction. All have the same attributes.

        Returns
        -------
        Prediction
            The prediction of all rows.
        """
        if len(blocks) == 1:
            return blocks[0]

        def joined(name: str) -> Any:
            parts = [getattr(block, name) for block in blocks]
            if parts[0] is None or isinstance(parts[0], str):
                return parts[0]
            return np.concatenate(parts, axis=1 if name in ("quantiles", "samples") else 0)

        return cls(*(joined(field.name) for field in fields(cls)))


class Accumulator:
    """Makes a `Prediction` from samples that arrive a few at a time.

    Parameters
    ----------
    rows : int
        The number of rows of each sample.
    output_shape : tuple of int
        The shape of one row.
    activation : str
        "softmax" or "sigmoid" where the outputs are probabilities; softmax is over the last axis.
    quantiles : array of float64, optional
        Numbers in [0, 1], see `checked_quantiles`. With quantiles, all samples are kept until the
        end.
    return_samples : bool
        Whether the prediction holds the samples.
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
        self._sums = np.zeros((3, *self._shape))  # the first sample; differences; their squares
        self._entropies: Array | None = None
        self._votes: Array | None = None
        if self._activation != "linear":
            softmax = self._activation == "softmax"
            self._votes = np.zeros(self._shape, np.int64)
            self._entropies = np.zeros(self._shape[:-1] if softmax else self._shape)

    def add(self, outputs: Array) -> None:
        """Add more samples. The caller lets numbers underflow, see ``fastdrop._quiet``.

        Parameters
        ----------
        outputs : ndarray of floats, (samples, rows, ...)
            The samples. The caller may overwrite the array afterwards. Float types other than
            float32 and float64 are converted to float32.

        Raises
        ------
        ValueError
            When the shape does not fit `rows` and `output_shape`.
        """
        if outputs.shape[1:] != self._shape:
            raise ValueError(
                f"outputs: expected shape (samples, {', '.join(map(str, self._shape))}), "
                f"got {outputs.shape}"
            )
        if not len(outputs):
            return
        if outputs.dtype.char not in "fd" or not outputs.dtype.isnative:
            outputs = outputs.astype(np.float32)
        if self._quantiles is not None or self._return_samples:
            self._kept.append(outputs.copy())
        outputs = np.ascontiguousarray(outputs)
        terms = None
        if self._activation != "linear":
            terms = p_log_p(outputs)
            if self._activation == "sigmoid":
                terms += p_log_p(1 - outputs)
        add_samples(outputs, terms, self._sums, self._entropies, self._votes, not self._count)
        self._count += len(outputs)

    def prediction(self) -> Prediction:
        """Return the prediction of all samples so far, of which there has to be at least one.

        Returns
        -------
        Prediction
            The statistics of the samples.
        """
        mean, std, expected, ratio = statistics_of(
            self._sums, self._entropies, self._votes, self._count
        )
        samples = np.concatenate(self._kept) if self._kept else None
        quantiles = None
        if self._quantiles is not None and samples is not None:
            quantiles = np.quantile(samples, self._quantiles, axis=0).astype(np.float64, copy=False)
        returned = samples if self._return_samples else None
        return Prediction(self._activation, mean, std, quantiles, returned, expected, ratio)


def entropy(probabilities: Array, activation: str) -> Array:
    """Return the entropy in nats, in float64.

    Parameters
    ----------
    probabilities : ndarray
        The probabilities.
    activation : {"softmax", "sigmoid"}
        With "softmax" the last axis is a distribution over classes. With "sigmoid" each number is
        the probability of one class against its opposite.

    Returns
    -------
    ndarray of float64
        The entropies, without the last axis for "softmax".
    """
    p = np.asarray(probabilities, np.float64)
    with np.errstate(all="ignore"):
        terms = p_log_p(p)
        return -terms.sum(axis=-1) if activation == "softmax" else -(terms + p_log_p(1 - p))


def p_log_p(p: Array) -> Array:
    """Return p log(p), and 0 where p is 0."""
    terms = np.asarray(np.maximum(p, TINY[p.dtype.itemsize]))
    np.log(terms, out=terms)
    terms *= p
    return terms


def checked_quantiles(quantiles: ArrayLike | None) -> Array | None:
    """Return quantiles as an array of float64, or None for None.

    Parameters
    ----------
    quantiles : array_like, optional
        A number in [0, 1], or a list of such numbers.

    Returns
    -------
    ndarray of float64, or None
        The numbers, with one axis.

    Raises
    ------
    ValueError
        When the quantiles are not numbers in [0, 1].
    """
    if quantiles is None:
        return None
    array = as_array("quantiles", quantiles)
    numbers = array.dtype.kind in "iuf" and array.ndim <= 1 and array.size > 0
    if not numbers or not ((array >= 0) & (array <= 1)).all():  # this refuses NaN as well
        raise ValueError(f"quantiles: expected numbers in [0, 1], got {shown(quantiles)}")
    return np.atleast_1d(array).astype(np.float64)


def rows_at_once(samples: int, outputs: int, itemsize: int, most: int) -> int:
    """Return how many rows a block may have if all its samples are kept: from 1 to `most`.

    Parameters
    ----------
    samples, outputs, itemsize : int
        The number of samples of a row, of outputs of a sample, and of bytes of an output.
    most : int
        How many rows the block would have without quantiles.

    Returns
    -------
    int
        The number of rows.
    """
    return max(1, min(most, KEPT_BYTES // (samples * outputs * itemsize)))
