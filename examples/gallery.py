"""Pictures of what each layer of the family does.

Black is dropped, white is kept; the shades of noise are factors, or what was added.
"""

import argparse
import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fastdrop import Key, layers
from fastdrop._output import replace_file
from fastdrop.diagrams import draw_effect
from fastdrop.layers.effects import Effect, effect_of

PICTURE = Path("docs", "figures", "gallery.png")
KEY = Key(2014)
MAP, SEQUENCE = (4, 3, 14, 14), (1, 14, 14)

# name, layer, shape of a batch; the axes of the panel
PANELS = [
    ("Dropout(0.3)", layers.Dropout(0.3), MAP, "images x channels"),
    ("Dropout2d(0.3)", layers.Dropout2d(0.3), MAP, "images x channels"),
    ("DropBlock2d(0.3, 5)", layers.DropBlock2d(0.3, 5), MAP, "images x channels"),
    ("DropPath(0.3)", layers.DropPath(0.3), MAP, "images x channels"),
    ("AlphaDropout(0.3)", layers.AlphaDropout(0.3), MAP, "images x channels"),
    ("FeatureAlphaDropout(0.3)", layers.FeatureAlphaDropout(0.3), MAP, "images x channels"),
    ("GaussianDropout(0.3)", layers.GaussianDropout(0.3), MAP, "images x channels"),
    ("GaussianNoise(0.3)", layers.GaussianNoise(0.3), MAP, "images x channels"),
    ("Dropout3d(0.3)", layers.Dropout3d(0.3), (4, 2, 2, 14, 14), "volumes x slices of channels"),
    ("Dropout1d(0.3), features first", layers.Dropout1d(0.3), SEQUENCE, "features x time"),
    ("LockedDropout(0.3)", layers.LockedDropout(0.3), SEQUENCE, "time x features"),
    ("WeightDropout(0.3)", layers.WeightDropout(0.3), (14, 14), "units x units"),
    ("EmbeddingDropout(0.3)", layers.EmbeddingDropout(0.3), (14, 14), "words x features"),
    ("Zoneout(0.3), black = old state", layers.Zoneout(0.3), (14, 14), "samples x units"),
    ("DropConnect(units, 0.3)", layers.DropConnect(14, 0.3), (14, 14), "units x inputs"),
]


def concrete():
    """Return the factors that ConcreteDropout puts on its inputs, from high temperature to low."""
    rows = []
    for temperature in np.geomspace(2, 0.02, 14):
        layer = layers.ConcreteDropout(14, 0.3, temperature=temperature)
        rows.append(effect_of(layer, (1, 14), KEY).values[0])
    return Effect(np.array(rows), None)


def main(path):
    panels = [(name, effect_of(layer, shape, KEY), axes) for name, layer, shape, axes in PANELS]
    panels.append(("ConcreteDropout(units, 0.3)", concrete(), "temperature, falling x inputs"))
    figure = Figure(figsize=(12, 13), dpi=90, layout="constrained")
    for axis, (name, effect, axes) in zip(figure.subplots(4, 4).flat, panels):
        draw_effect(axis, effect)
        axis.set_title(name, fontsize=10, loc="left")
        axis.set_xlabel(axes, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    figure.savefig(file)
    replace_file(path, file.getvalue())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, nargs="?", default=PICTURE, help="picture (%(default)s)")
    main(parser.parse_args().path)
