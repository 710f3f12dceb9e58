"""Mean and variance of a network's outputs without sampling: `Sequential.predict_moments`.

Mean and variance of each unit go forward, as if the unit were a normal variate with noise of its
own (Wang and Manning 2013, Fast dropout training, ICML). But the units of a layer share the noise
of the layers before, so the last of these variances is not that of the outputs. The variance of the
outputs is a sum over all places where noise enters, each along its path to the output::

    noise        of a dropout             p / (1 - p) E[h^2]
                 of an activation         what its mean slope does not explain of its variance
    path         back from an output through weights and mean slopes, one pass for each output
    covariance   of outputs a and b: the sum over places and units of noise path_a path_b

What lies before the first layer of the dropout family is computed as at inference. moment_rules.py
has the rule of each layer.

If the model ends with softmax or sigmoid, all this applies to its logits. They are taken for
normal. `POINTS` points that are spread evenly in such a distribution are the samples from which
`Prediction` computes mean, entropy and so on.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist

import numpy as np

from fastdrop._quiet import quiet
from fastdrop.layers import ACTIVATIONS, Activation, Array, Batch, Layer
from fastdrop.layers.base import shapes_between
from fastdrop.training.moment_rules import Noise, Step, few_inputs_step, gone_back, steps_of
from fastdrop.training.network import Network
from fastdrop.training.sampled_layers import first_random
from fastdrop.uncertainty import Accumulator, Prediction

__all__ = ["Moments"]

POINTS = 128
ROWS = 128  # rows that are computed at once
CACHED_PATHS = 320  # of an output of a row each: so many fit into a cache
PROBABILITIES = ("softmax", "sigmoid")


class Moments:
    """Computes mean and variance of a network's outputs.

    Parameters
    ----------
    network : Network
        The network.

    Raises
    ------
    ValueError
        When the network is not built, has no layer of the dropout family, or has a layer without a
        rule.
    """

    def __init__(self, network: Network) -> None:
        layers, self._dtype = network.layers, network.dtype
        self._shape = network.output_shape(network.built_shape())
        number = first_random(layers)
        self._before, behind = layers[:number], layers[number:]
        self.activation = behind[-1].activation
        self._covariances = self.activation == "softmax"
        if self.activation in PROBABILITIES:
            behind = [*behind[:-1], *_without_end(behind[-1])]
        first = few_inputs_step(behind, shapes_between(layers, network.built_shape())[number])
        self._steps: list[Step] = []
        if first is not None:
            self._steps, behind = [first], behind[2:]
        self._steps += [step for layer in behind for step in steps_of(layer, network.step)]

    def predict(self, x: Array) -> Prediction:
        """Return the prediction by moments for some rows of finite numbers."""
        blocks = []
        with quiet(over="ignore", invalid="ignore"):
            for start in range(0, len(x), ROWS):
                part = x[start : start + ROWS].astype(self._dtype, copy=False)
                for layer in self._before:
                    part, _ = layer.forward(part, Batch(training=False))
                blocks.append(self._predict(part))
        return Prediction.concatenate(blocks)

    def _predict(self, x: Array) -> Prediction:
        rows = max(1, CACHED_PATHS // max(1, math.prod(self._shape)))
        parts = [
            moments_of(self._steps, x[start : start + rows], self._covariances)
            for start in range(0, len(x), rows)
        ]
        mean, variance = (np.concatenate(each) for each in zip(*parts))
        if self.activation not in PROBABILITIES:
            return Prediction("linear", mean, np.sqrt(variance).reshape(mean.shape))
        logits = self._likely_logits(mean.reshape(len(mean), -1), variance)
        logits = logits.reshape(POINTS, *mean.shape)
        sums = Accumulator(len(x), self._shape, self.activation)
        sums.add(ACTIVATIONS[self.activation](logits, logits)[0])
        return sums.prediction()

    def _likely_logits(self, mean: Array, variance: Array) -> Array:
        """Return points that lie as logits of these moments do, (POINTS, rows * outputs)."""
        rows, outputs = mean.shape
        if self._covariances:
            points = normal_points(outputs).astype(self._dtype)
            roots = _roots(variance, 10 * outputs * float(np.finfo(self._dtype).eps))
            away = points @ roots.astype(self._dtype).reshape(rows * outputs, outputs).T
        else:  # each output on its own
            stds = np.sqrt(variance).astype(self._dtype)
            away = normal_points(1).astype(self._dtype) * stds.reshape(1, rows * outputs)
        return away + mean.astype(self._dtype).reshape(rows * outputs)


def _without_end(layer: Layer) -> list[Layer]:
    """Return what remains of the last layer without its softmax or sigmoid."""
    if isinstance(layer, Activation):
        return []
    copied = copy.copy(layer)
    copied.activation = "linear"
    return [copied]


def moments_of(steps: Sequence[Step], x: Array, covariances: bool) -> tuple[Array, Array]:
    """Return mean, (rows, ...), and variance of what the steps make of x, in float64.

    The variance is flat, (rows, outputs), or, with `covariances`, the covariance matrix, (rows,
    outputs, outputs).
    """
    mean, spread, passed = x, np.zeros_like(x), []
    for step in steps:
        passed.append(step(mean, spread))
        mean, spread = passed[-1][:2]
    rows, outputs = len(x), math.prod(mean.shape[1:])
    variance = np.zeros((rows, outputs, outputs) if covariances else (rows, outputs))

    def add(paths: Array, noise: Noise) -> None:
        add_noise(paths.reshape(*paths.shape[:2], -1), noise.variance.reshape(rows, 1, -1))
        if noise.amplitude is not None:
            along = paths * noise.amplitude[:, np.newaxis]
            along = along.sum(axis=tuple(axis + 1 for axis in noise.axes))
            add_noise(along.reshape(rows, outputs, -1), np.ones(1, x.dtype))

    def add_noise(paths: Array, noise: Array) -> None:
        scaled = paths * noise
        if covariances and len(paths) == 1:  # a path that all rows have in common: one product
            products = scaled.reshape(rows * outputs, -1) @ paths[0].T
            variance[...] += products.reshape(variance.shape)
        elif covariances:
            variance[...] += scaled @ np.swapaxes(paths, 1, 2)
        else:
            variance[...] += np.multiply(scaled, paths, out=scaled).sum(axis=2)

    eye = np.eye(outputs, dtype=x.dtype)
    gone_back(passed, eye.reshape(1, outputs, *mean.shape[1:]), add)
    return mean.astype(np.float64), variance


def _roots(covariance: Array, small: float) -> Array:
    """Return lower triangular matrices whose products with their transposes are these.

    This is Cholesky's decomposition. A unit of which the units before leave less than the share
    `small` of the largest variance is a function of these: what is left is an error of rounding.
    """
    roots = np.zeros_like(covariance)
    least = small * np.diagonal(covariance, axis1=1, axis2=2).max(axis=1)
    for unit in range(covariance.shape[1]):
        row = roots[:, unit, :unit, np.newaxis]
        left = covariance[:, unit:, unit] - (roots[:, unit:, :unit] @ row)[:, :, 0]
        there = left[:, 0] > least
        scale = np.sqrt(np.where(there, left[:, 0], 1))
        roots[:, unit:, unit] = left * (there / scale)[:, np.newaxis]
    return roots


@cache
def normal_points(dimensions: int) -> Array:
    """Return points, (POINTS, dimensions), spread evenly in the standard normal distribution.

    Half of them are multiples of irrational numbers, modulo 1 (Roberts 2018, The unreasonable
    effectiveness of quasirandom sequences), through the inverse distribution function. The others
    are their mirror images. Each column has mean 0 and variance 1, and columns are not correlated
    if there are enough points for that.
    """
    ratio = 2.0
    for _ in range(64):  # the root of ratio^(dimensions + 1) = ratio + 1
        ratio = (1 + ratio) ** (1 / (dimensions + 1))
    steps = ratio ** -np.arange(1.0, dimensions + 1)
    uniform = (0.5 + np.arange(1, POINTS // 2 + 1)[:, np.newaxis] * steps) % 1
    half = np.vectorize(NormalDist().inv_cdf)(uniform)
    points = np.concatenate([half, -half])
    if dimensions <= POINTS // 4:
        root = np.linalg.cholesky(points.T @ points / POINTS)
        return np.linalg.solve(root, points.T).T
    return points / np.sqrt(np.square(points).mean(axis=0))
