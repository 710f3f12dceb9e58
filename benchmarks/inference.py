"""What `predict` costs: against the bare products of a large batch, and for one sample.

python benchmarks/inference.py
"""

import argparse

import numpy as np
from threads import medians

from fastdrop import layers
from fastdrop.models import Sequential


def network(inputs, *hidden):
    """A classifier of 10 classes, as trained with dropout."""
    stack = [layers.Input((inputs,))]
    for units in hidden:
        stack += [layers.Dense(units, activation="relu"), layers.Dropout(0.5)]
    return Sequential([*stack, layers.Dense(10, activation="softmax")], seed=1)


def products(model, batch):
    """Return a call that does the matrix products of `model.predict`, and nothing else."""
    weights = [param for name, param in model.params.items() if name.endswith("weight")]
    a = [np.ones((batch, weights[0].shape[1]), np.float32)]
    a += [np.empty((batch, len(w)), np.float32) for w in weights]

    def run():
        for w, x, y in zip(weights, a, a[1:]):
            np.matmul(x, w.T, out=y)

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=101)
    calls = parser.parse_args().calls
    random = np.random.default_rng(1)
    print("| network | samples a call | predict, us | products, us | ratio |")
    print("|---|---:|---:|---:|---:|")
    for widths, batch in (((784, 1024, 1024), 1024), ((64, 64), 1)):
        model = network(*widths)
        x = random.random((batch, widths[0]), np.float32)
        sides = {
            "predict": lambda model=model, x=x: model.predict(x, verbose=0),
            "products": products(model, batch),
        }
        predict, bare = medians(sides, calls if batch > 1 else 20 * calls).values()
        title = "-".join(map(str, (*widths, 10)))
        print(f"| {title} | {batch} | {predict:.1f} | {bare:.1f} | {predict / bare:.2f} |")


if __name__ == "__main__":
    main()
