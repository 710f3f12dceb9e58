"""What calls of estimators cost besides large epochs: ours and scikit-learn's.

python benchmarks/sklearn_calls.py --out docs/bench

The notes above the table say what is measured.
"""

import argparse
import sys
import warnings
from functools import partial

import numpy as np
from rows import add_out, keep_rows
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn_speed import SIDES, SPIN
from threads import medians

NOTES = """\
Classifiers of two classes with scikit-learn's defaults, one hidden layer of 100 units, of 2000
samples with 30 features, float64. Both sides take turns, after a pause in which OpenBLAS's threads
leave the cores; medians.
"""
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


def calls(side):
    """Return, by its name, what is called and how many calls it is."""
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


def row_of(name, functions, count, rounds):
    """Return a row of the table, for both sides' functions, which make so many calls each."""
    times = medians(dict(zip(SIDES, functions)), rounds, pause=SPIN)
    theirs, ours = (times[side] / 1000 / count for side in SIDES)
    return f"| {name} | {theirs:.3f} | {ours:.3f} | **{theirs / ours:.1f}** |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    add_out(parser)
    given = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    head = f"{NOTES}\n| call | scikit-learn, ms | fastdrop | ratio |\n|---|---:|---:|---:|"
    x, y = data()
    timed = {
        f"`fit` with {name}, {EPOCHS} iterations": (
            [partial(made(side, **settings).fit, x, y) for side in SIDES],
            1,
        )
        for name, settings in FITS.items()
    }
    theirs, ours = (calls(side) for side in SIDES)
    for name, (function, count) in theirs.items():
        timed[name] = [function, ours[name][0]], count
    rows = [(name, partial(row_of, name, *what, given.rounds)) for name, what in timed.items()]
    return keep_rows([(head, rows)], "sklearn_calls.md", given.out)


if __name__ == "__main__":
    sys.exit(main())
