"""Initialisers, which draw a layer's weights before training.

Each is a pure function of a shape and a key, with the same values on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastdrop._checks import checked_stddev, lookup
from fastdrop._quiet import underflowing
from fastdrop._serialization import Configurable, deserialize, serialize
from fastdrop._typed import short_name
from fastdrop.noise import gaussian_noise
from fastdrop.random import Key, uniform

__all__ = [
    "INITIALIZERS",
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "Zeros",
    "get",
    "serialize",
]


class Initializer(Configurable):
    """Base class of all initialisers."""

    def __call__(self, shape: tuple[int, ...], key: Key) -> np.ndarray:
        """Return initial values for a parameter.

        Parameters
        ----------
        shape : tuple of int
            The shape of the parameter: (units, inputs) for weights.
        key : Key
            Source of the randomness.

        Returns
        -------
        ndarray of float64
            The values, in the given shape.
        """
        raise NotImplementedError

    def _as_argument(self) -> str:
        """Return how it is written as an argument: by its name, if that is all there is to say."""
        return short_name(self, INITIALIZERS)


class Constant(Initializer):
    """The same value everywhere.

    Parameters
    ----------
    value : float
        The value.
    """

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def __call__(self, shape: tuple[int, ...], key: Key) -> np.ndarray:
        return np.full(shape, self.value, np.float64)


class Zeros(Constant):
    """0 everywhere."""

    def __init__(self) -> None:
        super().__init__(0.0)


class Ones(Constant):
    """1 everywhere."""

    def __init__(self) -> None:
        super().__init__(1.0)


class RandomUniform(Initializer):
    """Uniform between `minval` and `maxval`.

    Parameters
    ----------
    minval, maxval : float
        The bounds, finite numbers, with minval at most maxval.

    Raises
    ------
    ValueError
        When a bound is not finite, or `minval` is above `maxval`.
    """

    def __init__(self, minval: float = -0.05, maxval: float = 0.05) -> None:
        if not -math.inf < minval <= maxval < math.inf:
            raise ValueError(f"minval: expected a number up to maxval {maxval}, got {minval}")
        self.minval = minval
        self.maxval = maxval

    @underflowing
    def __call__(self, shape: tuple[int, ...], key: Key) -> np.ndarray:
        return self.minval + (self.maxval - self.minval) * uniform(key, shape)


class RandomNormal(Initializer):
    """Normal with a given mean and standard deviation.

    Parameters
    ----------
    mean : float
        The mean.
    stddev : float
        The standard deviation, at least 0.

    Raises
    ------
    ValueError
        When `stddev` is negative or not finite.
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05) -> None:
        self.mean = mean
        self.stddev = checked_stddev(stddev)

    @underflowing
    def __call__(self, shape: tuple[int, ...], key: Key) -> np.ndarray:
        return self.mean + self.stddev * self._standard(shape, key)

    def _standard(self, shape: tuple[int, ...], key: Key) -> np.ndarray:
        return gaussian_noise(np.zeros(shape), 1.0, key=key)


class TruncatedNormal(RandomNormal):
    """Normal, but drawn again until it lies within two `stddev` of the mean, as in Keras.

    Parameters
    ----------
    mean, stddev
        As for `RandomNormal`.
    """

    def _standard(self, shape: tuple[int, ...], key: Key) -> np.ndarray:
        z = super()._standard(shape, key)
        draws = 0
        while (outside := np.abs(z) > 2).any():
            draws += 1
            again = int(np.count_nonzero(outside))
            z[outside] = super()._standard((again,), key.fold_in(draws))
        return z


class _Scaled(Initializer):
    """Base class of initialisers with variance `scale` / n, where n depends on the shape.

    n is the number of inputs, or, with `average`, the mean of the numbers of inputs and units.
    """

    scale: float
    average = False
    normal = False

    @underflowing
    def __call__(self, shape: tuple[int, ...], key: Key) -> np.ndarray:
        units, inputs = shape
        n = (inputs + units) / 2 if self.average else inputs
        if self.normal:
            # 0.8796... is the standard deviation of a standard normal after truncation.
            stddev = math.sqrt(self.scale / n) / 0.87962566103423978
            return TruncatedNormal(0.0, stddev)(shape, key)
        return (2 * uniform(key, shape) - 1) * math.sqrt(3 * self.scale / n)


class GlorotUniform(_Scaled):
    """Uniform of variance 2 / (inputs + units) [1]_, for symmetric activations such as tanh.

    References
    ----------
    .. [1] Glorot and Bengio 2010, Understanding the difficulty of training deep feedforward neural
       networks, AISTATS.
    """

    scale = 1.0
    average = True


class GlorotNormal(GlorotUniform):
    """Truncated normal of variance 2 / (inputs + units); see `GlorotUniform` for the source."""

    normal = True


class HeUniform(_Scaled):
    """Uniform of variance 2 / inputs [1]_, for ReLU.

    References
    ----------
    .. [1] He et al. 2015, Delving deep into rectifiers: surpassing human-level performance on
       ImageNet classification, ICCV.
    """

    scale = 2.0


class HeNormal(HeUniform):
    """Truncated normal of variance 2 / inputs, for ReLU; see `HeUniform` for the source."""

    normal = True


class LecunUniform(_Scaled):
    """Uniform of variance 1 / inputs [1]_, for SELU.

    References
    ----------
    .. [1] LeCun et al. 1998, Efficient backprop; Klambauer et al. 2017, Self-normalizing neural
       networks, NIPS.
    """

    scale = 1.0


class LecunNormal(LecunUniform):
    """Truncated normal of variance 1 / inputs, for SELU; see `LecunUniform` for the source."""

    normal = True


#: The initializers, by the names that ``kernel_initializer=`` takes.
INITIALIZERS: dict[str, type[Initializer]] = {
    "glorot_normal": GlorotNormal,
    "glorot_uniform": GlorotUniform,
    "he_normal": HeNormal,
    "he_uniform": HeUniform,
    "lecun_normal": LecunNormal,
    "lecun_uniform": LecunUniform,
    "ones": Ones,
    "random_normal": RandomNormal,
    "random_uniform": RandomUniform,
    "truncated_normal": TruncatedNormal,
    "zeros": Zeros,
}


def get(initializer: str | Initializer | Mapping[str, Any]) -> Initializer:
    """Return an initialiser for its name or description.

    Parameters
    ----------
    initializer : str, Initializer or dict
        A name in `INITIALIZERS`, an initialiser, or the description that `serialize` made of one.

    Returns
    -------
    Initializer
        The initialiser. One that is given is returned as it is.

    Raises
    ------
    ValueError
        When `initializer` is something else.
    """
    if isinstance(initializer, Initializer):
        return initializer
    if isinstance(initializer, Mapping):
        return deserialize("kernel_initializer", initializer, Initializer)
    return lookup("kernel_initializer", initializer, INITIALIZERS)()
