"""The solvers: Adam and SGD by batches, and SciPy's L-BFGS, on gradients of `fastdrop.training`.

They compute the same as scikit-learn, up to rounding: with its order of samples, its means, and its
penalty of weights, which is divided by the sum of a batch's sample weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize

from fastdrop.compiled._sparse import SparseRows
from fastdrop.compiled._train import sum_of_squares
from fastdrop.layers import Array, WeightRule
from fastdrop.models import Sequential
from fastdrop.optimizers import SGD, Adam, Optimizer
from fastdrop.sklearn.losses import reported
from fastdrop.sklearn.networks import dense_layers, weight_rules
from fastdrop.sklearn.rows import Chosen, Rows, chunks
from fastdrop.training.step import Step

__all__ = ["Batches", "Samples", "adam", "lbfgs", "sgd"]


@dataclass
class Samples:
    """The samples that a network is trained on.

    Attributes
    ----------
    rows : Rows
        The rows of X.
    targets : ndarray
        Class numbers (samples,), or numbers (samples, outputs) in the network's dtype.
    weights : ndarray, (samples,), or None
        The weights of the samples.
    """

    rows: Rows
    targets: Array
    weights: Array | None

    def some(self, chosen: Array) -> Samples:
        """Return some of the samples."""
        weights = None if self.weights is None else self.weights[chosen]
        return Samples(Rows(self.rows.X[chosen]), self.targets[chosen], weights)

    def batch(
        self, chosen: Chosen, sparse: bool, then: Chosen | None = None
    ) -> tuple[Array | SparseRows, Array, Array | None, float]:
        """Return x, targets, weights scaled to a mean of 1, and the sum of the original weights.

        `then` is what the next call chooses, if that is known.
        """
        x = self.rows.take_sparse(chosen) if sparse else self.rows.take(chosen, then)
        y = self.targets[chosen]
        if self.weights is None:
            return x, y, None, float(len(y))
        weights = self.weights[chosen]
        total = float(weights.sum(dtype=np.float64))
        return x, y, weights * (len(y) / total) if total else weights, total


def adam(learning_rate: float, beta_1: float, beta_2: float, epsilon: float) -> Adam:
    """Return scikit-learn's Adam, which has its epsilon in the same place as ours."""
    return Adam(learning_rate, beta_1, beta_2, epsilon)


def sgd(learning_rate: float, momentum: float, nesterov: bool) -> SGD:
    """Return scikit-learn's SGD, which also takes a momentum of 1."""
    if momentum != 1:
        return SGD(learning_rate, momentum, nesterov)
    optimizer = SGD(learning_rate, nesterov=nesterov)
    object.__setattr__(optimizer, "momentum", 1.0)  # which SGD itself refuses
    return optimizer


class Batches:
    """Training of a network batch by batch.

    Parameters
    ----------
    model : Sequential
        A model with a loss.
    optimizer : Optimizer
        The optimiser.
    samples : Samples
        The samples to train on.
    alpha : float
        As in scikit-learn.
    """

    def __init__(
        self, model: Sequential, optimizer: Optimizer, samples: Samples, alpha: float
    ) -> None:
        model.network.optimizer = optimizer
        self._model, self._optimizer, self._samples = model, optimizer, samples
        self._alpha = alpha
        self._params, self._weights = model.params, _weights(model)
        self._outputs = len(self._weights[-1])
        # By the number of samples in a batch. The last batch of an epoch has fewer, and own memory.
        self._steps: dict[int, Step] = {}
        self._rules: dict[int, dict[str, WeightRule]] = {}

    def take(self, samples: Samples) -> None:
        """Train on other samples from now on."""
        self._model.network.optimizer = self._optimizer
        self._samples = samples

    def let_go(self) -> None:
        """Keep no samples until `take` brings others."""
        del self._samples

    def epoch(self, order: Array | None, samples: int, size: int) -> float:
        """Take a step for each batch, and return the mean of their losses.

        Parameters
        ----------
        order : ndarray of intp, or None
            The samples to take. Without it, the first ones are taken.
        samples, size : int
            How many samples to take, and how many are in a batch.

        Returns
        -------
        float
            The mean of the losses.
        """

        def batch_at(start: int) -> Chosen:
            rows = slice(start, min(start + size, samples))
            return rows if order is None else order[rows]

        total, then = 0.0, batch_at(0)
        for start in range(0, samples, size):
            chosen, then = then, batch_at(start + size)
            count = min(size, samples - start)
            total += count * self._train(chosen, count, then)
        return total / samples

    def _train(self, chosen: Chosen, count: int, then: Chosen) -> float:
        """Take a step with `count` samples, and return the loss before it.

        `then` are the samples of the next step, or none.
        """
        network = self._model.network
        step = self._steps.get(count)
        if step is None:
            step = self._steps[count] = Step(network)
            self._rules[count] = weight_rules(self._model, self._alpha, count)
        step.follow()
        sparse = self._samples.rows.thin and step.takes_sparse()
        x, y, weights, total = self._samples.batch(chosen, sparse, then)
        if not total:  # samples without weight teach nothing
            return 0.0
        loss, gradients = step.gradients(x, y, weights)
        loss = reported(network.loss, loss, self._outputs)
        if self._alpha:
            loss += self._alpha / 2 * _squares(self._weights) / total
        rules = self._rules[count]
        if weights is not None:
            rules = weight_rules(self._model, self._alpha, total)
        network.step += 1  # now, so that no mask is used again, even if the update is interrupted
        self._optimizer.update(self._params, gradients, rules)
        return loss


