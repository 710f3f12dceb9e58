"""How mean and variance pass through each layer, and noise back: see `fastdrop.training.moments`.

A rule takes the mean and the variance of a layer's input, (rows, ...). It returns those of the
output, the noise that enters in the layer, and how a path goes back through the layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastdrop._checks import checked_axes
from fastdrop.layers import (
    ACTIVATIONS,
    Activation,
    AlphaDropout,
    Array,
    Batch,
    BatchNormalization,
    ConcreteDropout,
    Dense,
    DropConnect,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    DropPath,
    Flatten,
    GaussianDropout,
    GaussianNoise,
    Layer,
    LayerNormalization,
    LockedDropout,
    ReLU,
    Residual,
    Shape,
)
from fastdrop.layers.activations import LEAKY_SLOPE, normal_cdf, sigmoid
from fastdrop.layers.schedules import rate_at
from fastdrop.training.sampled_layers import is_element_wise
from fastdrop.variants import alpha_coefficients

__all__ = ["Noise", "Passed", "Step", "few_inputs_step", "gone_back", "steps_of"]

Back: TypeAlias = Callable[[Array], Array]
INFERENCE = Batch(training=False)
FAR = 8.0  # standard deviations beyond which a kink has no effect
FEW = 16  # the most inputs for which the effect of each is computed
NODES = 24  # of the quadrature for smooth activations


class Noise(NamedTuple):
    """Noise that enters at some place.

    Attributes
    ----------
    variance : ndarray, (rows, ...)
        The variance of noise that is independent from element to element.
    amplitude : ndarray, (rows, ...), or None
        The noise that all elements along `axes` have in common: an element's noise is its
        amplitude times one variate of mean 0 and variance 1.
    axes : tuple of int
        The axes that share this variate.
    """

    variance: Array
    amplitude: Array | None = None
    axes: tuple[int, ...] = ()


class Passed(NamedTuple):
    """What a step makes of mean and variance.

    Attributes
    ----------
    mean, variance : ndarray, (rows, ...)
        Mean and variance after the step.
    back : callable
        Takes derivatives of the outputs, (rows or 1, outputs, ...), from after the step to before
        it. Residual steps add the noise of their branch on the way.
    noise : Noise or None
        The noise that enters after the step.
    """

    mean: Array
    variance: Array
    back: Callable[[Array, Callable[[Array, Noise], None]], Array]
    noise: Noise | None = None


Step: TypeAlias = Callable[[Array, Array], Passed]


def steps_of(layer: Layer, training_step: int) -> Iterator[Step]:
    """Yield the steps that a layer consists of.

    Raises
    ------
    ValueError
        When there is no rule for the layer.
    """
    rule = RULES.get(type(layer))
    if rule is None:
        raise ValueError(
            f"layer {layer.name!r}: expected one that moments can pass through, got a "
            f"{type(layer).__name__}; predict_mc takes all layers"
        )
    yield from rule(layer, training_step)


def _through(gain: Array | float, noise: Noise | None, mean: Array, variance: Array) -> Passed:
    """Return an element-wise step with this derivative."""

    if np.isscalar(gain) and gain == 1:
        return Passed(mean, variance, _unchanged, noise)

    def back(paths: Array, add: Any) -> Array:
        return paths * (gain if np.isscalar(gain) else np.asarray(gain)[:, np.newaxis])

    return Passed(mean, variance, back, noise)


def _unchanged(paths: Array, add: Any) -> Array:
    return paths


# ---- linear layers -------------------------------------------------------------------------------


def _dense(layer: Dense, training_step: int) -> Iterator[Step]:
    weight, bias = layer.params["weight"], layer.params.get("bias")
    yield partial(_affine, weight, np.square(weight), bias)
    yield from _activation(layer.activation)


def _affine(
    weight: Array, squares: Array, bias: Array | None, mean: Array, variance: Array
) -> Passed:
    z = mean @ weight.T
    if bias is not None:
        z += bias

    def back(paths: Array, add: Any) -> Array:
        flat = paths.reshape(-1, paths.shape[-1]) @ weight
        return flat.reshape(*paths.shape[:-1], weight.shape[1])

    return Passed(z, variance @ squares.T, back)


def _normalized(layer: BatchNormalization, training_step: int) -> Iterator[Step]:
    """Apply a factor and a shift to each feature, as at inference."""

    def step(mean: Array, variance: Array) -> Passed:
        y, backward = layer.forward(mean, INFERENCE)
        gain = backward(np.ones_like(mean))
        return _through(gain, None, y, variance * gain * gain)

    yield step


def _layer_normalized(layer: LayerNormalization, training_step: int) -> Iterator[Step]:
    """Take the layer for linear around the mean, with the expected variance over the features.

    For the units' own variances, its scale is a constant.
    """
    gamma, beta = layer.params.get("gamma", 1.0), layer.params.get("beta", 0.0)

    def average(a: Array) -> Array:
        return a.mean(axis=-1, keepdims=True)

    def step(mean: Array, variance: Array) -> Passed:
        away = mean - average(mean)
        scale = 1 / np.sqrt(average(away * away) + average(variance) + layer.epsilon)
        normal = away * scale

        def back(paths: Array, add: Any) -> Array:
            paths, n = paths * gamma, normal[:, np.newaxis]
            along = paths - average(paths) - n * average(paths * n)
            return along * scale[:, np.newaxis]

        spread = variance * np.square(gamma * scale)
        return Passed(normal * gamma + beta, spread, back)

    yield step


def _flatten(layer: Flatten, training_step: int) -> Iterator[Step]:
    def step(mean: Array, variance: Array) -> Passed:
        shape = mean.shape[1:]
        back = partial(_reshaped, shape)
        return Passed(mean.reshape(len(mean), -1), variance.reshape(len(mean), -1), back)

    yield step


def _reshaped(shape: tuple[int, ...], paths: Array, add: Any) -> Array:
    return paths.reshape(*paths.shape[:2], *shape)


def _residual(layer: Residual, training_step: int) -> Iterator[Step]:
    """Add the variances of x and f(x), as if they were independent."""
    inside = [step for inner in layer.layers for step in steps_of(inner, training_step)]

    def step(mean: Array, variance: Array) -> Passed:
        branch, spread, passed = mean, variance, []
        for inner in inside:
            passed.append(inner(branch, spread))
            branch, spread = passed[-1][:2]

        def back(paths: Array, add: Callable[[Array, Noise], None]) -> Array:
            return paths + gone_back(passed, paths, add)

        return Passed(mean + branch, variance + spread, back)

    yield step


def gone_back(passed: list[Passed], paths: Array, add: Callable[[Array, Noise], None]) -> Array:
    """Return the derivatives before these steps; `add` is called with the noise on the way."""
    own: Array | None = None  # independent noise of steps with the same paths
    for step in reversed(passed):
        if step.noise is not None:
            own = step.noise.variance if own is None else own + step.noise.variance
            if step.noise.amplitude is not None:
                add(paths, Noise(own, *step.noise[1:]))
                own = None
        if own is not None and step.back is not _unchanged:
            add(paths, Noise(own))
            own = None
        paths = step.back(paths, add)
    if own is not None:
        add(paths, Noise(own))
    return paths


# ---- activations ---------------------------------------------------------------------------------


def _activations(layer: Activation, training_step: int) -> Iterator[Step]:
    yield from _activation(layer.activation)


def _activation(name: str) -> Iterator[Step]:
    if name == "softmax":
        raise ValueError("layers: expected softmax only at the end; predict_mc takes all models")
    if name == "relu":
        yield partial(_kinked, 0.0)
    elif name == "leaky_relu":
        yield partial(_kinked, LEAKY_SLOPE)
    elif name != "linear":
        yield partial(_smooth, name)


def _relu_of(mean: Array, variance: Array) -> tuple[Array, Array, Array]:
    """Return mean and variance of max(z, 0) for a normal variate z, and the probability of z > 0.

    This probability is also the mean's derivative. Times the variance of z it is the covariance of
    z and max(z, 0).
    """
    s = np.sqrt(variance)
    t = np.clip(mean / np.maximum(s, np.finfo(s.dtype).tiny), -FAR, FAR)
    positive = normal_cdf(t)
    density = np.exp(t * t * -0.5) * t.dtype.type(math.sqrt(0.5 / math.pi))
    unit = t * positive + density  # the mean for the variance 1
    square = (t * t + 1) * positive + t * density
    return (
        mean * positive + s * density,
        np.maximum(square - unit * unit, 0) * variance,
        positive,
    )


def _kinked(slope: float, mean: Array, variance: Array) -> Passed:
    """Pass a normal variate z through max(z, slope z), which is slope z + (1 - slope) max(z, 0)."""
    relu, relu_variance, positive = _relu_of(mean, variance)
    rest = 1 - slope
    gain = slope + rest * positive
    total = slope * (slope + 2 * rest * positive) * variance + rest * rest * relu_variance
    y = slope * mean + rest * relu
    return _through(gain, Noise(np.maximum(total - gain * gain * variance, 0)), y, total)


@cache
def _nodes() -> list[tuple[float, float]]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    return list(zip(nodes.tolist(), (weights / weights.sum()).tolist()))


def _smooth(name: str, mean: Array, variance: Array) -> Passed:
    """Pass a normal variate through any other function, by Gauss-Hermite quadrature."""
    function, s = ACTIVATIONS[name], np.sqrt(variance)
    centre, backward = function(mean, None)
    first, second, product = (np.zeros_like(mean) for _ in range(3))
    for node, weight in _nodes():
        shift = function(mean + node * s, None)[0] - centre
        first += weight * shift
        second += weight * shift * shift
        product += (weight * node) * shift
    slope = backward(np.ones_like(mean))
    gain = np.where(s > 0, product / np.where(s > 0, s, 1), slope)
    total = np.maximum(second - first * first, 0)
    noise = Noise(np.maximum(total - gain * gain * variance, 0))
    return _through(gain, noise, centre + first, total)


# ---- few inputs ----------------------------------------------------------------------------------


def few_inputs_step(layers: Sequence[Layer], shape: Shape) -> Step | None:
    """Return the step that `few_inputs` makes of the first two layers, if it fits them."""
    if len(layers) < 2 or len(shape) != 1 or shape[0] > FEW:
        return None
    dropout, dense = layers[:2]
    if not isinstance(dense, Dense) or type(dense) is not Dense or dense.activation != "relu":
        return None
    if not isinstance(dropout, Dropout) or not is_element_wise(dropout):
        return None
    if not isinstance(dropout.p, float):
        return None
    return partial(few_inputs, dropout.p, dense) if 0 < dropout.p < 1 else None


def few_inputs(p: float, dense: Dense, mean: Array, variance: Array) -> Passed:
    """Pass a few known inputs through their dropout, a Dense and its ReLU, as one step.

    The output of a Dense with a few inputs, each there or dropped, is not a normal variate. With
    p = 0.05 usually all inputs are there, and a dropped one is no small change. So an input's path
    to a unit is the difference between the unit's mean with and without the input, not a slope.
    What two inputs do to a unit together is neglected. The unit's own mean and variance are sums
    over the cases that all inputs are kept, that one of them is dropped, and all other cases, which
    are taken for normal.
    """
    kept = 1 - p
    weight, bias = dense.params["weight"], dense.params.get("bias", 0.0)
    parts = mean[:, :, np.newaxis] * weight.T / kept  # (rows, inputs, units), for kept inputs
    z = kept * parts.sum(axis=1) + bias
    each = p * kept * np.square(parts)
    spread = each.sum(axis=1)
    others = np.maximum(spread[:, np.newaxis] - each, 0)
    there, away = (_relu_of(z[:, np.newaxis] + a * parts, others)[0] for a in (p, -kept))

    def back(paths: Array, add: Callable[[Array, Noise], None]) -> Array:
        to_inputs = paths @ np.swapaxes(there - away, 1, 2)
        add(to_inputs, Noise(np.full_like(mean, p * kept)))
        return to_inputs

    inputs = parts.shape[1]
    whole = z + p * parts.sum(axis=1)
    outcomes = np.concatenate([whole[:, np.newaxis], whole[:, np.newaxis] - parts], axis=1)
    chances = np.full((inputs + 1, 1), p * kept ** (inputs - 1), mean.dtype)
    chances[0] = kept**inputs
    else_ = max(0.0, 1 - float(chances.sum()))
    first = (chances * outcomes).sum(axis=1)
    second = (chances * np.square(outcomes)).sum(axis=1)
    relu = np.maximum(outcomes, 0)
    y, square = (chances * relu).sum(axis=1), (chances * np.square(relu)).sum(axis=1)
    if else_ > 1e-6:
        centre = (z - first) / else_
        rest = np.maximum((spread + z * z - second) / else_ - centre * centre, 0)
        its_mean, its_variance, _ = _relu_of(centre, rest)
        y, square = y + else_ * its_mean, square + else_ * (its_variance + its_mean * its_mean)
    return Passed(y, np.maximum(square - y * y, 0), back)


# ---- the dropout family --------------------------------------------------------------------------


def _times(
    factor: float, spread: float, axes: tuple[int, ...], mean: Array, variance: Array
) -> Passed:
    """Multiply by a variate of this mean and variance, one for all elements along the axes."""
    own = spread * variance
    total = factor * factor * variance + own + spread * mean * mean
    if axes:
        noise = Noise(own, math.sqrt(spread) * mean, axes)
    else:
        noise = Noise(own + spread * mean * mean)
    return _through(factor, noise, factor * mean, total)


def _dropout(layer: Dropout, training_step: int) -> Iterator[Step]:
    p = rate_at(layer.p, training_step)
    factor, spread = 1.0, p / (1 - p) if p < 1 else 0.0
    if layer.mode == "vanilla":
        factor, spread = 1 - p, p * (1 - p)
    elif p == 1:
        factor = 0.0

    def step(mean: Array, variance: Array) -> Passed:
        # Rows may share a mask: the distribution of each row is the same as without sharing.
        axes = tuple(a for a in checked_axes(layer.shared_axes, mean.ndim) if a)
        return _times(factor, spread, axes, mean, variance)

    yield step


def _drop_path(layer: DropPath, training_step: int) -> Iterator[Step]:
    p = rate_at(layer.p, training_step)
    factor, spread = (1.0, p / (1 - p)) if p < 1 else (0.0, 0.0)
    yield lambda mean, variance: _times(factor, spread, tuple(range(1, mean.ndim)), mean, variance)


def _gaussian_dropout(layer: GaussianDropout, training_step: int) -> Iterator[Step]:
    p = rate_at(layer.p, training_step)
    yield partial(_times, 1.0, p / (1 - p), ())


def _gaussian_noise(layer: GaussianNoise, training_step: int) -> Iterator[Step]:
    added = layer.stddev**2
    yield lambda mean, variance: _through(
        1.0, Noise(np.full_like(mean, added)), mean, variance + added
    )


def _alpha_dropout(layer: AlphaDropout, training_step: int) -> Iterator[Step]:
    p = rate_at(layer.p, training_step)
    scale, kept, dropped = alpha_coefficients(p)  # y = scale x + kept, or dropped

    def step(mean: Array, variance: Array) -> Passed:
        if any(checked_axes(layer.shared_axes, mean.ndim)):
            raise ValueError(
                f"layer {layer.name!r}: expected AlphaDropout of elements, got shared_axes = "
                f"{layer.shared_axes}; predict_mc takes all layers"
            )
        away = scale * mean + kept - dropped  # what dropping an element takes from the mean
        gain = scale * (1 - p)
        noise = p * (scale * scale * (1 - p) * variance + (1 - p) * away * away)
        y = (1 - p) * away + dropped
        return _through(gain, Noise(noise), y, gain * gain * variance + noise)

    yield step


def _drop_connect(layer: DropConnect, training_step: int) -> Iterator[Step]:
    """Pass through units that have their own weights, and so their own noise."""
    weight, bias = layer.params["weight"], layer.params.get("bias")
    p = rate_at(layer.p, training_step)
    spread = p / (1 - p) if p < 1 else 0.0
    squares = np.square(weight)

    def step(mean: Array, variance: Array) -> Passed:
        if mean.ndim > 2:
            raise ValueError(
                f"layer {layer.name!r}: expected DropConnect of samples of one axis, where each "
                f"output has weights of its own, got {mean.ndim - 1}; predict_mc takes all layers"
            )
        kept = weight if p < 1 else np.zeros_like(weight)
        passed = _affine(kept, np.square(kept), bias, mean, variance)
        own = spread * ((variance + mean * mean) @ squares.T)
        return Passed(passed.mean, passed.variance + own, passed.back, Noise(own))

    yield step
    yield from _activation(layer.activation)


def _concrete_dropout(layer: ConcreteDropout, training_step: int) -> Iterator[Step]:
    logit = float(layer.params["logit"][0])
    u = (np.arange(1 << 12) + 0.5) / (1 << 12)
    kept = sigmoid((-logit - np.log(u / (1 - u))) / layer.temperature)
    scale = kept * (1 + math.exp(logit))  # 1 / (1 - p) = 1 + exp(logit)
    yield partial(_times, float(scale.mean()), float(scale.var()), ())
    yield from _dense(layer, training_step)


RULES: dict[type[Layer], Callable[[Any, int], Iterator[Step]]] = {
    Activation: _activations,
    AlphaDropout: _alpha_dropout,
    BatchNormalization: _normalized,
    ConcreteDropout: _concrete_dropout,
    Dense: _dense,
    DropConnect: _drop_connect,
    DropPath: _drop_path,
    Dropout: _dropout,
    Dropout1d: _dropout,
    Dropout2d: _dropout,
    Dropout3d: _dropout,
    Flatten: _flatten,
    GaussianDropout: _gaussian_dropout,
    GaussianNoise: _gaussian_noise,
    LayerNormalization: _layer_normalized,
    LockedDropout: _dropout,
    ReLU: _activations,
    Residual: _residual,
}
