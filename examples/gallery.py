"""Pictures of what each layer of the family does.

Dark means dropped. Shades are factors, or what was added.
"""

import argparse
import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fastdrop import Key, layers
from fastdrop._output import replace_file
from fastdrop.layers import Batch

PICTURE = Path("docs", "figures", "gallery.png")
KEY = Key(2014)
MAP, SEQUENCE = (4, 3, 14, 14), (4, 14, 14)

# name, layer, shape of a batch of ones; the axes of the panel
PANELS = [
    ("Dropout(0.3)", layers.Dropout(0.3), MAP, "images x channels"),
    ("Dropout2d(0.3)", layers.Dropout2d(0.3), MAP, "images x channels"),
    ("DropBlock2d(0.3, 5)", layers.DropBlock2d(0.3, 5), MAP, "images x channels"),
    ("DropPath(0.3)", layers.DropPath(0.3), MAP, "images x channels"),
    ("AlphaDropout(0.3)", layers.AlphaDropout(0.3), MAP, "images x channels"),
    ("FeatureAlphaDropout(0.3)", layers.FeatureAlphaDropout(0.3), MAP, "images x channels"),
    ("GaussianDropout(0.3)", layers.GaussianDropout(0.3), MAP, "images x channels"),
    ("GaussianNoise(0.3)", layers.GaussianNoise(0.3), MAP, "images x channels"),
    ("Dropout3d(0.3)", layers.Dropout3d(0.3), (4, 3, 2, 14, 14), "volumes x channels"),
    ("Dropout1d(0.3), features first", layers.Dropout1d(0.3), SEQUENCE, "features x time"),
    ("LockedDropout(0.3)", layers.LockedDropout(0.3), SEQUENCE, "time x features"),
    ("WeightDropout(0.3)", layers.WeightDropout(0.3), (14, 14), "units x units"),
    ("EmbeddingDropout(0.3)", layers.EmbeddingDropout(0.3), (14, 14), "words x features"),
    ("Zoneout(0.3), dark = old state", layers.Zoneout(0.3), (14, 14), "samples x units"),
]


def picture(y):
    """Put maps side by side, a row for each image, with a line between; of sequences, the first."""
    if y.ndim == 3:
        return y[0]
    if y.ndim == 5:
        y = y[:, :, 0]
    if y.ndim == 2:
        return y
    framed = np.pad(y, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    images, channels, height, width = framed.shape
    return framed.transpose(0, 2, 1, 3).reshape(images * height, channels * width)[:-1, :-1]


def concrete():
    """Return the factors that ConcreteDropout puts on its inputs, from high temperature to low."""
    rows = []
    for temperature in np.geomspace(2, 0.02, 14):
        layer = layers.ConcreteDropout(14, 0.3, temperature=temperature)
        layer.build((14,), KEY)
        layer.params["weight"] = np.eye(14, dtype=np.float32)
        rows.append(layer.forward(np.ones((1, 14), np.float32), Batch(key=KEY))[0][0])
    return np.array(rows)


def connect():
    """Return the weights that DropConnect leaves."""
    layer = layers.DropConnect(14, 0.3)
    layer.params = {"weight": np.ones((14, 14)), "bias": np.zeros(14)}
    return layer.forward(np.eye(14), Batch(key=KEY))[0].T


def main(path):
    panels = [
        (name, picture(layer.forward(np.ones(shape), Batch(key=KEY))[0]), axes)
        for name, layer, shape, axes in PANELS
    ]
    panels += [
        ("DropConnect(units, 0.3)", connect(), "units x inputs"),
        ("ConcreteDropout(units, 0.3)", concrete(), "temperature, falling x inputs"),
    ]
    figure = Figure(figsize=(12, 13), dpi=90, layout="constrained")
    for axis, (name, values, axes) in zip(figure.subplots(4, 4).flat, panels):
        axis.imshow(values, cmap="viridis", vmin=min(0, np.nanmin(values)), vmax=2)
        axis.set_title(name, fontsize=10, loc="left")
        axis.set_xlabel(axes, fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    figure.savefig(file)
    replace_file(path, file.getvalue())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, nargs="?", default=PICTURE, help="picture (%(default)s)")
    main(parser.parse_args().path)
