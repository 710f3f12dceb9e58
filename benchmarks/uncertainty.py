"""What a hundred samples cost, compared with the products they need, moments, and the usual loops.

    python benchmarks/uncertainty.py --out docs/bench

Each library has a process of its own, and all processes but one are stopped. They take turns, and
ratios are the medians of those within a round. The usual loop calls the network once for each
sample with dropout on, keeps the outputs, and finally takes their mean and standard deviation.

"Products" are those of the same samples, by NumPy: the first layer's once, and the others' for each
sample.

Moments need products, too: of the mean and of the variance forward, and of a path for each output
backward. The ratio of the multiplications is the most that moments can gain where products are all
that takes time.
"""

import argparse
import importlib.util
import statistics
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from rows import add_out, keep_rows
from training_sides import name_of

from fastdrop.commands.bench.process import Peers, serve

P, SAMPLES = 0.5, 100
# widths, rows, and how many calls make a turn; where one does, that of the first round warms up
POINTS = [((64, 64, 10), 1, 200), ((64, 256, 256, 10), 1024, 2), ((784, 1024, 1024, 10), 1024, 1)]
OWN = (
    *("samples", "products", "consistent", "predict x 100"),
    *("moments", "moments' products"),
)
OTHERS = {"torch": "PyTorch's loop", "keras": "Keras's loop"}
COLUMNS = (
    *("network", "rows", *OWN, "samples over products"),
    *("consistent over predicts", "samples over moments", "samples' multiplications over moments'"),
    *(f"{name} over samples" for name in OTHERS.values()),
)
TABLE = "uncertainty.md"


