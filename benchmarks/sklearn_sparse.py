"""What sparse data cost: our estimators and scikit-learn's, to train and to predict.

python benchmarks/sklearn_sparse.py --out docs/bench

The notes above the table say what is measured.
"""

import argparse
import sys
import warnings
from functools import partial

import numpy as np
import scipy.sparse
from rows import add_out, keep_rows
from sklearn.exceptions import ConvergenceWarning
from sklearn_speed import SIDES, SPIN
from threads import medians

SETS = [  # samples, features, per cent of stored numbers
    (5000, 300, 5),
    (5000, 2000, 0.1),
    (5000, 2000, 1),
    (5000, 2000, 5),
    (5000, 2000, 20),
    (5000, 20_000, 0.1),
    (2000, 100_000, 0.1),
]
HIDDEN = [(50,), (100,)]
NOTES = """\
Classifiers of three classes, with one hidden layer, float64, Adam and batches of 200, of CSR
matrices with random numbers in random places. "stored" is the share of stored numbers. "epoch" is
an epoch of `fit`, "predict" a `predict` of all samples. Both sides take turns, after a pause in
which OpenBLAS's threads leave the cores; medians.
"""
EPOCHS = 3


def measure(samples, features, stored, hidden, rounds):
    """Return a row of the table."""
    rng = np.random.default_rng(0)
    x = scipy.sparse.random_array((samples, features), density=stored / 100, rng=rng, format="csr")
    y = rng.integers(0, 3, samples)
    settings = {"max_iter": EPOCHS, "tol": 0, "n_iter_no_change": EPOCHS, "random_state": 0}
    nets = {side: SIDES[side].MLPClassifier(hidden, **settings) for side in SIDES}
    cells = []
    for method, arguments, count in (("fit", (x, y), EPOCHS), ("predict", (x,), 1)):
        functions = {side: partial(getattr(net, method), *arguments) for side, net in nets.items()}
        times = medians(functions, rounds, pause=SPIN)
        theirs, ours = (times[side] / 1000 / count for side in SIDES)
        cells += [f"{theirs:.1f}", f"{ours:.1f}", f"**{theirs / ours:.1f}**"]
    return f"| {samples} x {features} | {stored:g} % | {hidden[0]} | {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    add_out(parser)
    given = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    of_each = "scikit-learn, ms | fastdrop | ratio"
    head = (
        f"{NOTES}\n| X | stored | hidden | epoch: {of_each} | predict: {of_each} |"
        f"\n|---|---:|---:{'|---:' * 6}|"
    )
    rows = [
        (f"{sizes}, {hidden}", partial(measure, *sizes, hidden, given.rounds))
        for sizes in SETS
        for hidden in HIDDEN
    ]
    return keep_rows([(head, rows)], "sklearn_sparse.md", given.out)


if __name__ == "__main__":
    sys.exit(main())
