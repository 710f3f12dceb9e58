"""Small data, and a small model to train on them."""

import numpy as np

from fastdrop.layers import (
    Dense,
    Dropout,
)
from fastdrop.models import Sequential


def data(n=50, inputs=6, classes=3):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, inputs)).astype(np.float32), rng.integers(0, classes, n)


def mlp(seed=0, **compiled):
    model = Sequential([Dense(8, "relu"), Dropout(0.5), Dense(3, "softmax")], seed=seed)
    model.compile(
        **{"optimizer": "adam", "loss": "sparse_categorical_crossentropy"}
        | {"metrics": ["accuracy"]}
        | compiled
    )
    return model