class Fastdrop:
    def __init__(self, threads):
        import fastdrop

        fastdrop.set_num_threads(threads)

    def prepare(self, side, widths, x):
        from fastdrop import Sequential, layers

        stack = [layers.Input((widths[0],))]
        for units in widths[1:-1]:
            stack += [layers.Dense(units, activation="relu"), layers.Dropout(P)]
        model = Sequential([*stack, layers.Dense(widths[-1], activation="softmax")], seed=1)
        weights = [w for w in model.get_weights() if w.ndim == 2]
        if side == "products":
            return partial(self.products, weights, x)
        if side == "moments' products":
            return partial(self.products_of_moments, weights, x)
        return {
            "samples": lambda: model.predict_mc(x, SAMPLES, verbose=0),
            "consistent": lambda: model.predict_mc(x, SAMPLES, consistent=True, verbose=0),
            "predict x 100": lambda: [model.predict(x, verbose=0) for _ in range(SAMPLES)],
            "moments": lambda: model.predict_moments(x),
        }[side]

    def products(self, weights, x):
        together = min(SAMPLES, max(1, 1024 // len(x)))  # samples of few rows are one product
        lines = len(x) * together
        first, *others = weights
        h = np.matmul(x, first.T)
        for _ in range(-(-SAMPLES // together)):
            a = np.ones((lines, len(first)), np.float32) if len(h) < lines else h
            for w in others:
                a = np.matmul(a, w.T)

    def products_of_moments(self, weights, x):
        first, *others = weights
        mean = np.matmul(x, first.T)
        for w in others:
            mean, _ = np.matmul(mean, w.T), np.matmul(mean, w.T)
        paths = np.ones((len(x) * len(others[-1]), len(others[-1].T)), np.float32)
        for w in reversed(others[:-1]):  # the last layer's weights are the paths behind it
            paths = np.matmul(paths, w)


def multiplications(widths):
    """Return those of a row's products: of all samples, and of moments."""
    first, *others = (inputs * units for inputs, units in pairwise(widths))
    return first + SAMPLES * sum(others), first + 2 * sum(others) + widths[-1] * sum(others[:-1])


class PyTorch:
    def __init__(self, threads):
        import torch

        torch.set_num_threads(threads)

    def prepare(self, side, widths, x):
        import torch
        from torch import nn

        stack = []
        for inputs, units in pairwise(widths):
            stack += [nn.Linear(inputs, units), nn.ReLU(), nn.Dropout(P)]
        model = nn.Sequential(*stack[:-2], nn.Softmax(dim=-1))
        given = torch.from_numpy(x)

        def run():
            with torch.inference_mode():
                model.train()
                outputs = torch.stack([model(given) for _ in range(SAMPLES)])
                return outputs.mean(dim=0), outputs.std(dim=0)

        return run


class Keras:
    def __init__(self, threads):
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)

    def prepare(self, side, widths, x):
        from keras import Input, Sequential, layers

        stack = [Input((widths[0],))]
        for units in widths[1:-1]:
            stack += [layers.Dense(units, activation="relu"), layers.Dropout(P)]
        model = Sequential([*stack, layers.Dense(widths[-1], activation="softmax")])

        def run():
            outputs = np.stack([np.asarray(model(x, training=True)) for _ in range(SAMPLES)])
            return outputs.mean(axis=0), outputs.std(axis=0)

        return run


LIBRARIES = {"fastdrop": Fastdrop, "torch": PyTorch, "keras": Keras}


def start(module, threads):
    library, ready = LIBRARIES[module](threads), {}

    def answer(request):
        """Time a turn: {"side", "widths", "rows", "calls"} -> seconds of a call."""
        side, widths, rows, calls = request
        name = (side, tuple(widths), rows)
        if name not in ready:
            x = np.random.default_rng(1).random((rows, widths[0]), np.float32)
            ready[name] = library.prepare(side, tuple(widths), x)
            if calls > 1:
                ready[name]()
        begin = time.perf_counter()
        for _ in range(calls):
            ready[name]()
        return (time.perf_counter() - begin) / calls

    return module, answer


def measure(peers, started, widths, rows, calls, rounds):
    """Return the row of a network."""
    sides = [("fastdrop", side) for side in OWN]
    sides += [(module, side) for module, side in OTHERS.items() if module in started]
    times = {side: [] for _, side in sides}
    for _ in range(rounds):
        for module, side in sides:
            turns = calls if module == "fastdrop" else 1  # whose loops are long
            seconds = peers.ask(started[module], (side, widths, rows, turns))
            if seconds is not None:
                times[side].append(seconds)

    def ratio(side, other):
        pairs = list(zip(times.get(side, ()), times.get(other, ())))
        return f"{statistics.median(a / b for a, b in pairs):.2f}" if pairs else "-"

    cells = [name_of(widths), str(rows)]
    cells += [f"{1e6 * statistics.median(times[side]):.0f}" for side in OWN]
    cells += [ratio("samples", "products")]
    cells += [ratio("consistent", "predict x 100")]
    of_samples, of_moments = multiplications(widths)
    cells += [ratio("samples", "moments"), f"{of_samples / of_moments:.1f}"]
    cells += [ratio(side, "samples") for side in OTHERS.values()]
    return f"| {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", nargs=2, metavar=("MODULE", "THREADS"), help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--libraries", nargs="*", choices=OTHERS, default=list(OTHERS))
    add_out(parser)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(partial(start, arguments.serve[0], int(arguments.serve[1])))
        return None
    head = (
        f"{SAMPLES} samples, p = {P}, {arguments.threads} threads; times in us\n\n"
        f"| {' | '.join(COLUMNS)} |\n|---|{'---:|' * (len(COLUMNS) - 1)}"
    )
    found = [name for name in arguments.libraries if importlib.util.find_spec(name)]
    with Peers() as peers:
        started = {}
        for module in ("fastdrop", *found):
            script = [str(Path(__file__)), "--serve", module, str(arguments.threads)]
            started[module] = peers.start(module, script, arguments.threads)
        rows = [
            (name_of(point[0]), partial(measure, peers, started, *point, arguments.rounds))
            for point in POINTS
        ]
        status = keep_rows([(head, rows)], TABLE, arguments.out)
        for name, failure in peers.failures.items():
            print(f"{name}: {failure}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
