"""Keras's dropout by fastdrop's kernels: ``from fastdrop.keras import Dropout``.

This module has layers with the names and arguments of Keras 3, whose masks are the same on the
backends torch, jax and tensorflow. `convert` and `revert` change whole models.
docs/reference/keras_layers.md has the details.
"""

_NEEDED, _BACKENDS = (3, 10), ("torch", "jax", "tensorflow")

import os as _os

try:
    import keras as _keras
except ImportError as error:
    raise ImportError(
        f"fastdrop.keras needs Keras: pip install 'fastdrop-nn[keras]' ({error})"
    ) from None
_version = getattr(_keras, "__version__", "0")
if tuple(map(int, _version.split(".")[:2])) < _NEEDED:
    raise ImportError(
        f"fastdrop.keras needs Keras {'.'.join(map(str, _NEEDED))} or later, got {_version}: "
        "pip install 'fastdrop-nn[keras]'"
    )
if _keras.backend.backend() not in _BACKENDS:
    raise ImportError(
        f"fastdrop.keras needs Keras's backend {', '.join(_BACKENDS[:-1])} or {_BACKENDS[-1]}, "
        f"got {_keras.backend.backend()}: set KERAS_BACKEND"
    )
if _keras.backend.backend() == "tensorflow" and _os.environ.get("TF_USE_LEGACY_KERAS") in (
    "1",
    "true",
    "True",
):
    raise ImportError(
        "fastdrop.keras needs Keras 3, but TF_USE_LEGACY_KERAS makes tf.keras Keras 2: unset it"
    )

from fastdrop.keras.convert import convert, revert
from fastdrop.keras.layers import (
    AlphaDropout,
    Dropout,
    GaussianDropout,
    GaussianNoise,
    SpatialDropout1D,
    SpatialDropout2D,
    SpatialDropout3D,
)

__all__ = [
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "convert",
    "revert",
]