def lbfgs(
    model: Sequential,
    samples: Samples,
    alpha: float,
    options: dict[str, Any],
    after_iteration: Callable[[float], None],
) -> tuple[float, Any]:
    """Minimise the loss over all samples by SciPy's L-BFGS-B.

    Parameters
    ----------
    model : Sequential
        A model with a loss. It gets the best weights, or, if this is interrupted, the last ones.
    samples : Samples
        The samples to train on.
    alpha : float
        As in scikit-learn.
    options : dict
        SciPy's options.
    after_iteration : callable
        Called with the loss after each iteration, as scikit-learn reports it.

    Returns
    -------
    loss : float
        The loss at the end, as scikit-learn reports it.
    result : OptimizeResult
        SciPy's result.
    """
    model.network.optimizer = None  # so gradients are arrays
    step = Step(model.network)
    params, all_weights = model.params, _weights(model)
    outputs = len(all_weights[-1])
    start = np.concatenate([param.ravel() for param in params.values()]).astype(np.float64)
    latest = 0.0

    def take_over(theta: Array) -> None:
        for param, part in zip(params.values(), _parts(theta, params)):
            param[...] = part

    def loss_and_gradient(theta: Array) -> tuple[float, Array]:
        nonlocal latest
        with np.errstate(over="ignore", under="ignore"):
            take_over(theta)
        gradient = np.zeros_like(theta)
        loss = total = 0.0
        step.follow()
        sparse = samples.rows.thin and step.takes_sparse()
        for rows in chunks(samples.rows, sparse):
            x, y, weights, weight = samples.batch(rows, sparse)
            if weight:
                value, gradients = step.gradients(x, y, weights)
                loss += weight * value
                total += weight
                for name, part in zip(params, _parts(gradient, params)):
                    part += weight * np.asarray(gradients[name])
        penalty = alpha / 2 * _squares(all_weights)
        for name, param, part in zip(params, params.values(), _parts(gradient, params)):
            if alpha and name.endswith(".weight"):
                part += alpha * param
        gradient /= total
        latest = (reported(model.network.loss, loss, outputs) + penalty) / total
        return (loss + penalty) / total, gradient

    result = scipy.optimize.minimize(
        loss_and_gradient,
        start,
        method="L-BFGS-B",
        jac=True,
        options=options,
        callback=lambda theta: after_iteration(latest),
    )
    loss_and_gradient(result.x)
    return latest, result


def _parts(theta: Array, params: dict[str, Array]) -> Iterator[Array]:
    """Yield the parts of a vector that are the parameters, in their shapes."""
    start = 0
    for param in params.values():
        yield theta[start : start + param.size].reshape(param.shape)
        start += param.size


def _weights(model: Sequential) -> list[Array]:
    """Return the weights that `alpha` applies to: all but biases."""
    return [dense.params["weight"] for dense in dense_layers(model).values()]


def _squares(weights: list[Array]) -> float:
    return sum(map(sum_of_squares, weights))
