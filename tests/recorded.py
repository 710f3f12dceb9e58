"""What a release computes, through the public interface: `python recorded.py > recorded.json`.

Where only this package's own arithmetic is in it, to the bit (a checksum); where NumPy's products
are, whose sums depend on the processor, in float64 and to rounding.
"""

import json
import zlib

import numpy as np

import fastdrop
from fastdrop import Key, Sequential, layers, learning_rates, optimizers

X = fastdrop.random.uniform(Key(1), (120, 12)) * 2 - 1
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
IMAGES = fastdrop.random.uniform(Key(2), (40, 3, 6, 6)).astype(np.float32)
KEY = Key(7, 3)

NETWORKS = {
    "element-wise": lambda: [
        layers.Dense(32, "relu"),
        layers.Dropout(0.5),
        layers.Dense(16, "tanh"),
        layers.Dropout(0.1),
        layers.Dense(3, "softmax"),
    ],
    "shared": lambda: [
        layers.Dropout(0.2, shared_axes=0),
        layers.Dense(32, "relu"),
        layers.Dropout(0.5, shared_axes=0, groups=2),
        layers.Dense(16),
        layers.ReLU(),
        layers.Dropout(0.5, shared_axes=0),
        layers.Dense(3, "softmax"),
    ],
    "normalised": lambda: [
        layers.Dense(24),
        layers.BatchNormalization(),
        layers.Activation("gelu"),
        layers.GaussianDropout(0.2),
        layers.Residual([layers.LayerNormalization(), layers.Dense(24, "selu"), layers.DropPath()]),
        layers.Dense(3),
        layers.Softmax(),
    ],
    "family": lambda: [
        layers.GaussianNoise(0.1),
        layers.DropConnect(24, 0.5, "relu"),
        layers.AlphaDropout(0.1),
        layers.ConcreteDropout(16, 0.2, "relu"),
        layers.Zoneout(0.1),
        layers.Dropout(0.3, mode="vanilla"),
        layers.Dense(3, "softmax", l2=1e-3, max_norm=2.0),
    ],
}
OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "adam": lambda: optimizers.Adam(learning_rates.CosineDecay(0.01, 100), clipnorm=1.0),
    "rmsprop": lambda: optimizers.RMSprop(),
}


def checksum(*arrays):
    total = 0
    for array in arrays:
        total = zlib.crc32(f"{array.dtype.str} {array.shape}".encode(), total)
        total = zlib.crc32(np.ascontiguousarray(array).tobytes(), total)
    return total


def bits():
    """Masks, noise and initial weights, as checksums."""
    x = X.astype(np.float32)
    found = {}
    for p in (0, 0.1, 0.25, 0.5, 0.9, 1):
        found[f"p = {p}"] = checksum(
            fastdrop.dropout_mask((257, 33), p, key=KEY),
            fastdrop.dropout(x, p, key=KEY, offset=5),
            fastdrop.dropout(IMAGES, p, key=KEY, shared_axes=(2, 3)),
            fastdrop.alpha_dropout(x, p, key=KEY),
            fastdrop.drop_path(x, p, key=KEY),
            fastdrop.drop_block2d(IMAGES, p, 3, key=KEY),
        )
    for p in (0, 0.1):
        options = {"key": KEY, "mask": X > -0.9, "offset": 5}
        found[f"softmax, p = {p}"] = checksum(
            *(fastdrop.softmax_dropout(a, p, **options) for a in (8 * x, 8 * X)),
            fastdrop.softmax_dropout_backward(x, 8 * x, p, causal=True, **options),
        )
    found["noise"] = checksum(fastdrop.gaussian_noise(x, 0.5, key=KEY))
    for name, stack in NETWORKS.items():
        model = Sequential([layers.Input((12,)), *stack()], seed=11)
        found[f"initial weights, {name}"] = checksum(*model.get_weights())
    return found


def numbers():
    """Figures and weights of trainings."""
    found = {}
    for name, stack in NETWORKS.items():
        for optimizer, make in OPTIMIZERS.items():
            model = Sequential(stack(), seed=11, dtype="float64")
            model.compile(make(), "sparse_categorical_crossentropy", ["accuracy"])
            history = model.fit(X, Y, batch_size=32, epochs=2, verbose=0, validation_split=0.2)
            found[f"{name}, {optimizer}"] = {
                "history": {k: [float(v) for v in values] for k, values in history.history.items()},
                "weights": [
                    [float(array.sum()), float(np.square(array).sum())]
                    for array in model.get_weights()
                ],
                "predict": model.predict(X[:2], verbose=0).tolist(),
                "random": model(X[:2], training=True).tolist(),
            }
    return found


if __name__ == "__main__":
    print(json.dumps({"bits": bits(), "numbers": numbers()}, indent=1))
