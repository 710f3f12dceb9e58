"""What calls of estimators cost besides large epochs: ours and scikit-learn's.

python benchmarks/sklearn_calls.py --out docs/bench

The notes above the table say what is measured.
"""

import argparse
import statistics
import sys
import time
import warnings
from functools import partial

import numpy as np
from rows import add_out, keep_rows
from sklearn import neural_network
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

import fastdrop.sklearn

SIDES = {"scikit-learn": neural_network, "fastdrop": fastdrop.sklearn}
NOTES = """\
Classifiers of two classes with scikit-learn's defaults, one hidden layer of 100 units, of 2000
samples with 30 features, float64. Both sides take turns, after a pause in which OpenBLAS's threads
leave the cores; medians.
"""
SPIN = 0.15  # seconds
EPOCHS = 10
FITS = {
    "defaults": {},
    "`activation='tanh'`": {"activation": "tanh"},
    "`activation='logistic'`": {"activation": "logistic"},
    "`solver='sgd'`": {"solver": "sgd"},
    "`solver='lbfgs'`": {"solver": "lbfgs"},
    "`early_stopping=True`": {"early_stopping": True},
    "`batch_size=32`": {"batch_size": 32},
}


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 30))
    return x, (x[:, 0] + x[:, 1] > 0).astype(int)


def made(side, **settings):
    same = {"max_iter": EPOCHS, "tol": 0, "n_iter_no_change": EPOCHS, "random_state": 0}
    return SIDES[side].MLPClassifier(**same | settings)


def fit(side, **settings):
    made(side, **settings).fit(*data())


def calls(side):
    """Return what is called, by its name."""
    x, y = data()
    net = made(side).fit(x, y)
    learning = made(side)

    def stream():
        for start in range(0, len(x), 100):
            learning.partial_fit(x[start : start + 100], y[start : start + 100], classes=[0, 1])

    return {
        "`predict`, 1 sample": (lambda: [net.predict(x[:1]) for _ in range(100)], 100),
        "`predict_proba`, 1 sample": (lambda: [net.predict_proba(x[:1]) for _ in range(100)], 100),
        "`predict`, 2000 samples": (lambda: net.predict(x), 1),
        "`score`, 2000 samples": (lambda: net.score(x, y), 1),
        "`partial_fit`, 100 samples": (stream, 20),
        "`clone`": (lambda: [clone(net) for _ in range(20)], 20),
    }


def row_of(name, functions, rounds):
    """Return a row of the table: of functions and how many calls they are, by side."""
    times = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side, (function, count) in functions.items():
            time.sleep(SPIN)
            start = time.perf_counter()
            function()
            times[side].append((time.perf_counter() - start) / count)
    theirs, ours = (1000 * statistics.median(times[side]) for side in SIDES)
    return f"| {name} | {theirs:.3f} | {ours:.3f} | **{theirs / ours:.1f}** |"


def fit_row(name, settings, rounds):
    functions = {side: (partial(fit, side, **settings), 1) for side in SIDES}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return row_of(f"`fit` with {name}, {EPOCHS} iterations", functions, rounds)


def call_row(name, rounds):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return row_of(name, {side: calls(side)[name] for side in SIDES}, rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    add_out(parser)
    given = parser.parse_args()
    head = f"{NOTES}\n| call | scikit-learn, ms | fastdrop | ratio |\n|---|---:|---:|---:|"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        names = list(calls("fastdrop"))
    rows = [(name, partial(fit_row, name, FITS[name], given.rounds)) for name in FITS]
    rows += [(name, partial(call_row, name, given.rounds)) for name in names]
    return keep_rows([(head, rows)], "sklearn_calls.md", given.out)


if __name__ == "__main__":
    sys.exit(main())
