"""What dropout leaves inside a network: its weights, and what its hidden units give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastdrop.layers import Array, Batch, Dense, Layer

__all__ = [
    "Fingerprint",
    "Histogram",
    "activations",
    "fingerprints",
    "likeness",
    "unit_images",
    "weights",
]

BINS = 40
SHOWN = 0.998  # of the values; the rest would squeeze them into a corner
UNITS = 25


class Histogram(NamedTuple):
    """How values are spread.

    Attributes
    ----------
    edges : list of float
    shares : list of float
        Of all values, in each bin.
    zeros : float
        The share of values that are 0, which are in no bin.
    deviation : float
        The values' standard deviation.
    """

    edges: list[float]
    shares: list[float]
    zeros: float
    deviation: float


class Fingerprint(NamedTuple):
    """Histograms of the same thing in several networks, over the same bins.

    Attributes
    ----------
    title : str
        "hidden layer 1", say.
    histograms : dict of str to Histogram
        By "without" and "with".
    """

    title: str
    histograms: dict[str, Histogram]


def activations(layers: Sequence[Layer], x: Array) -> list[Array]:
    """Return what each hidden Dense layer gives at inference: all but the last one's."""
    found = []
    for layer in layers:
        x, _ = layer.forward(x, Batch(training=False))
        if isinstance(layer, Dense):
            found.append(x)
    return found[:-1]


def likeness(active: Array) -> float:
    """Return how much a layer's units repeat each other: their mean correlation, without signs.

    Parameters
    ----------
    active : ndarray, (samples, units)
        What they give; units that always give the same are left out.

    Returns
    -------
    float
        From 0 to 1; NaN for fewer than two units.

    References
    ----------
    Srivastava et al. 2014, Dropout, JMLR 15, section 7.1, on units that adapt to each other.
    """
    table = active.reshape(len(active), -1).astype(np.float64)
    table = table[:, np.ptp(table, axis=0) > 0]
    units = table.shape[1]
    if units < 2:
        return math.nan
    correlation = np.abs(np.corrcoef(table, rowvar=False))
    return float((correlation.sum() - units) / (units * (units - 1)))


def weights(layers: Sequence[Layer]) -> list[Array]:
    """Return each Dense layer's weights."""
    return [layer.params["weight"] for layer in layers if isinstance(layer, Dense)]


def fingerprints(titles: Sequence[str], arrays: dict[str, list[Array]]) -> list[Fingerprint]:
    """Return histograms over bins that all networks share.

    Parameters
    ----------
    titles : sequence of str
    arrays : dict of str to list of ndarray
        By "without" and "with", an array for each title.
    """
    found = []
    for title, *group in zip(titles, *arrays.values(), strict=True):
        flat = [array.ravel()[array.ravel() != 0].astype(np.float64) for array in group]
        everything = np.concatenate(flat)
        if not everything.size:
            continue
        outside = (1 - SHOWN) / 2
        low, high = np.quantile(everything, [outside, 1 - outside])
        low, high = (0.0, high) if everything.min() >= 0 else (low, high)
        if not high > low:
            low, high = low - 0.5, high + 0.5
        edges = np.linspace(low, high, BINS + 1)
        histograms = {}
        for name, values, array in zip(arrays, flat, group, strict=True):
            counts, _ = np.histogram(values, edges)
            histograms[name] = Histogram(
                edges.tolist(),
                (counts / array.size).tolist(),
                1 - values.size / array.size,
                float(array.std(dtype=np.float64)),
            )
        found.append(Fingerprint(title, histograms))
    return found


def unit_images(layers: Sequence[Layer], shape: Sequence[int], most: int = UNITS) -> Array | None:
    """Return the weights of the first layer's units as images, those of large weights first.

    Parameters
    ----------
    layers : sequence of Layer
    shape : sequence of int
        Of an image: height, width and perhaps channels, over which is the mean.
    most : int

    Returns
    -------
    ndarray, (units, height, width), or None
        None where the first layer does not see the whole image.
    """
    first = next((layer for layer in layers if isinstance(layer, Dense)), None)
    if first is None or first.params["weight"].shape[1] != np.prod(shape):
        return None
    weight = first.params["weight"]
    order = np.argsort(-np.square(weight).sum(axis=1), kind="stable")[:most]
    images = weight[order].reshape(-1, *shape)
    return images.mean(axis=-1) if images.ndim == 4 else images
