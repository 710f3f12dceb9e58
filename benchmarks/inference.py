"""What `predict` costs, for a large batch compared with its bare products, and for one sample; and
what `train_on_batch` costs for one.

python benchmarks/inference.py --out docs/bench
"""

import argparse
import sys
from functools import partial

import numpy as np
from rows import add_out, keep_rows
from threads import medians
from training_sides import name_of

from fastdrop import layers
from fastdrop.models import Sequential


def network(inputs, *hidden):
    """Return a classifier of 10 classes, as after training with dropout."""
    stack = [layers.Input((inputs,))]
    for units in hidden:
        stack += [layers.Dense(units, activation="relu"), layers.Dropout(0.5)]
    return Sequential([*stack, layers.Dense(10, activation="softmax")], seed=1)


def products(model, batch):
    """Return a call that only does the matrix products of `model.predict`."""
    weights = [param for name, param in model.params.items() if name.endswith("weight")]
    a = [np.ones((batch, weights[0].shape[1]), np.float32)]
    a += [np.empty((batch, len(w)), np.float32) for w in weights]

    def run():
        for w, x, y in zip(weights, a, a[1:]):
            np.matmul(x, w.T, out=y)

    return run


def measure(widths, batch, calls):
    """Return the row of a network."""
    model = network(*widths)
    x = np.random.default_rng(1).random((batch, widths[0]), np.float32)
    sides = {"predict": lambda: model.predict(x, verbose=0), "products": products(model, batch)}
    predict, bare = medians(sides, calls if batch > 1 else 20 * calls).values()
    title = name_of((*widths, 10))
    return f"| {title} | {batch} | {predict:.1f} | {bare:.1f} | {predict / bare:.2f} |"


def measure_training(widths, optimizer, p, calls):
    """Return the row of a network that is trained on one sample a call."""
    stack = [layers.Input(widths[:1])]
    for units in widths[1:]:
        stack += [layers.Dense(units, activation="relu")] + [layers.Dropout(p)] * (p > 0)
    model = Sequential([*stack, layers.Dense(10, activation="softmax")], seed=1)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    x, y = np.random.default_rng(1).random((1, widths[0]), np.float32), np.array([3])
    sides = {
        "train": lambda: model.train_on_batch(x, y),
        "test": lambda: model.test_on_batch(x, y),
    }
    train, test = medians(sides, 20 * calls, untimed=1).values()
    return f"| {name_of((*widths, 10))} | {optimizer} | {p or 'none'} | {train:.1f} | {test:.1f} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=101)
    add_out(parser)
    arguments = parser.parse_args()
    head = "| network | samples a call | predict, us | products, us | ratio |"
    head += "\n|---|---:|---:|---:|---:|"
    rows = [
        (name_of((*widths, 10)), partial(measure, widths, batch, arguments.calls))
        for widths, batch in (((784, 1024, 1024), 1024), ((64, 64), 1))
    ]
    training_head = "| network | optimiser | dropout | train_on_batch, us | test_on_batch, us |"
    training_head += "\n|---|---|---:|---:|---:|"
    training_rows = [
        (
            f"{optimizer}, dropout {p or 'none'}",
            partial(measure_training, (64, 64), optimizer, p, arguments.calls),
        )
        for optimizer in ("sgd", "adam")
        for p in (0, 0.5)
    ]
    tables = [(head, rows), (training_head, training_rows)]
    return keep_rows(tables, "inference.md", arguments.out)


if __name__ == "__main__":
    sys.exit(main())
