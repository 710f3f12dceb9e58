"""Layers: the dropout family, and what a multi-layer perceptron needs around it.

What all layers share is in base.py, what a layer knows of its batch in batch.py, and p over time
in schedules.py. The dropout family is in dropout.py, noise.py, recurrent.py and dense_dropout.py.
The other layers are in core.py (Dense and similar ones), activations.py, normalization.py and
residual.py (layers around layers).
"""

from fastdrop.layers import schedules
from fastdrop.layers.activations import ACTIVATIONS, sigmoid, softmax
from fastdrop.layers.base import (
    Array,
    Backward,
    Input,
    Layer,
    PartialGradient,
    Shape,
    WeightRule,
    deserialize,
    serialize,
)
from fastdrop.layers.batch import Batch
from fastdrop.layers.core import Activation, Dense, Flatten, ReLU, Softmax
from fastdrop.layers.dense_dropout import ConcreteDropout, DropConnect
from fastdrop.layers.dropout import (
    AlphaDropout,
    DropBlock2d,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    DropPath,
    FeatureAlphaDropout,
)
from fastdrop.layers.noise import GaussianDropout, GaussianNoise
from fastdrop.layers.normalization import BatchNormalization, LayerNormalization
from fastdrop.layers.recurrent import EmbeddingDropout, LockedDropout, WeightDropout, Zoneout
from fastdrop.layers.residual import Residual

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "AlphaDropout",
    "Array",
    "Backward",
    "Batch",
    "BatchNormalization",
    "ConcreteDropout",
    "Dense",
    "DropBlock2d",
    "DropConnect",
    "DropPath",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "EmbeddingDropout",
    "FeatureAlphaDropout",
    "Flatten",
    "GaussianDropout",
    "GaussianNoise",
    "Input",
    "Layer",
    "LayerNormalization",
    "LockedDropout",
    "PartialGradient",
    "ReLU",
    "Residual",
    "Shape",
    "Softmax",
    "WeightDropout",
    "WeightRule",
    "Zoneout",
    "deserialize",
    "schedules",
    "serialize",
    "sigmoid",
    "softmax",
]
