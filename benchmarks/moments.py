"""How close `predict_moments` comes to 10 000 samples, compared with 100 samples: digits and MNIST.

    python benchmarks/moments.py --data ../shared/data/mnist --out docs/bench

Networks are trained for a few epochs, and predict test rows, as logits and as probabilities. The
table has the correlation of standard deviations with those of many samples, the median and the 5 to
95 % range of their ratios, the distance of the mean in standard deviations, and the mean error of
the entropy.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np
from rows import add_out, keep_rows
from training_sides import name_of

from fastdrop.datasets import load_digits, load_idx
from fastdrop.layers import Dense, Dropout, Input
from fastdrop.models import Sequential

TEST = 100  # rows to predict
MANY, FEW = 10_000, 100


def digits():
    x, y = load_digits()
    x = x.reshape(len(x), -1).astype(np.float32) / x.max()
    return x[:-TEST], y[:-TEST], x[-TEST:]


def mnist(folder):
    (x, y), (x_test, _) = load_idx(folder)
    flat = [a.reshape(len(a), -1).astype(np.float32) / 255 for a in (x[:10_000], x_test[:TEST])]
    return flat[0], y[:10_000], flat[1]


def trained(widths, p, p_input, x, y, activation):
    """Return a classifier. Without softmax at the end, the loss includes it."""
    stack = [Input((widths[0],)), *([Dropout(p_input)] if p_input else [])]
    for units in widths[1:-1]:
        stack += [Dense(units, "relu"), Dropout(p)]
    model = Sequential([*stack, Dense(widths[-1], "softmax")], seed=1)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, 64, epochs=max(3, 20_000 // len(x)), verbose=0)
    model.layers[-1].activation = activation
    return model


def rows_of(name, widths, p, p_input, activation, data):
    """Return two rows: one for moments, one for few samples."""
    x, y, x_test = data()
    model = trained(widths, p, p_input, x, y, activation)
    many, few = (model.predict_mc(x_test, n, seed=n, verbose=0) for n in (MANY, FEW))
    lines = []
    for way, got in (("moments", model.predict_moments(x_test)), (f"{FEW} samples", few)):
        told = many.std > 1e-6  # elsewhere there is nothing to compare
        ratio = (got.std[told] / many.std[told]).astype(np.float64)
        low, median, high = np.quantile(ratio, [0.05, 0.5, 0.95])
        away = (np.abs(got.mean - many.mean)[told] / many.std[told]).mean()
        correlation = np.corrcoef(got.std[told], many.std[told])[0, 1]
        entropy = "-"
        if activation == "softmax":
            entropy = f"{np.abs(got.entropy - many.entropy).mean():.4f}"
        lines.append(
            f"| {name}, {name_of(widths)}, {activation} | {p} | {way} | {correlation:.3f} "
            f"| {median:.2f} ({low:.2f} - {high:.2f}) | {away:.3f} | {entropy} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mnist"))
    add_out(parser)
    arguments = parser.parse_args()
    head = (
        f"Against {MANY} samples\n\n"
        "| network | p | | correlation | ratio of std | distance of mean | error of entropy |\n"
        "|---|---:|---|---:|---:|---:|---:|"
    )
    sets = [("digits", (64, 256, 256, 10), 0.0, digits)]
    if arguments.data.is_dir():
        sets.append(("MNIST", (784, 256, 256, 10), 0.2, partial(mnist, arguments.data)))
    rows = [
        (f"{name}, p = {p}", partial(rows_of, name, widths, p, p_input, activation, data))
        for name, widths, p_input, data in sets
        for p in (0.2, 0.5)
        for activation in ("linear", "softmax")
    ]
    return keep_rows([(head, rows)], "moments.md", arguments.out)


if __name__ == "__main__":
    sys.exit(main())
